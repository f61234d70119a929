"""A judge that goes down, is slow, is busy or talks nonsense, in the middle of a game."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from chat_stub import ChatStub, Reply, chat_stub, prefers_longer, said
from lab import Lab
from nashtune.journal.records import read_completions, read_judgements
from nashtune.journal.store import Journal
from nashtune.oracles import judge_client

ROUNDS = ("--spec.schedule.rounds", "2", "--spec.optimizer.lr", "0.05")  # policies of all rounds answer differently
REQUEST = re.compile(r"\[Request\]\n(.*?)\n\n\[Answer A\]", re.DOTALL)
PATIENCE = 0.01  # seconds


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


def about(body: dict[str, Any]) -> str:
    """The prompt that a request is about."""
    found = REQUEST.search(question(body))
    assert found is not None
    return found.group(1)


@dataclass
class Judge:
    """A chat endpoint that counts what it answered.

    Attributes:
        stub: The endpoint.
        answered: Questions that got a verdict, in order.
        reply: What it says; a test may exchange it.
    """

    stub: ChatStub
    answered: list[str] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], Reply] = prefers_longer

    def __call__(self, body: dict[str, Any]) -> Reply:
        reply = self.reply(body)
        if reply.status == 200 and "[[" in reply.body:
            self.answered.append(question(body))
        return reply

    def options(self, cache: Path) -> list[str]:
        """Of the command line; one retry, so that a fault ends soon."""
        values = {"url": self.stub.url, "model": "stub", "cache": str(cache), "retries": "1"}
        return ["--spec.oracle", "judge", *(word for k, v in values.items() for word in (f"--spec.oracle.{k}", v))]


@contextmanager
def judging() -> Iterator[Judge]:
    with chat_stub() as stub:
        judge = Judge(stub)
        stub.reply = judge
        yield judge


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(judge_client, "FIRST_WAIT", PATIENCE)


@pytest.fixture
def judge() -> Iterator[Judge]:
    with judging() as endpoint:
        yield endpoint


def outcome(run: Path) -> dict[str, object]:
    """Everything that a run leaves: every journal file, snapshots, weights, win rates."""
    newest = max((run / "checkpoints").glob("step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))
    weights = torch.load(newest, weights_only=True)["state_dict"]
    report = json.loads((run / "report.json").read_text())
    return {
        "journal": journal_bytes(run),
        "answers": {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.glob("answers/*/*"))},
        "snapshots": json.loads((run / "snapshots" / "snapshots.json").read_text()),
        "weights": {name: value.tolist() for name, value in weights.items()},
        **{name: report[name] for name in ("steps", "rounds", "win_rates")},
    }


def resumed(game: Lab, *more: str) -> Path:
    """What the message says: the run goes on with nothing but its folder."""
    from nashtune.cli.main import main

    assert main(["fit", "--ckpt_path", "last", "--run_dir", str(game.folder / "run"), *more]) == 0
    return game.folder / "run"


def journal_bytes(run: Path, rounds: str = "*") -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.glob(f"journal/round-{rounds}/*"))}


def prompts_of(game: Lab, run: Path, round: int) -> set[str]:
    """The texts of a round's prompts; rounds share none here."""
    rows = [json.loads(line)["prompt"] for line in (game.folder / "train.jsonl").read_text().splitlines()]
    return {rows[one.prompt] for one in read_completions(Journal(run / "journal"), round, "policy", 0)[0]}


def same_as(expected: dict[str, object], run: Path) -> None:
    found = outcome(run)
    for name in expected:
        assert found[name] == expected[name], name


# ---------------------------------------------------------------- down


