"""The data module for losses that train reward and preference models."""

from __future__ import annotations

import pytest

from nashtune.cli.main import main
from nashtune.data.module import PreferenceData
from nashtune.errors import InputError
from nashtune.training.batches import score_batch

RANKED = {"prompt": "p", "responses": ["c", "a", "b"], "scores": [1, 3, 2]}
PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}


def loaded(path, tokenizer, rows="pairs", reads="scores", uses_margin=False, **settings) -> PreferenceData:
    data = PreferenceData(path, **{"batch_size": 2, **settings})
    data.bind(
        tokenizer=tokenizer, rows=rows, uses_p_chosen=rows != "ranked", seed=0, reads=reads, uses_margin=uses_margin
    )
    data.setup("fit")
    return data


def whole(tokenizer, batch) -> list[str]:
    return [
        tokenizer.decode(ids[mask.bool()].tolist())
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]


def test_pairs_for_a_reward_model(write, tokenizer):
    rows = [{**PAIR, "margin": 2, "p_chosen": 0.8}, {**PAIR, "chosen": "fine", "margin": 0, "p_chosen": 1.0}]
    data = loaded(write(rows), tokenizer, uses_margin=True, labels="soft")
    (batch,) = list(data.every_row("train"))
    assert whole(tokenizer, batch) == [
        f"<|user|>p<|assistant|>{answer}</s>" for answer in ("good", "fine", "bad", "bad")
    ]
    assert batch.margin.tolist() == [2.0, 0.0] and batch.p_chosen.tolist() == pytest.approx([0.8, 1.0])
    seen = score_batch(batch, batch.input_ids[:, :1].double() + batch.attention_mask.sum(1, keepdim=True))
    assert seen.sizes.tolist() == [2, 2]
    lengths = batch.attention_mask.sum(1).tolist()
    assert (seen.scores[:, 0] - seen.scores[0, 0]).tolist() == [lengths[i] - lengths[0] for i in (0, 2, 1, 3)]
    assert data.sample_prompts(3) == []


def test_lists_for_a_reward_model(write, tokenizer):
    data = loaded(write([RANKED, PAIR]), tokenizer, "ranked")
    (batch,) = list(data.every_row("train"))
    texts = [text.removeprefix("<|user|>p<|assistant|>") for text in whole(tokenizer, batch)]
    assert texts == ["a</s>", "b</s>", "c</s>", "good</s>", "bad</s>"]
    assert batch.sizes.tolist() == [3, 2]
    assert data.reports["train"].kind == "ranked"


def test_comparisons_for_a_preference_model(write, tokenizer):
    data = loaded(write([PAIR]), tokenizer, "comparisons", "logprobs")
    (batch,) = list(data.every_row("train"))
    assert batch.kind == "pairs" and len(batch) == 2
    answers = [ids[scored].tolist() for ids, scored in zip(batch.input_ids, batch.completion_mask, strict=True)]
    assert "".join(map(tokenizer.decode, answers)) == "ABBA"  # right, right, wrong, wrong
    assert data.reports["train"].used == 2


def test_what_cannot_serve_is_refused_before_rows_are_read(tokenizer):
    for settings, rows, reads, words in (
        (
            {"max_prompt_length": 9},
            "pairs",
            "scores",
            "max_prompt_length: 9, but the model reads prompt and c",
        ),
        (
            {"max_prompt_length": 9},
            "comparisons",
            "logprobs",
            "max_prompt_length: 9, but the model reads prompt and b",
        ),
        ({"ranked_pairs": "adjacent"}, "ranked", "scores", "ranked_pairs: adjacent makes pairs of ranked rows"),
        ({"overflow": "truncate_prompt"}, "comparisons", "logprobs", "overflow: truncate_prompt would cut off"),
        ({"labels": "soft"}, "ranked", "scores", "labels: soft, but the spec's loss does not read p_chosen"),
    ):
        with pytest.raises(InputError, match=rf"^data\.{words}"):
            loaded("missing.jsonl", tokenizer, rows, reads, **settings)


def test_answer_tokens_are_looked_at_before_rows_are_read(tokenizer):
    class Wordy:
        """A tokenizer that has no single token for a letter."""

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, texts, **options):
            split = [text.replace("A", "A A") for text in texts] if isinstance(texts, list) else texts
            return tokenizer(split, **options)

    with pytest.raises(InputError, match=r"policy\.path: 'A' is 3 tokens in this tokenizer"):
        loaded("missing.jsonl", Wordy(), "comparisons", "logprobs")


@pytest.mark.parametrize(
    ("spec", "rows", "said"),
    [
        ("reward_bt", [{**PAIR, "margin": 1}] * 3, "3 pairs from"),
        ("reward_bt_ranked", [RANKED, PAIR], "2 ranked lists from"),
        ("reward_pl", [RANKED, PAIR], "2 ranked lists from"),
        ("preference_pm", [PAIR, RANKED], "4 comparisons from"),
    ],
)
def test_check_reads_the_rows_of_these_specs(write, tiny, capsys, spec, rows, said):
    path = write(rows)
    assert main(["check", spec, "--data.train", path, "--policy.path", str(tiny)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"data.train: {said}" in shown and "steps: " in shown
    assert "columns not used" not in shown


def test_check_refuses_what_fit_would(write, tiny, capsys):
    path = write([{**PAIR, "margin": -1}])
    given = ["--data.train", path, "--policy.path", str(tiny), "--data.max_prompt_length", "5"]
    assert main(["check", "reward_bt", *given]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert ":1: margin is -1; it is a number >= 0" in shown
    assert "data.max_prompt_length: 5, but the model reads prompt and completion as one text" in shown


def test_check_asks_for_passes_that_come_in_twos(write, tiny, capsys):
    given = ["--data.train", write([PAIR]), "--policy.path", str(tiny), "--trainer.max_epochs"]
    assert main(["check", "reward_ensemble_heads", *given, "3"]) == 2
    assert "trainer.max_epochs: 3, but with head.own_order a member reads every row once" in capsys.readouterr().err
    assert main(["check", "reward_ensemble_heads", *given, "2"]) == 0
