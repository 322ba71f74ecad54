"""Where the time of a piece of GPU work goes: its kernels, longest first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from spikeloom.bench.timing import Work

WIDTH = 100  # letters of a kernel's name


class Kernel(NamedTuple):
    """All launches of one kernel."""

    name: str
    calls: int
    ms: float


def kernels_of(work: Work) -> list[Kernel]:
    """What `work` runs on the current GPU, by torch's profiler, longest first."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    found = (Kernel(e.key, e.count, e.self_device_time_total / 1e3) for e in profile.key_averages())
    return sorted((k for k in found if k.ms > 0), key=lambda kernel: -kernel.ms)


def table(title: str, kernels: Iterable[Kernel], steps: int, shown: int = 20) -> str:
    """Milliseconds and launches of one of `steps` equal steps, in all and kernel by kernel."""
    kernels = list(kernels)
    total = sum(kernel.ms for kernel in kernels)
    calls = sum(kernel.calls for kernel in kernels)
    lines = [f"{title}: {total / steps:.3f} ms of kernels a step, {calls / steps:.0f} launches"]
    for name, count, ms in kernels[:shown]:
        lines.append(
            f"  {ms / steps:8.3f} ms {ms / total:6.1%} {count / steps:6.1f} x  {name[:WIDTH]}"
        )
    return "\n".join(lines)
