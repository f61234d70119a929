"""The recorded sampler: completions from a file or a journal come back as they were, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nashtune.errors import InputError
from nashtune.interfaces.oracle import Judgement
from nashtune.interfaces.sampler import Completion
from nashtune.journal.records import write_completions, write_judgements
from nashtune.journal.store import Journal
from nashtune.samplers.policy import PolicySampler
from nashtune.samplers.recorded import RecordedSampler
from nashtune.samplers.recorded_journal import write_prompts

PROMPTS = [[10, 20, 30], [11], [5, 6, 7, 8, 9, 40, 41]]


@pytest.fixture
def recorded(live, tmp_path):
    """Make a sampler of a file with these rows."""

    def make(*rows, name="rows.jsonl"):
        path = tmp_path / name
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return live.attached(RecordedSampler(path=str(path), completions=2))

    return make


def row(prompt, tokens=(7, 8), **more):
    return {"prompt_ids": PROMPTS[prompt], "token_ids": list(tokens), **more}


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_what_was_sampled_comes_back_from_a_file(live, recorded, name):
    sampler = live.attached(PolicySampler(max_new_tokens=8, top_p=0.9, temperature=2.0))
    sampler.sync("main@1")
    drawn = sampler.sample(PROMPTS, 6, seed=1)
    rows = [
        {
            "prompt_ids": PROMPTS[c.prompt],
            "token_ids": list(c.token_ids),
            "token_logp": list(c.token_logp),
            "kept_mass": list(c.kept_mass),
            "finish": c.finish,
            "version": c.version,
            "k": c.k,
            "text": "for people",
        }
        for c in drawn
    ]
    assert recorded(*reversed(rows), name=name).sample(PROMPTS, 6, seed=99) == drawn
    order = [2, 0]
    some = recorded(*rows, name=name).sample([PROMPTS[i] for i in order], 2, seed=99, indices=[40, 41])
    assert some == [replace(drawn[6 * i + k], prompt=at) for at, i in enumerate(order) for k in range(2)]


def test_a_row_needs_token_ids_only(recorded):
    sampler = recorded(row(0, [7, 2]), row(0, [8, 9]), row(1, [3]))
    assert sampler.sample(PROMPTS[:1], 2, seed=0, round=5) == [
        Completion(prompt=0, k=0, token_ids=(7, 2), token_logp=(), finish="stop"),  # 2 is EOS
        Completion(prompt=0, k=1, token_ids=(8, 9), token_logp=(), finish="length"),
    ]
    assert sampler.judgements(1, 0) is None


def test_prompts_by_number(recorded):
    sampler = recorded({"prompt": 4, "token_ids": [7]}, {"prompt": 5, "prompt_ids": PROMPTS[1], "token_ids": [8]})
    found = sampler.sample(PROMPTS[:2], 1, seed=0, indices=[4, 5])
    assert [c.token_ids for c in found] == [(7,), (8,)]
    with pytest.raises(
        InputError, match=r"rows\.jsonl:2: prompt 5 was recorded with the token ids \[11\] and has \[10"
    ):
        sampler.sample(PROMPTS[:1], 1, seed=0, indices=[5])


def test_rounds(recorded):
    sampler = recorded(row(0, [7], round=1), row(0, [8], round=2))
    assert [sampler.sample(PROMPTS[:1], 1, seed=0, round=t)[0].token_ids for t in (1, 2)] == [(7,), (8,)]
    with pytest.raises(InputError, match=r"no completion of round 3; it has rounds \[1, 2\]"):
        sampler.sample(PROMPTS[:1], 1, seed=0, round=3)


def test_what_was_not_recorded_is_named(recorded):
    sampler = recorded(row(0), row(0, k=None), row(1))
    with pytest.raises(InputError, match=r"prompt 1 of round 1 has completions k=\[0\], and k=\[1\] of 2 are missing"):
        sampler.sample(PROMPTS[:2], 2, seed=0, round=1)
    with pytest.raises(InputError, match=r"no completion of prompt 2 in round 1; it has neither.*\[5, 6, 7, 8, 9, 40"):
        sampler.sample(PROMPTS, 1, seed=0, round=1)
    sampler.max_new_tokens = 1
    with pytest.raises(
        InputError, match=r"completion k=0 of prompt 0 in round 1 has 2 tokens; raise spec\.sampler\.max"
    ):
        sampler.sample(PROMPTS[:1], 1, seed=0, round=1)
    with pytest.raises(RuntimeError, match="attach"):
        RecordedSampler(path="x").sample(PROMPTS, 1, seed=0)
    with pytest.raises(ValueError, match="1 indices for 3 prompts"):
        sampler.sample(PROMPTS, 1, seed=0, indices=[1])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"prompt": "Hello?", "completion": "Hi."}],
            r":1: no token_ids; .*tokenizer\(text, add_special_tokens=False\)",
        ),
        ([{"prompt": "Hello?", "token_ids": [7]}], ":1: prompt is text; give prompt_ids"),
        ([{"token_ids": [7]}], ":1: says of no prompt"),
        ([row(0), row(0, [])], ":2: token_ids is '.*'; a list of token ids is needed, not empty"),
        ([row(0, [7.5])], ":1: token_ids is"),
        ([row(0, [True])], ":1: token_ids is"),
        ([row(0, [7, 262])], ":1: token_ids has 262, which the policy's vocabulary of 262 tokens lacks"),
        ([row(0, [-1])], ":1: token_ids has -1"),
        ([row(0, token_logp=[-1.0])], ":1: 1 numbers in token_logp for 2 token_ids"),
        ([row(0, token_logp=["a", "b"])], ":1: token_logp is .* a list of numbers"),
        ([row(0, finish="eos")], ":1: finish is 'eos'; allowed are"),
        ([row(0, rond=1)], ":1: unknown column 'rond'; did you mean 'round'"),
        ([row(0, round=1), row(0)], ":2: `round` stands in some rows"),
        ([row(0, k=0), row(0)], ":2: `k` stands in some rows"),
        ([row(0, k=1), row(0, k=1)], r":2: completion k=1 of this prompt and round stands in .*:1 too"),
        ([row(0, k=-1)], ":1: k is -1; a whole number from 0"),
    ],
)
def test_rows_that_are_wrong_are_named(recorded, rows, message):
    with pytest.raises(InputError, match=message):
        recorded(*rows)


def test_a_file_that_is_not_there_or_broken(live, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        live.attached(RecordedSampler(path=str(tmp_path / "nothing.jsonl")))
    (tmp_path / "broken.jsonl").write_text('{"prompt": 1, \n')
    with pytest.raises(InputError, match=r"broken\.jsonl:1: broken JSON"):
        live.attached(RecordedSampler(path=str(tmp_path / "broken.jsonl")))


# ---------------------------------------------------------------- journals

NUMBERS = [6, 0, 3]  # of the prompts in the whole set, in the order of the round


@pytest.fixture
def run(live, tmp_path):
    """A run folder whose journal has two parts of round 1, with an opponent, and prompts alone of round 2."""
    journal = Journal(tmp_path / "run" / "journal")
    drawn = {}
    for role in ("policy", "opponent"):
        sampler = live.attached(PolicySampler(max_new_tokens=8, temperature=1.3, top_p=0.8))
        sampler.sync(f"{role}@0")
        found = sampler.sample(PROMPTS, 3, seed=len(role), round=1, indices=NUMBERS)
        drawn[role] = found
        numbered = [replace(c, prompt=NUMBERS[c.prompt]) for c in found]
        for part, some in enumerate((numbered[:6], numbered[6:])):
            write_completions(journal, 1, role, part, some, ["text"] * len(some))
    write_prompts(journal, 1, [NUMBERS[:2], NUMBERS[2:]], PROMPTS)
    write_prompts(journal, 2, [NUMBERS], PROMPTS)
    return tmp_path / "run", drawn, journal


@pytest.mark.parametrize("below", ["", "journal"])
def test_a_journal_gives_back_exactly_what_was_drawn(live, run, below):
    folder, drawn, _ = run
    sampler = live.attached(RecordedSampler(path=str(folder / below)))
    ask = {"seed": 0, "round": 1, "indices": NUMBERS, "reference_weight": 0.5}
    assert sampler.sample(PROMPTS, 3, **ask) == drawn["policy"]
    sampler.sync("ema@1", "opponent")
    assert sampler.sample(PROMPTS, 3, **ask) == drawn["opponent"]
    sampler.sync("main@1", "policy")
    assert sampler.sample(PROMPTS, 3, **ask) == drawn["policy"]
    assert {c.version for c in drawn["policy"]} == {"policy@0"}
    (first, *_), third = (sampler.sample([PROMPTS[i]], 3, seed=0, round=1, indices=[NUMBERS[i]]) for i in (0, 2))
    assert first == drawn["policy"][0]  # of another split over ranks
    assert [c.token_ids for c in third] == [c.token_ids for c in drawn["policy"][6:]]


def test_judgements_come_with_a_journal(live, run):
    folder, _, journal = run
    rows = [Judgement(prompt=6, first=0, second=1, p=0.25), Judgement(prompt=0, first=2, second=1, p=1.0)]
    write_judgements(journal, 1, 0, rows)
    sampler = live.attached(RecordedSampler(path=str(folder)))
    assert sampler.judgements(1, 0) == rows
    assert sampler.judgements(1, 1) is None
    assert sampler.judgements(2, 0) is None
    assert RecordedSampler.replays


def test_other_prompts_and_rounds_than_the_recorded_ones_are_refused(live, run, tmp_path):
    sampler = live.attached(RecordedSampler(path=str(run[0])))
    with pytest.raises(InputError, match=r"round 1: no completion of prompt 5; the run had other prompts"):
        sampler.sample(PROMPTS, 3, seed=0, round=1, indices=[6, 0, 5])
    with pytest.raises(InputError, match=r"prompt 0 was recorded with the token ids \[11\] and has \[12\] in this run"):
        sampler.sample([PROMPTS[0], [12]], 3, seed=0, round=1, indices=[6, 0])
    with pytest.raises(InputError, match=r"no completions in round 2; it has those of rounds \[1\]"):
        sampler.sample(PROMPTS, 3, seed=0, round=2, indices=NUMBERS)
    with pytest.raises(InputError, match=r"prompt 6 of round 1 has completions k=\[0, 1, 2\], and k=\[3\] of 4 are"):
        sampler.sample(PROMPTS, 4, seed=0, round=1, indices=NUMBERS)
    with pytest.raises(InputError, match="is no journal"):
        live.attached(RecordedSampler(path=str(tmp_path)))


def test_an_altered_journal_is_refused_by_name(live, run):
    path = run[0] / "journal" / "round-001" / "completions-policy-0001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    sampler = live.attached(RecordedSampler(path=str(run[0])))
    with pytest.raises(InputError, match=r"completions-policy-0001\.parquet is torn or was altered"):
        sampler.sample(PROMPTS, 3, seed=0, round=1, indices=NUMBERS)
