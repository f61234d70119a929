"""One test for each bug of other systems that could live here, named after it.

The path is the whole one: rows of a round, the collate function, a tiny model in float64, an engine, the flat batch,
and the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from nashtune.cli.main import main
from nashtune.interfaces import Loss, RolloutBatch, Step, TokenBatch
from nashtune.logprobs import get_engine
from nashtune.rl.estimators import kl_terms, per_completion
from nashtune.rl.rewards import last_tokens, token_rewards
from nashtune.rounds.rows import RolloutRow, collate
from nashtune.testing import tiny_model
from nashtune.training.batches import rollout_batch
from nashtune_plugins.grpo import GRPOLoss
from nashtune_plugins.ppo import PPOLoss
from nashtune_plugins.reinforce import REINFORCELoss
from nashtune_plugins.rloo import RLOOLoss
from rl_batches import pick, prepared, random_rollouts, rollouts, step_of, whole

EOS = 2  # of the tiny model; its padding has the same id, as in many real models
PROMPTS = [(1, 50, 51, 52, 53, 54, 55), (1, 60), (1, 70, 71, 72)]
# EOS is drawn at the end, at the limit not at all, and, in the third, stands inside as a token like another.
ANSWERS = [(80, 81, EOS), (90, 91, 92, 93, 94, 95, 96, 97, EOS), (100, EOS, 101, 102, 103)]
LOSSES: dict[str, Callable[[], Loss]] = {
    "ppo": lambda: PPOLoss(),
    "rloo": lambda: RLOOLoss(),
    "grpo": lambda: GRPOLoss(),
    "dapo": lambda: GRPOLoss(reduction="dapo"),
    "reinforce": lambda: REINFORCELoss(),
}
each_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())

Look = Callable[..., RolloutBatch]


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """From rows to what a loss sees: `extra` adds columns of padding."""
    folders = [tiny_model(tmp_path_factory.mktemp(f"m{seed}"), seed=seed) for seed in (0, 1)]
    policy, ref = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64) for folder in folders)
    engine = get_engine("dense")

    def seen(indices: Sequence[int] = (0, 1, 2), extra: int = 0, reference: Any = None) -> RolloutBatch:
        rows = [
            RolloutRow(prompt_ids=p, token_ids=a, score=float(i) - 0.5, where=f"row {i}", finished=a[-1] == EOS)
            for i, (p, a) in enumerate(zip(PROMPTS, ANSWERS, strict=True))
        ]
        batch = _widened(collate(rows, indices), extra)
        now = engine.logprobs(engine.forward(policy, batch), batch)
        with torch.no_grad():
            frozen = engine.logprobs(engine.forward(reference or ref, batch), batch)
        made = rollout_batch(batch, now, {"ref": frozen.token_logp}, None)
        return replace(made, score=made.score.double())

    seen.policy = policy  # type: ignore[attr-defined]
    return seen


def _widened(batch: TokenBatch, extra: int) -> TokenBatch:
    def wide(value: torch.Tensor, fill: int) -> torch.Tensor:
        return torch.nn.functional.pad(value, (0, extra), value=fill)

    return replace(
        batch,
        input_ids=wide(batch.input_ids, EOS),
        attention_mask=wide(batch.attention_mask, 0),
        completion_mask=wide(batch.completion_mask, 0),
    )


def ready(loss: Loss, batch: RolloutBatch, drift: float = 0.3) -> tuple[RolloutBatch, Step]:
    """With a policy that drew, a critic and advantages, the same for the same completion in any batch."""
    noise = torch.sin(torch.arange(len(batch.token_logp), dtype=torch.float64))
    old = batch.token_logp.detach() + drift * noise
    return prepared(loss, replace(batch, old=old, old_value=noise, value=noise + 0.1, group=batch.lengths * 0))


def test_trl_6803_no_mean_of_kl_or_ratio_runs_over_padding(look: Look) -> None:
    """OnlineDPO logged KL and entropy over padding. Here there is none, and a wider batch changes no number."""
    plain, padded = look(), look(extra=40)
    for batch in (plain, padded):
        assert batch.sequence.tolist() == [0] * 3 + [1] * 9 + [2] * 5 and len(batch.token_logp) == 17
    for estimator in ("k1", "k2", "k3"):
        alone = [
            kl_terms(one.token_logp, one.anchors["ref"], estimator).sum() for one in (look([0]), look([1]), look([2]))
        ]
        for batch in (plain, padded):
            found = per_completion(kl_terms(batch.token_logp, batch.anchors["ref"], estimator), batch)
            torch.testing.assert_close(found, torch.stack(alone), rtol=0, atol=1e-10)
    for make in LOSSES.values():
        first, second = (make()(*ready(make(), batch)) for batch in (plain, padded))
        torch.testing.assert_close(first.values, second.values, rtol=0, atol=1e-10)
        for name in first.metrics:
            torch.testing.assert_close(first.metrics[name], second.metrics[name], rtol=0, atol=1e-10)


def test_negative_kl_in_logs_from_padding_or_a_second_precision(look: Look) -> None:
    """At policy = reference the estimate is 0 for every completion, bit for bit, whatever stands beside it."""
    same = look(extra=7, reference=look.policy)  # type: ignore[attr-defined]
    for estimator in ("k1", "k2", "k3"):
        found = per_completion(kl_terms(same.token_logp, same.anchors["ref"], estimator), same)
        assert found.tolist() == [0.0, 0.0, 0.0]
    other = look(extra=7)
    assert bool((kl_terms(other.token_logp, other.anchors["ref"], "k3") >= 0).all())


def test_the_reward_at_the_wrong_token_where_padding_has_the_id_of_eos(look: Look) -> None:
    """The last token is found by the completion's length, never by looking for EOS or for padding."""
    batch = look(extra=5)
    reward = token_rewards(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(17), batch.lengths)
    assert batch.lengths.tolist() == [3, 9, 5]
    assert reward.nonzero()[:, 0].tolist() == last_tokens(batch.lengths).tolist() == [2, 11, 16]
    assert batch.finished is not None and batch.finished.tolist() == [True, True, False]
    cut = PPOLoss(no_eos_penalty=2.0, gamma=0.0, lam=0.0, whiten_advantages="none")
    batch = replace(batch, old_value=torch.zeros(17, dtype=torch.float64), old=batch.anchors["ref"])
    batch = replace(batch, score=cut.judged(batch))
    found = cut.advantages(batch, Step(beta=torch.tensor(0.1, dtype=torch.float64))).advantage
    assert {i: found[i].item() for i in found.nonzero()[:, 0].tolist()} == {2: -0.5, 11: 0.5, 16: -0.5}


