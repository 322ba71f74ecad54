"""Milliseconds of both neurons on the step clock: many lanes, 16 steps, bound by memory.

The floor is what a copy of the same bytes takes. Peers are SpikingJelly's Triton multi-step LIF
and, under `--slow-peers`, what torch.compile makes of our own naive form.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from spikeloom.bench import neuron_peers as peers
from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row
from spikeloom.bench.timing import time_cuda

SHAPE = (16, 8, 1024, 768)  # T, B, L, D
CHECKED = (16, 3, 7, 768)
OF_COPY = {"forward": 0.90, "forward+backward": 0.85}
OF_SPIKINGJELLY = {"forward": 1.6, "forward+backward": 1.6}
MEMORY = 2.25  # times the input
DTYPES = (torch.bfloat16, torch.float32)


def run(device: str, options: Options = ALL) -> Iterator[Row]:
    """Both neurons in bfloat16 and, unless in a hurry, in float32.

    Raises:
        ConfigError: there is no GPU, or no Triton.
        DisagreementError: a neuron is wrong.
    """
    kinds = options.select(peers.KINDS)
    peers.require_cuda(device, "lif")
    torch.manual_seed(0)
    for dtype in DTYPES[: 1 if options.quick else None]:
        for kind in kinds:
            yield from compare(kind, dtype, options)


def compare(kind: str, dtype: torch.dtype, options: Options) -> Iterator[Row]:
    """One neuron in one dtype beside all its peers."""
    called = f"T=16, {str(dtype).removeprefix('torch.')}"
    small = torch.randn(CHECKED, device="cuda").to(dtype)
    peers.case(kind, f"{called}, 3x7x768", small).check()
    case = peers.case(kind, f"{called}, 8x1024x768", torch.randn(SHAPE, device="cuda").to(dtype))
    known = {"copy of the same bytes": (peers.copies(case), OF_COPY)}
    if kind == peers.LIF and (spikingjelly := peers.spikingjelly(case)):
        known[peers.spikingjelly_name()] = (spikingjelly, OF_SPIKINGJELLY)
    if options.slow_peers and dtype == torch.bfloat16:
        known["torch.compile of the naive form"] = (peers.compiled(case), {})
    for way, ours in (("forward", case.forward()), ("forward+backward", case.both())):
        works = {name: work[way] for name, (work, _) in known.items()}
        times = time_cuda({"ours": ours, **works})
        for name, (_, targets) in known.items():
            text = f"{case.name}, {way}"
            yield peers.row(text, times["ours"], times[name], name, targets.get(way))
    yield peers.memory_row(case, MEMORY)
