from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from nashtune.comparison import judgements
from nashtune.comparison.answers import Answer
from nashtune.comparison.judgements import Score, Verdict
from nashtune.comparison.rate import rate
from nashtune.comparison.tabulated import judged_arrays, same_scores, tallies, write_answers
from nashtune.data.prompts import PromptRow
from nashtune.errors import InputError
from nashtune.interfaces import PreferenceOracle, RewardOracle, Rewards

POLICIES = ("start", "a", "b")


class First(PreferenceOracle):
    """Prefers the longer answer, a little the one that it reads first, and says nothing about the word `silence`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def compare(self, prompts, first, second):
        self.asked += zip(prompts, first, second, strict=True)
        p = [0.6 if len(x) == len(y) else 0.9 if len(x) > len(y) else 0.2 for x, y in zip(first, second, strict=True)]
        silent = ["silence" in (x, y) for x, y in zip(first, second, strict=True)]
        return torch.tensor(
            [float("nan") if s else value for value, s in zip(p, silent, strict=True)], dtype=torch.float64
        )


class Length(RewardOracle):
    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, prompts, completions):
        self.calls.append(len(completions))
        lengths = torch.tensor([float(len(text)) for text in completions])
        return Rewards(mean=lengths, variance=lengths / 10)


judge_all = partial(judgements.judge_all, judged_by="one judge")


def row(number: int) -> PromptRow:
    return PromptRow(prompt_ids=(number,), prompt=f"question {number}", prompt_text=f"q{number}", where="here:1")


def answers(texts: dict[str, list[str]], seeds=(0,)) -> list[Answer]:
    return [
        Answer(
            policy=policy,
            seed=seed,
            prompt=n,
            text=text,
            tokens=len(text) + 1,
            finished=True,
            logp=-1.0,
            logp_start=-1.0 - 0.5 * POLICIES.index(policy),
            kl=0.4 * POLICIES.index(policy),
        )
        for policy in texts
        for seed in seeds
        for n, text in enumerate(texts[policy])
    ]


TEXTS = {"start": ["aa", "b", "silence"], "a": ["a", "b", "c"], "b": ["xx", "yy", "d"]}


def test_both_orders_are_asked_once_and_equal_answers_never(tmp_path):
    judge, said = First(), []
    given = answers(TEXTS)
    prompts = [row(n) for n in range(3)]
    found, scores = judge_all(judge, given, prompts, tmp_path, said.append)
    assert scores == []
    assert len(judge.asked) == 2 * 8  # three pairs on three prompts, of which one is of equal answers
    kept = {(one.prompt, one.first, one.second, one.order): one.p for one in found}
    assert len(kept) == 17
    assert kept[0, "start", "a", "given"] == pytest.approx(0.9)  # read first, and longer
    assert kept[0, "start", "a", "swapped"] == pytest.approx(0.8)  # 1 - P(a, read first) = 1 - 0.2
    assert kept[0, "start", "b", "given"] == pytest.approx(0.6)  # equally long: what the position alone is worth
    assert kept[0, "start", "b", "swapped"] == pytest.approx(0.4)
    assert kept[1, "start", "a", "equal"] == 0.5
    again, _ = judge_all(judge, given, prompts, tmp_path, said.append)
    assert len(judge.asked) == 16, "judged again"
    assert repr(again) == repr(found)
    judged = judged_arrays(given, found, scores, temperature=1.0)
    np.testing.assert_allclose(
        judged.p[:, 0], [[0.85, 0.5, np.nan], [0.5, 0.15, np.nan], [0.15, 0.15, 0.5]], atol=1e-12
    )
    assert judged.reward is None
    np.testing.assert_array_equal(judged.tokens[1, 0], [2, 2, 2])


def test_a_reward_judge_scores_each_answer_once(tmp_path):
    judge = Length()
    given = answers(TEXTS, seeds=(3, 4))
    prompts = [row(n) for n in range(3)]
    found, scores = judge_all(judge, given, prompts, tmp_path, lambda text: None)
    assert judge.calls == [9, 9]
    assert len(scores) == 18
    assert (scores[0].reward, scores[0].variance) == (2.0, pytest.approx(0.2))
    judged = judged_arrays(given, found, scores, temperature=0.7)
    assert judged.p.shape == (3, 2, 3)
    np.testing.assert_allclose(judged.p[0, 0, 0], 1 / (1 + np.exp(-1.0)))  # lengths 2 and 1
    np.testing.assert_allclose(judged.p[0, 1, 1], 0.5)
    np.testing.assert_array_equal(judged.reward[2, 1], [2, 2, 1])
    assert np.isnan(judged.kl).all(), "at another temperature answers are not the policy's own"
    rated = rate(judged, resamples=20)
    np.testing.assert_allclose(rated.frontier.gain.value, [(2 + 1 + 7) / 3, 1.0, (2 + 2 + 1) / 3])
    assert np.isnan(rated.frontier.kl.value).all()
    assert judged_arrays(given, found, [], temperature=0.7).kl is None


def test_part_of_the_judgements_is_there_already(tmp_path):
    """35 prompts are two parts: what a kill has left of the first is not asked again."""
    texts = {name: [f"{name} {n}" * (1 + n % 3) for n in range(35)] for name in ("start", "a")}
    prompts, given = [row(n) for n in range(35)], answers(texts)

    class Dies(Length):
        def score(self, prompts, completions):
            if self.calls:
                raise KeyboardInterrupt
            return super().score(prompts, completions)

    with pytest.raises(KeyboardInterrupt):
        judge_all(Dies(), given, prompts, tmp_path, lambda text: None)
    judge = Length()
    found, _ = judge_all(judge, given, prompts, tmp_path, lambda text: None)
    assert judge.calls == [6]
    assert [one.prompt for one in found if one.order == "given"] == list(range(35))
    whole, _ = judge_all(Length(), given, prompts, tmp_path / "whole", lambda text: None)
    assert found == whole


def test_judgements_of_other_answers_are_refused(tmp_path):
    prompts = [row(n) for n in range(3)]
    judge_all(Length(), answers(TEXTS), prompts, tmp_path, lambda text: None)
    changed = {**TEXTS, "a": ["a", "b", "another"]}
    with pytest.raises(InputError, match=r"judges other answers than those in .*, or .*; delete .*judgements"):
        judge_all(Length(), answers(changed), prompts, tmp_path, lambda text: None)


def test_judgements_of_another_judge_are_refused(tmp_path):
    """A judge that was trained anew in its folder after the first part."""
    prompts = [row(n) for n in range(3)]
    judge_all(Length(), answers(TEXTS), prompts, tmp_path, lambda text: None)
    with pytest.raises(InputError, match=r"or was made by another judge; delete .*judgements"):
        judge_all(Length(), answers(TEXTS), prompts, tmp_path, lambda text: None, judged_by="another judge")


def test_wins_ties_losses_and_what_the_order_decides(tmp_path):
    found, _ = judge_all(First(), answers(TEXTS), [row(n) for n in range(3)], tmp_path, lambda text: None)
    rows = {(one["first"], one["second"]): one for one in tallies(found)}
    names = ("wins", "ties", "losses", "changed", "unanswered")
    assert [rows["start", "a"][name] for name in names] == [1, 1, 0, 0, 1]
    assert [rows["start", "b"][name] for name in names] == [0, 1, 1, 1, 1]  # equally long: the order alone decides


def test_the_kl_divergence_is_that_of_the_answers():
    """What is known of each answer, under its name; at another temperature it is not the policy's."""
    given = answers(TEXTS)
    equal = [Verdict(prompt=n, first="start", second="a", seed=0, order="equal", p=0.5) for n in range(3)]
    judged = judged_arrays(given, equal, [], temperature=1.0)
    np.testing.assert_array_equal(judged.kl[:, 0, 0], [0.0, 0.4, 0.8])
    assert (judged.kl_estimator, judged.only([0, 1]).kl_estimator) == ("exact per token", "exact per token")
    found = rate(judged, resamples=20).frontier
    assert found.estimator == "exact per token"
    assert judged_arrays(given, equal, [], temperature=0.5).kl is None


