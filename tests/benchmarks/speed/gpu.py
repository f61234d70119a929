"""What only a GPU has: model FLOPs, share of time without a kernel, synchronisations. Not run without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.0, "B200": 2250.0}
"""Dense bf16 with float32 sums, from the makers' data sheets, by what the device's name contains."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def start_trace() -> Any:
    """Record kernels and calls of the driver from here on."""
    from torch.profiler import ProfilerActivity, profile

    trace = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    trace.start()
    return trace


def read_trace(trace: Any) -> dict[str, float]:
    """Share of the traced span in which no kernel ran, and calls that waited for the device; two steps, one logged."""
    from torch.autograd import DeviceType

    trace.stop()
    events = list(trace.events())
    kernels = [
        (event.time_range.start, event.time_range.end) for event in events if event.device_type == DeviceType.CUDA
    ]
    waits = sum(event.name in WAITS for event in events)
    return {"idle_share": idle_share(kernels), "waits": waits / 2, "kernels": len(kernels) / 2}


def idle_share(intervals: Sequence[tuple[float, float]]) -> float:
    """Share of the span from the first begin to the last end that no interval covers; 1 where there is none."""
    if not intervals:
        return 1.0
    covered, end = 0.0, min(begin for begin, _ in intervals)
    first = end
    for begin, stop in sorted(intervals):
        covered += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return 1.0 - covered / (end - first) if end > first else 0.0


def flops_per_token(model: dict[str, Any], *, live_reference: bool) -> float:
    """Of a real token: 6 for each weight that is multiplied, forward and backward, 2 more for the reference's forward.

    Attention's products of queries and keys are left out, and every token is counted with the LM head: the usual count,
    the same for both peers, whatever they really compute.
    """
    weights = model["parameters"] - (0 if model["tied"] else model["embedding"])
    return float((8 if live_reference else 6) * weights)


def peak(device: str, given: float | None) -> float | None:
    """FLOPs a second that the device could do; None for an unknown one."""
    known: Iterable[float] = (value for name, value in PEAK_TFLOPS.items() if name in device)
    value = given if given is not None else next(iter(known), None)
    return None if value is None else value * 1e12
