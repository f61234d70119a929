"""KL of a policy from the start, exact for each next token: right on average, and with less noise than k1."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nashtune.comparison.divergence import Moved, Mover, Start
from nashtune.errors import InputError
from nashtune.logprobs import get_engine
from nashtune.models.config import LoraSettings, PolicyConfig
from nashtune.models.policy import HFPolicy
from nashtune.testing import tiny_model

EOS = 2
PROMPT = [30, 40, 50]
DRAWN = 4000


def sharper(folder: Path, factor: float) -> Path:
    """The model with every weight times a number, so that its distributions are far from uniform."""
    file = folder / "model.safetensors"
    weights = {name: factor * weight if weight.ndim > 1 else weight for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy and a start."""
    folder = tmp_path_factory.mktemp("moved")
    return tuple(sharper(tiny_model(folder / f"{seed}", seed=seed), 4.0) for seed in (1, 2))  # type: ignore[return-value]


def mover(path: Path, journal: Path, engine: str = "tiled") -> Mover:
    return Mover(
        PolicyConfig(path=str(path)), get_engine(engine), journal, cpu=True, batch_tokens=4096, say=lambda line: None
    )


def start(path: Path) -> Start:
    return Start(PolicyConfig(path=str(path)))


def columns(found: list[Moved]) -> np.ndarray:
    return np.array([[one.logp, one.logp_start, one.kl] for one in found])


def next_tokens(path: Path, rows: torch.Tensor) -> torch.Tensor:
    """Log-probs of the token behind each row (N, V), float64."""
    policy = HFPolicy(PolicyConfig(path=str(path)))
    policy.load()
    with torch.no_grad():
        return policy.loaded()(input_ids=rows).logits[:, -1].double().log_softmax(-1)


@pytest.fixture(scope="module")
def two(models: tuple[Path, Path]) -> tuple[list[list[int]], float, float]:
    """Completions of up to two tokens drawn from the policy, and the true KL of one and of two tokens."""
    prompt = torch.tensor([PROMPT])
    first, its_first = (next_tokens(path, prompt)[0] for path in models)
    vocabulary = len(first)
    rows = torch.cat([prompt.expand(vocabulary, -1), torch.arange(vocabulary)[:, None]], dim=1)
    second, its_second = (next_tokens(path, rows) for path in models)
    one = float((first.exp() * (first - its_first)).sum())
    later = (second.exp() * (second - its_second)).sum(-1)
    later[EOS] = 0.0
    draws = torch.Generator().manual_seed(0)
    tokens = torch.multinomial(first.exp(), DRAWN, replacement=True, generator=draws)
    behind = torch.multinomial(second.exp()[tokens], 1, generator=draws)[:, 0]
    completions = [[a] if a == EOS else [a, b] for a, b in zip(tokens.tolist(), behind.tolist(), strict=True)]
    return completions, one, one + float((first.exp() * later).sum())


def test_unbiased_and_with_less_noise_than_k1(models, two, tmp_path):
    completions, _, exact = two
    found = mover(models[0], tmp_path).moved([(PROMPT, one) for one in completions], start(models[1]), str)
    kl = np.array([one.kl for one in found])
    k1 = np.array([one.logp - one.logp_start for one in found])
    assert exact > 0.2
    for drawn, expected in ((kl, exact), (k1, exact), (kl - k1, 0.0)):
        assert abs(drawn.mean() - expected) < 4 * drawn.std() / np.sqrt(DRAWN)
    assert kl.var() < k1.var() / 4
    assert kl.min() >= 0 > k1.min()


def test_exact_for_completions_of_one_token(models, two, tmp_path):
    completions, one_token, _ = two
    found = mover(models[0], tmp_path).moved([(PROMPT, one[:1]) for one in completions[:64]], start(models[1]), str)
    assert [one.kl for one in found] == pytest.approx([one_token] * 64, rel=1e-5)
    assert np.std([one.logp - one.logp_start for one in found]) > 0.1


