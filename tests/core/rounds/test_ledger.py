"""What happened to the oracle is of the whole run: of every attempt, each part once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from chat_stub import ChatStub, chat_stub
from killing import killed_run
from lab import Lab
from nashtune.errors import InputError
from nashtune.interfaces import Oracle
from nashtune.journal.store import Journal
from nashtune.rounds.ledger import Ledger
from nashtune.testing.policies import tiny_heads


class Counting(Oracle):
    def __init__(self) -> None:
        self.seen: Counter[str] = Counter(pings=1)

    def counts(self) -> Mapping[str, int]:
        return self.seen


def finish(journal: Journal, part: str) -> None:
    journal.write_table(1, part, {"p": [0.5]})


def test_each_part_is_counted_once_whoever_has_made_it(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path / "journal"), Journal(tmp_path / "journal", writer=1)
    oracle = Counting()
    ledger = Ledger(tmp_path / "oracle", oracle)
    oracle.seen["comparisons"] += 3
    ledger.write(1, "judgements-0000")
    finish(journal, "judgements-0000")
    ledger.write(1, "judgements-0002")  # nothing was asked
    assert ledger.total(journal) == {"comparisons": 3}  # what was counted before the first part belongs to none
    oracle.seen["comparisons"] += 5
    ledger.write(1, "judgements-0001")  # killed here: the journal does not have the part
    assert ledger.total(journal) == {"comparisons": 3}
    again = Counting()
    second = Ledger(tmp_path / "oracle", again, writer=1)  # and another process makes it anew
    again.seen.update(comparisons=4, cache_hits=1)
    second.write(1, "judgements-0001")
    finish(other, "judgements-0001")
    assert ledger.total(journal) == second.total(other) == {"comparisons": 7, "cache_hits": 1}


def test_what_an_oracle_counts_and_never_saw_is_a_zero(tmp_path: Path) -> None:
    journal, oracle = Journal(tmp_path / "journal"), Counting()
    ledger = Ledger(tmp_path / "oracle", oracle)
    oracle.seen.update(comparisons=3, valid_objects=0)
    ledger.write(1, "judgements-0000")
    finish(journal, "judgements-0000")
    assert ledger.total(journal) == {"comparisons": 3, "valid_objects": 0}
    oracle.seen["valid_objects"] += 2
    ledger.write(1, "judgements-0001")
    finish(journal, "judgements-0001")
    assert ledger.total(journal) == {"comparisons": 3, "valid_objects": 2}


def test_a_part_that_is_made_again_replaces_what_it_had_cost(tmp_path: Path) -> None:
    journal, oracle = Journal(tmp_path / "journal"), Counting()
    ledger = Ledger(tmp_path / "oracle", oracle)
    oracle.seen["texts"] += 3
    ledger.write(1, "scores-0000")
    Ledger(tmp_path / "oracle", None).write(1, "scores-0000")  # nobody was asked this time
    finish(journal, "scores-0000")
    assert ledger.total(journal) == {}


@pytest.mark.parametrize(
    "content", ['{"scores-0000"', "[]", '{"scores-0000": 3}', '{"scores-0000": {"texts": "3"}}', "[" * 100_000]
)
def test_a_torn_ledger_is_named(tmp_path: Path, content: str) -> None:
    journal, oracle = Journal(tmp_path / "journal"), Counting()
    finish(journal, "scores-0000")
    (tmp_path / "oracle").mkdir()
    (tmp_path / "oracle/round-001.json").write_text(content)
    with pytest.raises(InputError, match=r"round-001\.json is torn"):
        Ledger(tmp_path / "oracle", oracle).total(journal)


ROUNDS = ("--spec.schedule.rounds", "2", "--data.prompts_per_round", "4")
MOMENTS = {
    "in the middle of the first round": ("nashtune.rounds.judge:write_judgements", 1, False),
    "between what was counted and the verdicts": ("nashtune.rounds.ledger:write_bytes_atomically", 2, True),
    "after the verdicts of the last round": ("nashtune.rounds.judge:write_judgements", 2, True),
    "while the policies face each other": ("nashtune.training.face_off:write_completions", 2, False),
}


def options(stub: ChatStub, cache: Path) -> list[str]:
    values = {"url": stub.url, "model": "stub", "cache": str(cache)}
    return ["--spec.oracle", "judge", *(word for k, v in values.items() for word in (f"--spec.oracle.{k}", v))]


def oracle_of(run: Path) -> dict[str, int]:
    counts: dict[str, int] = json.loads((run / "report.json").read_text())["oracle"]
    return counts


def test_a_judge_is_counted_over_kills(game: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts that a killed attempt had kept are cache hits of the next one; nothing else differs."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with chat_stub() as stub:
        whole = oracle_of(game.fit(*ROUNDS, *options(stub, game.folder / "cache"), spec="inpo", run="whole"))
        assert whole["comparisons"] > 0 and whole["requests"] > 0
        for number, (where, call, after) in enumerate(MOMENTS.values()):
            run = game.folder / f"run-{number}"
            asks = (*ROUNDS, *options(stub, game.folder / f"cache-{number}"))
            command = ["fit", "--spec", "inpo", "--config", str(game.run_file), "--run_dir", str(run), *asks]
            assert killed_run(command, str(game.folder), where, call, after=after) == -9
            game.fit("--ckpt_path", "last", *asks, spec="inpo", run=run.name)
            found = oracle_of(run)
            same = {"comparisons", "position_decides"} & whole.keys()
            assert {name: found[name] for name in same} == {name: whole[name] for name in same}
            asked = [one["requests"] + one.get("cache_hits", 0) for one in (found, whole)]
            assert asked[0] == asked[1], list(MOMENTS)[number]


def test_a_reward_model_is_counted_as_if_nothing_had_happened(game: Lab) -> None:
    """It scores the answers among which the sampler chooses, and then the chosen ones."""
    heads = ["--spec.oracle", "reward_ensemble", "--spec.oracle.path", str(tiny_heads()), "--spec.oracle.members", "3"]
    asks = [*ROUNDS, *heads, "--spec.sampler", "best_of_n", "--spec.sampler.n", "2", "--spec.sampler.completions", "2"]
    asks += ["--spec.sampler.max_new_tokens", "6"]
    whole = oracle_of(game.fit(*asks, spec="online_dpo", run="whole"))
    assert whole["scored"] == 2 * 4 * 2 * (2 + 1)  # rounds, prompts, answers, candidates and the chosen one
    run = game.folder / "run"
    command = ["fit", "--spec", "online_dpo", "--config", str(game.run_file), "--run_dir", str(run), *asks]
    for where, call in (("nashtune.rounds.collect:write_completions", 2), ("nashtune.rounds.judge:write_scores", 1)):
        assert killed_run(command, str(game.folder), where, call, after=False) == -9
        command = [*command, *([] if "--ckpt_path" in command else ["--ckpt_path", "last"])]
    game.fit("--ckpt_path", "last", *asks, spec="online_dpo")
    assert oracle_of(run) == whole
