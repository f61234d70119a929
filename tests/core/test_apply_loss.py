from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nashtune.apply_loss import apply_loss
from nashtune.errors import InputError
from nashtune.interfaces import ExampleBatch, Loss, LossOutput, PairBatch, Step
from nashtune.interfaces.batch import Anchor

LENGTH = torch.ones(2)
BATCH = PairBatch(
    policy_chosen=-LENGTH,
    policy_rejected=-2 * LENGTH,
    anchors={"ref": Anchor(chosen=-LENGTH, rejected=-LENGTH)},
    len_chosen=LENGTH,
    len_rejected=LENGTH,
    p_chosen=LENGTH,
)


class Reads(Loss):
    def __init__(self, name: str, mean: bool = False) -> None:
        self.name, self.mean = name, mean

    def __call__(self, batch, step):
        values = batch.policy_chosen - batch.anchors[self.name].chosen
        return LossOutput(values=values.mean() if self.mean else values)


def test_values_pass():
    assert apply_loss(Reads("ref"), BATCH, Step(beta=None)).values.tolist() == [0.0, 0.0]


def test_an_anchor_that_is_not_declared_is_named_with_the_next_step():
    with pytest.raises(InputError, match=r"loss Reads: it reads 'previous'.*anchors ref; name it in .*`anchors`"):
        apply_loss(Reads("previous"), BATCH, Step(beta=None))


def test_a_mean_is_refused():
    with pytest.raises(InputError, match=r"shape \(\); return one value a row and no mean"):
        apply_loss(Reads("ref", mean=True), BATCH, Step(beta=None))


def test_values_without_a_gradient_are_refused_where_one_is_taken():
    class Detached(Loss):
        def __call__(self, batch, step):
            return LossOutput(values=batch.policy_chosen.detach())

    trained = replace(BATCH, policy_chosen=(-LENGTH).requires_grad_())
    with pytest.raises(InputError, match="loss Detached: its values have no gradient, so nothing would be learned"):
        apply_loss(Detached(), trained, Step(beta=None))
    with torch.no_grad():
        assert apply_loss(Detached(), trained, Step(beta=None)).values.tolist() == [-1.0, -1.0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (LENGTH, r"returns LossOutput\(values=one value a row\), and gave Tensor"),
        (LossOutput(values=0.5), r"'values' of its LossOutput is a tensor, and it gave float"),  # type: ignore[arg-type]
        (LossOutput(values=LENGTH, metrics={"gap": 1}), r"'gap' of its LossOutput is a tensor, and it gave int"),  # type: ignore[dict-item]
    ],
)
def test_another_type_is_refused(given, said):
    class Returns(Loss):
        def __call__(self, batch, step):
            return given

    with pytest.raises(InputError, match=f"loss Returns: .*{said}"):
        apply_loss(Returns(), BATCH, Step(beta=None))


def test_a_mismatched_anchor_that_is_not_declared_is_named_too():
    class Mismatched(Loss):
        def __call__(self, batch, step):
            return LossOutput(values=batch.policy - batch.anchors_mismatched["ref"])

    batch = ExampleBatch(policy=-LENGTH, length=LENGTH, desirable=LENGTH > 0)
    with pytest.raises(InputError, match="loss Mismatched: it reads 'ref', and what it is given are the anchors none"):
        apply_loss(Mismatched(), batch, Step(beta=None))


def test_a_loss_may_ask_which_anchors_there_are():
    class Asks(Loss):
        def __call__(self, batch, step):
            assert list(batch.anchors) == ["ref"] and "aux" not in batch.anchors and batch.anchors.get("aux") is None
            return LossOutput(values=batch.policy_chosen)

    assert apply_loss(Asks(), BATCH, Step(beta=None)).values.tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("error", [KeyError("temperature"), KeyError("ref"), KeyError(4), KeyError()])
def test_another_key_error_is_the_losss_own(error):
    class Broken(Loss):
        def __call__(self, batch, step):
            raise error

    with pytest.raises(KeyError) as caught:
        apply_loss(Broken(), BATCH, Step(beta=None))
    assert caught.value is error