def test_the_file_of_answers_names_the_estimator(tmp_path):
    write_answers(tmp_path / "answers.parquet", answers(TEXTS), [], [row(n) for n in range(3)])
    table = pq.read_table(tmp_path / "answers.parquet")
    assert table.schema.field("kl").metadata[b"estimator"] == b"exact per token"
    assert table.column("kl").to_pylist() == [0.0] * 3 + [0.4] * 3 + [0.8] * 3


def test_a_policy_without_answers_has_nan_and_one_without_a_seed_counts_with_the_other():
    given = [one for one in answers(TEXTS, seeds=(0, 1)) if (one.policy, one.seed) != ("a", 1)]
    verdicts = [
        Verdict(prompt=n, first=a, second=b, seed=seed, order="equal", p=0.5)
        for n in range(3)
        for seed in (0, 1)
        for a, b in (("start", "a"), ("start", "b"), ("a", "b"))
        if not (seed == 1 and "a" in (a, b))
    ]
    judged = judged_arrays(given, verdicts, [], temperature=1.0, policies=("start", "a", "b", "none"))
    assert np.isnan(judged.tokens[1, 1]).all() and np.isnan(judged.tokens[3]).all()
    found = rate(judged, resamples=50)
    np.testing.assert_allclose(found.mean_win_rate.value, [0.5, 0.5, 0.5, np.nan])
    np.testing.assert_allclose(found.frontier.kl.value, [0.0, 0.4, 0.8, np.nan])
    assert (found.comparisons, found.unanswered) == (3 * 3 + 3, 0)
    assert not any("no verdict" in note or "no usable answer" in note for note in found.notes)


def test_a_reward_that_many_answers_share_is_said():
    """A judge that knows no word of most answers gives them all 0, and they tie."""

    def scores(*rewards):
        return [Score(policy="a", seed=0, prompt=n, reward=one, variance=None) for n, one in enumerate(rewards)]

    (said,) = same_scores(scores(0.0, 0.5, 0.0, -0.2))
    assert said.startswith("the judge gave 2 of 4 answers the same reward, 0: two of these tie, whatever they say")
    assert same_scores(scores(*range(20))) == []
    assert same_scores([]) == []
