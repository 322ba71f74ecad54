"""Milliseconds of both neurons on the step clock: many lanes, 16 steps, bound by memory.

The floor is what a copy of the same bytes takes. Peers are SpikingJelly's Triton multi-step LIF and
what torch.compile makes of our own naive form.
"""

from __future__ import annotations

import torch

from spikeloom.bench import neuron_peers as peers
from spikeloom.bench.rows import Row
from spikeloom.bench.timing import time_cuda

SHAPE = (16, 8, 1024, 768)  # T, B, L, D
OF_COPY = {"forward": 0.90, "forward+backward": 0.85}
OF_SPIKINGJELLY = {"forward": 1.6, "forward+backward": 1.6}
MEMORY = 2.25  # times the input


def run(device: str) -> list[Row]:
    """LIF and graded LIF in bfloat16 and float32.

    Raises:
        ConfigError: there is no GPU, or no Triton.
    """
    peers.require_cuda(device, "lif")
    torch.manual_seed(0)
    x = torch.randn(SHAPE, device="cuda")
    rows = []
    for kind in (peers.LIF, peers.GRADED_LIF):
        for dtype in (torch.bfloat16, torch.float32):
            rows += compare(kind, x.to(dtype))
    return rows


def compare(kind: str, x: torch.Tensor) -> list[Row]:
    """One neuron in one dtype beside all its peers."""
    dtype = str(x.dtype).removeprefix("torch.")
    case = peers.case(kind, f"T=16, {dtype}, 8x1024x768", x)
    flipped, bent = case.check()
    print(f"{case.name}: lanes flipped {flipped:.1e}, bent {bent:.1e}")
    known = {"copy of the same bytes": (peers.copies(case), OF_COPY)}
    if kind == peers.LIF and (spikingjelly := peers.spikingjelly(case)):
        known[peers.spikingjelly_name()] = (spikingjelly, OF_SPIKINGJELLY)
    if x.dtype == torch.bfloat16:
        known["torch.compile of the naive form"] = (peers.compiled(case), {})
    rows = []
    for way, ours in (("forward", case.forward()), ("forward+backward", case.both())):
        works = {name: work[way] for name, (work, _) in known.items()}
        times = time_cuda({"ours": ours, **works})
        for name, (_, targets) in known.items():
            text = f"{case.name}, {way}"
            rows.append(peers.row(text, times["ours"], times[name], name, targets.get(way)))
    return [*rows, peers.memory_row(case, MEMORY)]