def test_ms_swift_9925_the_divisor_is_the_completions_length_and_not_the_sequences(look: Look) -> None:
    loss = GRPOLoss()
    batch, step = ready(loss, look(), drift=0.0)
    found = loss(batch, replace(step, beta=torch.tensor(0.0, dtype=torch.float64))).values
    ends = last_tokens(batch.lengths)
    assert batch.advantage is not None
    torch.testing.assert_close(found, -batch.advantage[ends], rtol=0, atol=1e-12)  # a mean of equal terms


@each_loss
def test_trl_2617_loss_scaling_under_gradient_accumulation(make: Callable[[], Loss]) -> None:
    """Eighteen trainers divided each micro-batch by its own tokens: the gradient depended on how a batch was cut."""
    loss = make()
    batch, step = prepared(loss, random_rollouts(3, [1, 20, 2, 3], [0, 0, 1, 1]))
    together = whole(loss, loss(batch, step).values, batch.lengths)
    (grad,) = torch.autograd.grad(together, batch.token_logp, retain_graph=True)
    for cut in ([[0], [1], [2], [3]], [[0, 1, 2], [3]], [[1], [0, 2, 3]]):
        count = batch.lengths.sum() if loss.mean_over == "tokens" else 4
        parts = [loss(pick(batch, rows), step_of(step, rows)).values.sum() / count for rows in cut]
        (found,) = torch.autograd.grad(sum(parts), batch.token_logp, retain_graph=True)
        torch.testing.assert_close(found, grad, rtol=0, atol=1e-15)


def test_trl_6024_dapo_is_the_mean_over_the_tokens_of_the_whole_step() -> None:
    """And not the mean of the micro-batches' token means, which here is far from it."""
    loss = GRPOLoss(reduction="dapo")
    batch, step = prepared(loss, random_rollouts(3, [1, 20, 2, 3], [0, 0, 1, 1]))
    values = loss(batch, step).values.detach()
    by_micro_batch = torch.stack([values[i] / batch.lengths[i] for i in range(4)]).mean()
    assert abs(float(whole(loss, values, batch.lengths) - by_micro_batch)) > 0.01
    assert loss.mean_over == "tokens" and GRPOLoss().mean_over == "rows"


def test_ms_swift_10167_a_loss_type_that_was_stored_and_never_used() -> None:
    """Every option of every loss changes a number: none is accepted and ignored (TRL: `label_smoothing` of DPO)."""
    batch = replace(random_rollouts(5, [6, 3, 4, 8], [0, 0, 1, 1]), old_value_end=torch.zeros(4).double(),
                    value_end=torch.ones(4).double())  # fmt: skip
    options: dict[type, dict[str, Any]] = {
        PPOLoss: {
            "clip": 0.01,
            "value_clip": None,
            "vf_coef": 0.5,
            "gamma": 0.5,
            "lam": 0.5,
            "kl_in": ("loss", {"kl_estimator": "k3"}, {"kl_estimator": "k3"}),
            "kl_estimator": "k3",
            "whiten_advantages": "bessel",
            "whiten_rewards": "population",
            "score_at": "after_eos",
            "no_eos_score": -3.0,
            "no_eos_penalty": 1.0,
        },
        RLOOLoss: {
            "clip": 0.01,
            "kl_in": ("loss", {"kl_estimator": "k2"}, {"kl_estimator": "k2"}),
            "kl_estimator": "k2",
            "no_eos_score": -3.0,
            "no_eos_penalty": 1.0,
        },
        GRPOLoss: {
            "clip": 0.01,
            "scale": "none",
            "std": "population",
            "std_epsilon": 0.5,
            "reduction": "dapo",
            "max_length": (9, {"reduction": "dr_grpo", "max_length": 8}, {"reduction": "dr_grpo"}),
            "kl_in": "reward",
            "kl_estimator": "k2",
            "no_eos_score": -3.0,
            "no_eos_penalty": 1.0,
        },
        REINFORCELoss: {
            "baseline": "none",
            "returns": "to_go",
            "normalise": "tokens",
            "kl_in": ("loss", {"kl_estimator": "k2"}, {"kl_estimator": "k2"}),
            "kl_estimator": "k2",
            "no_eos_score": -3.0,
            "no_eos_penalty": 1.0,
        },
    }
    for cls, changes in options.items():
        for name, value in changes.items():
            changed, base, beside = value if isinstance(value, tuple) else (value, {}, {})
            plain, other = cls(**base), cls(**{**beside, name: changed})
            first, second = (loss(*prepared(loss, batch)).values for loss in (plain, other))
            assert not torch.allclose(first, second), f"{cls.__name__}.{name} does nothing"