@pytest.mark.parametrize("when", ["round 1", "round 2", "win rates"])
def test_a_judge_that_goes_down_and_comes_back_elsewhere_changes_nothing(
    game: Lab, judge: Judge, refused: Callable[..., str], when: str
) -> None:
    whole = game.fit(*ROUNDS, *judge.options(game.folder / "cache"), spec="onpo", run="whole")
    expected, all_questions = outcome(whole), Counter(judge.answered)
    assert set(all_questions.values()) == {1}  # the cache asks nothing twice, not even within a round
    rounds = [prompts_of(game, whole, t) for t in (1, 2)]
    before = [about({"messages": [{"content": text}]}) for text in judge.answered]
    ends = [sum(prompt in some for prompt in before) for some in (rounds[0], rounds[0] | rounds[1])]
    last = {"round 1": 2, "round 2": ends[0] + 2, "win rates": ends[1] + 2}[when]  # two answers of the phase arrive
    assert last < len(before)

    own_cache = game.folder / "other cache"
    with ExitStack() as up:
        dying = up.enter_context(judging())
        url = dying.stub.url

        def dies(body: dict[str, Any]) -> Reply:
            if len(dying.answered) < last:
                return prefers_longer(body)
            up.close()  # from here on nothing listens at the port
            return Reply("shutting down", 503)

        dying.reply = dies
        folder = game.folder / "run"
        message = refused(
            *("fit", "--spec", "onpo", "--config", str(game.run_file), "--run_dir", str(folder)),
            *(*ROUNDS, *dying.options(own_cache)),
        )
    assert url in message and "2 tries" in message
    assert "nashtune fit --ckpt_path last --run_dir" in message
    assert len(dying.answered) == last
    for finished in {"round 1": [], "round 2": ["001"], "win rates": ["001", "002"]}[when]:
        assert journal_bytes(folder, finished) == journal_bytes(whole, finished)

    with judging() as back:
        assert back.stub.url != url
        run = resumed(game, "--spec.oracle.url", back.stub.url)
        assert Counter(dying.answered) + Counter(back.answered) == all_questions
        assert len(back.stub.asked) == len(back.answered)
    same_as(expected, run)
    assert game.metrics(run) == game.metrics(whole)


def test_a_judge_that_is_down_from_the_start_leaves_no_folder(game: Lab, refused: Callable[..., str]) -> None:
    with judging() as gone:
        options = gone.options(game.folder / "cache")
    message = refused("fit", "--spec", "onpo", "--config", str(game.run_file), "--run_dir", "run", *ROUNDS, *options)
    assert gone.stub.url in message and "start the server" in message
    assert not (game.folder / "run").exists()


# ---------------------------------------------------------------- busy and slow


def busy(code: int, headers: dict[str, str]) -> Callable[[], Callable[[dict[str, Any]], Reply]]:
    """Refuses every question once."""

    def make() -> Callable[[dict[str, Any]], Reply]:
        seen: set[str] = set()

        def reply(body: dict[str, Any]) -> Reply:
            if question(body) in seen:
                return prefers_longer(body)
            seen.add(question(body))
            return Reply("come again", code, headers)

        return reply

    return make


def slow() -> Callable[[dict[str, Any]], Reply]:
    """Takes its time, but less than the timeout; answers that were asked for together arrive in another order."""
    number = [0]

    def reply(body: dict[str, Any]) -> Reply:
        answer, held = prefers_longer(body), threading.Event()
        number[0] += 1
        threading.Timer(PATIENCE * (number[0] % 3), held.set).start()
        answer.hold = held
        return answer

    return reply


