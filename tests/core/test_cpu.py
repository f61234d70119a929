"""Which library computes products on a CPU, and that it computes in float32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nashtune import cpu

ZEN5 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16\n"


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing set before, and nothing left behind."""
    for name in cpu.CACHES:
        monkeypatch.setenv(name, "0")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (ZEN5, True),
        (ZEN5.replace("AuthenticAMD", "GenuineIntel"), False),
        (ZEN5.replace("avx512f ", ""), False),
        (ZEN5.replace("avx512_bf16", "avx512_bf16 amx_tile amx_bf16"), False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", False),
        ("", False),
    ],
)
def test_only_processors_without_bfloat16_units_that_mkl_is_slow_on(cpuinfo: str, expected: bool) -> None:
    assert cpu.prefers_onednn(cpuinfo) is expected


@pytest.mark.parametrize("prefers", [True, False])
def test_products_stay_exact(prefers: bool, clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "slow_in_float32", lambda: prefers)
    cpu.tune()
    a, b = torch.randn(300, 512), torch.randn(512, 200)
    assert float(((a @ b).double() - a.double() @ b.double()).abs().max()) < 2e-4
    assert {os.environ[name] for name in cpu.CACHES} == {str(cpu.KERNELS)}
    assert prefers or torch.get_float32_matmul_precision() == "highest"


def test_a_processor_that_rounds_is_left_as_it_was(clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "slow_in_float32", lambda: True)
    monkeypatch.setattr(cpu, "TOLERANCE", 0.0)
    cpu.tune()
    assert torch.get_float32_matmul_precision() == "highest"


def test_rounded_products_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu.is_exact()
    exact = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return exact(a, b) if a.dtype == torch.float64 else exact(a.bfloat16(), b.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not cpu.is_exact()


def test_what_is_set_already_stays(clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "slow_in_float32", lambda: True)
    monkeypatch.setenv(cpu.CACHES[0], "500")
    torch.set_float32_matmul_precision("high")
    cpu.tune()
    assert os.environ[cpu.CACHES[0]] == "500" and torch.get_float32_matmul_precision() == "high"


def test_no_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "absent")
    cpu.slow_in_float32.cache_clear()
    assert cpu.slow_in_float32() is False
    cpu.slow_in_float32.cache_clear()