@each_loss
def test_labs_molt_130_a_kl_coefficient_that_never_reached_the_loss(make: Callable[[], Loss]) -> None:
    loss = make()
    batch = random_rollouts(7, [5, 2, 4, 7], [0, 0, 1, 1])
    found = []
    for beta in (0.0, 0.1, 0.2):
        prepared_batch, step = prepared(loss, batch, beta)
        (grad,) = torch.autograd.grad(loss(prepared_batch, step).values.sum(), batch.token_logp)
        found.append(grad)
    assert all(float((a - b).abs().max()) > 1e-4 for a, b in pairwise(found))


@pytest.mark.parametrize("cls", [PPOLoss, RLOOLoss, GRPOLoss, REINFORCELoss])
def test_labs_molt_130_a_kl_penalty_without_a_gradient_is_refused(cls: type[Any]) -> None:
    """k1 in the loss reaches it, and still does nothing on average."""
    with pytest.raises(ValueError, match="expected gradient of 0"):
        cls(kl_in="loss", kl_estimator="k1")


@pytest.mark.parametrize("spec", ["ppo", "rloo", "grpo"])
@pytest.mark.parametrize("option", ["temperature", "top_p"])
def test_trl_4159_and_6789_ratios_under_a_temperature_or_a_kept_mass(
    spec: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sampler's own log-probs are those of another distribution: such a spec is refused before anything loads."""
    assert main(["check", spec, f"--spec.sampler.{option}", "0.8"]) == 2
    assert f"sampler.{option}: 0.8 draws from another distribution" in " ".join(capsys.readouterr().err.split())
    assert main(["check", "reinforce", f"--spec.sampler.{option}", "0.8"]) == 2  # no ratio, but as biased


def test_trl_6789_the_ratio_to_truncated_log_probs_is_biased_by_the_kept_mass(look: Look) -> None:
    """`old` is the policy's own log-prob, in one precision: every ratio of the first step is 1. The sampler's, under
    top-p 0.8, would have made it the kept mass."""
    batch = look()
    loss, kept = GRPOLoss(), 0.8
    own = prepared(loss, replace(batch, old=batch.token_logp.detach()))
    theirs = prepared(
        loss, replace(batch, old=batch.token_logp.detach() - torch.tensor(kept, dtype=torch.float64).log())
    )
    assert set(loss(*own).metrics["ratio"].tolist()) == {1.0}
    assert float(loss(*theirs).metrics["ratio"].mean()) == pytest.approx(kept, abs=1e-12)


@pytest.mark.parametrize("make", [LOSSES["rloo"], LOSSES["grpo"]], ids=["rloo", "grpo"])
def test_trl_online_dpo_a_tie_prefers_no_one(make: Callable[[], Loss]) -> None:
    """`>=` made the first of two equal completions the better one."""
    logp = [[-1.0, -2.0], [-0.5]]
    batch = rollouts(logp, logp, old=logp, score=[0.7, 0.7], group=[0, 0])
    loss = make()
    tied, step = prepared(loss, batch)
    assert tied.advantage is not None and not tied.advantage.any()
    assert float(loss.advantages(batch, step).metrics["equal_groups"]) == 1.0


def test_nemo_rl_180_completions_that_reached_the_limit_do_not_pass_for_finished() -> None:
    batch = random_rollouts(2, [3, 3, 3, 3], [0, 0, 0, 0])
    assert batch.finished is not None and batch.finished.tolist() == [False, True, True, False]
    step = Step(beta=torch.tensor(0.0, dtype=torch.float64))
    for cls in (PPOLoss, RLOOLoss, GRPOLoss, REINFORCELoss):
        loss = cls(no_eos_score=-1.0)
        found = loss.advantages(replace(batch, score=loss.judged(batch)), step).metrics["return"]
        assert found[[0, 3]].tolist() == [-1.0, -1.0] and torch.equal(found[[1, 2]], batch.score[[1, 2]])