def test_its_noise_is_not_always_less():
    """The start restricted to some answers: k1 is the same for all of them, the sum over tokens is not."""
    # of the start's answers aa, ab, ba, bb, with 0.4 * 0.5, 0.4 * 0.5, 0.6 * 0.1 and 0.6 * 0.9, those but bb are kept
    whole = np.array([0.2, 0.2, 0.06])
    policy = whole / whole.sum()
    first = np.array([policy[:2].sum(), policy[2]])
    kl_first = float((first * np.log(first / [0.4, 0.6])).sum())
    kl = kl_first + np.array([0.0, 0.0, np.log(1 / 0.1)])  # behind a both go on alike; behind b the policy is certain
    k1 = np.log(policy / whole)
    assert float(policy @ kl) == pytest.approx(float(policy @ k1))
    assert np.ptp(k1) == pytest.approx(0.0) and np.ptp(kl) > 2


@pytest.mark.parametrize("engine", ["dense", "packed"])
def test_every_engine_finds_the_same(models, two, tmp_path, engine):
    sequences = [(PROMPT[: 1 + i % 3], one * (1 + i % 2)) for i, one in enumerate(two[0][:20])]
    expected = mover(models[0], tmp_path / "tiled").moved(sequences, start(models[1]), str)
    found = mover(models[0], tmp_path / engine, engine).moved(sequences, start(models[1]), str)
    for name in ("logp", "logp_start", "kl"):
        assert [getattr(one, name) for one in found] == pytest.approx(
            [getattr(one, name) for one in expected], abs=1e-4
        )


def test_the_start_is_at_zero_and_read_once(models, two, tmp_path, monkeypatch):
    sequences = [(PROMPT, one) for one in two[0][:8]]
    loads: list[str] = []
    load = HFPolicy.load
    monkeypatch.setattr(HFPolicy, "load", lambda self: (loads.append(self.config.path), load(self))[1])
    found = mover(models[1], tmp_path).moved(sequences, start(models[1]), str)
    assert {one.kl for one in found} == {0.0}
    assert all(one.logp == one.logp_start for one in found)
    assert loads == [str(models[1])]


def test_an_adapter_needs_no_second_model(models, two, tmp_path, monkeypatch):
    policy = HFPolicy(PolicyConfig(path=str(models[1]), lora=LoraSettings(r=2, alpha=16.0)))
    policy.load()
    torch.manual_seed(0)
    for name, weight in policy.trained().items():
        weight.normal_(std=0.3) if "lora_B" in name else None
    policy.save_pretrained(tmp_path / "adapter")
    policy.save_pretrained(tmp_path / "whole", merged=True)
    sequences = [(PROMPT, one) for one in two[0][:16]]
    whole = mover(tmp_path / "whole", tmp_path / "a").moved(sequences, start(models[1]), str)
    loads: list[str] = []
    load = HFPolicy.load
    monkeypatch.setattr(HFPolicy, "load", lambda self: (loads.append(self.config.path), load(self))[1])
    found = mover(tmp_path / "adapter", tmp_path / "b").moved(sequences, start(models[1]), str)
    assert loads == [str(tmp_path / "adapter")]
    assert columns(found) == pytest.approx(columns(whole), abs=1e-4)
    assert min(one.kl for one in found) > 1e-3


def test_what_is_known_is_not_computed_again(models, two, tmp_path, monkeypatch):
    sequences = [(PROMPT, one) for one in two[0][:8]]
    found = mover(models[0], tmp_path).moved(sequences, start(models[1]), str)
    monkeypatch.setattr(HFPolicy, "load", lambda self: pytest.fail("loaded again"))
    assert mover(models[0], tmp_path).moved(sequences, start(models[1]), str) == found


def test_broken_weights_are_named(models, two, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(models[0], broken)
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "embed" in name)
    save_file({**weights, name: weights[name] * float("nan")}, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"answer 0: log-probs nan and .*KL divergence nan: a model's weights"):
        mover(broken, tmp_path / "j", "dense").moved([(PROMPT, two[0][0])], start(models[1]), lambda i: f"answer {i}")
