"""How matrix products are computed on a CPU: by which library, and with how much memory. Imports torch only to set it.

torch has two libraries for them. Products in bfloat16 go to oneDNN, those in float32 to MKL, which on AMD's processors
takes no AVX-512 code: measured on an EPYC of 2024, 100 against 230 GFLOP/s of one core. torch gives products in float32
to oneDNN as well where `torch.set_float32_matmul_precision("medium")` allows bfloat16 inside of them. oneDNN makes use
of that on processors with AMX units alone and computes in float32 on all others; so it is asked for on processors that
have none, and what comes out is compared with float64 before anything depends on it.

oneDNN builds a kernel for each size of a product that it meets, some 0.4 MB, and two caches keep 1,024 of them each.
Sizes change with every batch here, so a long run would fill them: 1 GB.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
KERNELS = 64
"""Of either cache. A pass through a decoder takes some 15 sizes, and attention, which has many, is not slowed by
building them again: measured, steps with 64 and with 1,024 take the same time."""
CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Environment variables that oneDNN, and torch's layer above it, read at the first product."""
TOLERANCE = 1e-4
"""Of a sum of 256 products of normal numbers: float32 is wrong by some 1e-5, bfloat16 by 0.05."""


@cache
def slow_in_float32() -> bool:
    """Whether this processor computes float32 products faster by oneDNN, and as exactly: AMD's with AVX-512, no AMX."""
    text = CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""
    return prefers_onednn(text)


def prefers_onednn(cpuinfo: str) -> bool:
    """The same of any processor.

    Args:
        cpuinfo: What Linux says of it in `/proc/cpuinfo`.
    """
    fields = dict(line.partition(":")[::2] for line in cpuinfo.splitlines() if ":" in line)
    named = {name.strip(): value.split() for name, value in fields.items()}
    flags = named.get("flags", [])
    return named.get("vendor_id") == ["AuthenticAMD"] and "avx512f" in flags and not any("amx" in f for f in flags)


def tune() -> None:
    """Set up the process for training on a CPU: bounded caches, and float32 products by the faster library.

    What the environment or the process itself has set already stays. Call it before the first product; a later call
    changes the library, and no longer the caches.
    """
    for name in CACHES:
        os.environ.setdefault(name, str(KERNELS))
    if not slow_in_float32():
        return
    import torch

    if torch.get_float32_matmul_precision() != "highest" or not torch._C._has_mkldnn:
        return
    torch.set_float32_matmul_precision("medium")
    if not is_exact():
        torch.set_float32_matmul_precision("highest")


def is_exact() -> bool:
    """Whether products in float32, as this process is set up, are computed in float32."""
    import torch

    draw = torch.Generator().manual_seed(0)
    a = torch.randn(96, 256, generator=draw)
    b = torch.randn(160, 256, generator=draw)
    expected = a.double() @ b.double().t()
    # as layers compute them forward and backward, one by one and several at once
    found = (a @ b.t(), (b @ a.t()).t(), a @ b.t().contiguous(), torch.bmm(a[None], b.t()[None])[0])
    return all(float((one.double() - expected).abs().max()) < TOLERANCE for one in found)
