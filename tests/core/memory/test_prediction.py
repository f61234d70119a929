from __future__ import annotations

from dataclasses import replace

import pytest

from nashtune.memory import prediction
from nashtune.memory.activations import Compute, kept_bytes, layer_bytes
from nashtune.memory.passes import Pass
from nashtune.memory.prediction import FEW_HOLES, HOLES, STAYS, Setting, head_bytes, predict
from nashtune.memory.shape import ModelShape

SHAPE = ModelShape(
    hidden=1000,
    intermediate=3000,
    layers=10,
    queries=1000,
    keys=500,
    heads=10,
    vocabulary=50_000,
    parameters=200_000_000,
    tied=True,
)
ON_GPU = Setting(shape=SHAPE, compute=Compute(), trained=SHAPE.parameters, gpu=True)
SMALL = Pass(positions=10, targets=5, width=10, accumulates=False)
LARGE = Pass(positions=10_000, targets=5_000, width=1000, accumulates=False)
EMBEDDING = 4 * SHAPE.embedding


def peak(setting: Setting, *passes: Pass) -> int:
    return predict(setting, passes).peak


def test_with_small_passes_weights_gradients_and_moments_are_what_counts() -> None:
    # float32: weight, gradient and two moments, and the shared embedding's second gradient
    assert peak(ON_GPU, SMALL) == 16 * SHAPE.parameters + EMBEDDING
    untied = replace(ON_GPU, shape=replace(SHAPE, tied=False))
    assert peak(untied, SMALL) == 16 * SHAPE.parameters
    assert peak(replace(ON_GPU, optimizer="adamw_8bit"), SMALL) == 10 * SHAPE.parameters + EMBEDDING
    low = replace(ON_GPU, compute=Compute(weight=2))
    assert peak(low, SMALL) == 12 * SHAPE.parameters + EMBEDDING // 2


def test_a_frozen_copy_weighs_what_the_weights_do() -> None:
    assert peak(replace(ON_GPU, references=SHAPE.parameters), SMALL) - peak(ON_GPU, SMALL) == 4 * SHAPE.parameters


def test_an_adapter_has_no_gradients_of_the_base_model() -> None:
    lora = replace(ON_GPU, compute=Compute(rank=8), trained=10**6)
    assert 4 * SHAPE.parameters < peak(lora, SMALL) < 4 * SHAPE.parameters + 25 * 10**6


def test_the_largest_pass_decides() -> None:
    assert predict(ON_GPU, [SMALL, LARGE, SMALL]).largest == LARGE
    less = replace(ON_GPU, compute=Compute(checkpointing=True))
    assert predict(less, [LARGE]).parts["activations"] < 0.25 * predict(ON_GPU, [LARGE]).parts["activations"]


def test_earlier_passes_leave_their_gradients() -> None:
    later = peak(ON_GPU, replace(LARGE, accumulates=True))
    assert later - peak(ON_GPU, LARGE) == pytest.approx(4 * SHAPE.parameters)


def test_gradients_of_bfloat16_weights_are_summed_in_float32() -> None:
    low = replace(ON_GPU, compute=Compute(weight=2))
    later = peak(low, replace(SMALL, accumulates=True)) - peak(low, SMALL)
    assert later == 2 * SHAPE.parameters + EMBEDDING // 2  # and the embedding's next gradient, before it is added


@pytest.mark.parametrize(("by_onednn", "share"), [(False, HOLES), (True, FEW_HOLES)])
def test_on_a_cpu_layers_that_are_computed_again_leave_holes(
    by_onednn: bool, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "slow_in_float32", lambda: by_onednn)

    def holes(layers: int) -> int:
        compute = Compute(checkpointing=True)
        shape = replace(SHAPE, layers=layers)
        on_cpu = Setting(shape=shape, compute=compute, trained=SHAPE.parameters)
        kept = kept_bytes(shape, compute, LARGE) + head_bytes(on_cpu, LARGE)
        return predict(on_cpu, [LARGE]).parts["activations"] - int(STAYS * kept)

    layer = STAYS * layer_bytes(SHAPE, Compute(), LARGE.width) * LARGE.positions
    assert holes(3) == pytest.approx(2 * layer)
    assert holes(30) == pytest.approx(share * 30 * layer)


def test_a_score_head_has_no_logits() -> None:
    scores = predict(replace(ON_GPU, scores=True), [LARGE]).parts
    assert scores["head"] == 0 and predict(ON_GPU, [LARGE]).parts["head"] > 0


def test_kernels_weigh_where_onednn_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    def process(compute: Compute) -> int:
        return predict(replace(ON_GPU, gpu=False, compute=compute), [SMALL]).parts["process"]

    for prefers in (False, True):
        monkeypatch.setattr(prediction, "slow_in_float32", lambda prefers=prefers: prefers)
        assert process(Compute()) == prediction.PROCESS + prefers * prediction.WIDE_KERNELS
        assert process(Compute(autocast=True)) == prediction.PROCESS + prediction.KERNELS