FAULTS = {
    "429 with Retry-After": (busy(429, {"Retry-After": str(2 * PATIENCE)}), 2),
    "500": (busy(500, {}), 2),
    "no chat completion": (busy(200, {}), 2),
    "slow": (slow, 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_judge_that_answers_in_the_end_changes_nothing(game: Lab, judge: Judge, fault: str) -> None:
    whole = game.fit(*ROUNDS, *judge.options(game.folder / "cache"), spec="inpo", run="whole")
    make, requests = FAULTS[fault]
    with judging() as faulty:
        faulty.reply = make()
        run = game.fit(*ROUNDS, *faulty.options(game.folder / "other cache"), spec="inpo")
        assert Counter(faulty.answered) == Counter(judge.answered)
        assert len(faulty.stub.asked) == requests * len(faulty.answered)
    same_as(outcome(whole), run)


# ---------------------------------------------------------------- nonsense


@pytest.mark.parametrize("patience", ["the judge recovers", "the user gives it up"])
def test_nonsense_stops_the_run_with_everything_kept(
    game: Lab, judge: Judge, refused: Callable[..., str], patience: str
) -> None:
    whole = game.fit(*ROUNDS, *judge.options(game.folder / "cache"), spec="inpo", run="whole")
    second = prompts_of(game, whole, 2)
    with judging() as babbler:
        babbler.reply = lambda body: said("Both have merits.") if about(body) in second else prefers_longer(body)
        message = refused(
            *("fit", "--spec", "inpo", "--config", str(game.run_file), "--run_dir", str(game.folder / "run")),
            *(*ROUNDS, *babbler.options(game.folder / "other cache")),
        )
        assert babbler.stub.url in message and "was asked 3 times and gave no verdict" in message
        assert "Both have merits." in message and "nashtune fit --ckpt_path last --run_dir" in message
        assert journal_bytes(game.folder / "run", "001") == journal_bytes(whole, "001")
        if patience == "the judge recovers":
            babbler.reply = prefers_longer
            run = resumed(game)
            assert Counter(babbler.answered) == Counter(judge.answered)
            same_as(outcome(whole), run)
        else:
            # what the message proposes is possible in the same run
            run = resumed(game, "--spec.oracle.on_parse_failure", "drop")
            first_round, second_round = json.loads((run / "report.json").read_text())["rounds"]
            assert first_round["dropped"] == outcome(whole)["rounds"][0]["dropped"]  # type: ignore[index]
            assert second_round["pairs"] == 0 and set(second_round["dropped"]) == {"unparsed"}


@pytest.mark.parametrize("pairing", ["iid", "best_worst", "tournament"])
def test_dropped_nonsense_is_counted_and_never_a_tie(game: Lab, judge: Judge, pairing: str) -> None:
    """The judge prefers the longer answer, but has no verdict on half of the prompts and on one held-out prompt."""
    rows, held_out = (
        [json.loads(line)["prompt"] for line in (game.folder / name).read_text().splitlines()]
        for name in ("train.jsonl", "validation.jsonl")
    )
    mute = {*rows[::2], held_out[0]}
    judge.reply = lambda body: said("Who knows?") if about(body) in mute else prefers_longer(body)
    options = judge.options(game.folder / "cache")
    run = game.fit(
        *(*ROUNDS, *options, "--spec.oracle.on_parse_failure", "drop", "--spec.pairing", pairing),
        spec="inpo",
    )
    report = json.loads((run / "report.json").read_text())
    journal, lost = Journal(run / "journal"), 0
    for t, one in enumerate(report["rounds"], start=1):
        text = texts_of(journal, t)
        judged = read_judgements(journal, t, 0)
        nothing = [j for j in judged if math.isnan(j.p)]
        # no number where the judge said nothing, and nowhere else
        asked = [j for j in judged if text[j.prompt, j.first] != text[j.prompt, j.second]]
        assert nothing == [j for j in asked if rows[j.prompt] in mute]
        assert one["dropped"].get("unparsed", 0) == len(nothing)
        silent = {j.prompt for j in nothing}
        assert one["dropped"].get("tie", 0) <= sum(j.p == 0.5 for j in judged if j.prompt not in silent)
        lost += len(nothing)
    assert lost > 0
    said_by = [texts_of(Journal(run / "answers"), number)[0, 0] for number in (1, 2, 3)]  # to the first prompt
    different = sum(one != other for one, other in combinations(said_by, 2))
    assert report["win_rates"]["unanswered"] == different > 0


def texts_of(journal: Journal, round: int) -> dict[tuple[int, int], str]:
    """Texts of a round's completions, by (prompt, k)."""
    completions, texts = read_completions(journal, round, "policy", 0)
    return {(one.prompt, one.k): text for one, text in zip(completions, texts, strict=True)}
