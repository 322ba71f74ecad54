"""Milliseconds of both neurons on the token clock: few lanes, many steps one after the other.

The input is what a model hands over, `[B, L, D]` with L brought to the front without a copy. With
6 thousand lanes the time is that of L dependent steps; with 49 thousand it nears that of a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.bench import neuron_peers as peers
from spikeloom.bench.rows import Row
from spikeloom.bench.timing import time_cuda

D = 768
OF_SPIKINGJELLY = {"forward": 8.0, "forward+backward": 6.0}
OF_COPY = {"forward": 0.70, "forward+backward": 0.70}


def run(device: str) -> list[Row]:
    """Few lanes against SpikingJelly, many against a copy, odd lengths, packed resets.

    Raises:
        ConfigError: there is no GPU, or no Triton.
    """
    peers.require_cuda(device, "scan")
    for length in (1, 7, 1000, 1023):
        for kind in (peers.LIF, peers.GRADED_LIF):
            checked(peers.case(kind, f"B8 L{length} D768", tokens(8, length)))
    rows = []
    for kind in (peers.LIF, peers.GRADED_LIF):
        few = peers.case(kind, "B8 L1024 D768, bfloat16", tokens(8, 1024))
        rows += against_spikingjelly(few)
        odd = peers.case(kind, "B8 L1023 D768, bfloat16", tokens(8, 1023))
        rows += beside(odd, few, "ours at L1024")
        packed = peers.case(
            kind, "B8 L1024 D768, bfloat16, packed resets", tokens(8, 1024), resets(8, 1024)
        )
        rows += beside(packed, few, "ours without resets")
        rows += against_copy(peers.case(kind, "B64 L1024 D768, bfloat16", tokens(64, 1024)))
    return rows


def tokens(B: int, L: int) -> Tensor:
    """`[L, B, D]`, a view of `[B, L, D]`."""
    generator = torch.Generator("cuda").manual_seed(B + L)
    x = torch.randn(B, L, D, generator=generator, device="cuda")
    return x.bfloat16().transpose(0, 1)


def resets(B: int, L: int) -> Tensor:
    """`[L, B, 1]`: documents of about 100 tokens."""
    generator = torch.Generator("cuda").manual_seed(2)
    return torch.rand(L, B, 1, generator=generator, device="cuda") < 0.01


def checked(case: peers.Case) -> peers.Case:
    flipped, bent = case.check()
    print(f"{case.name}: lanes flipped {flipped:.1e}, bent {bent:.1e}")
    return case


def against_spikingjelly(case: peers.Case) -> list[Row]:
    """Without the package, our own times beside a copy."""
    checked(case)
    plain = peers.Case(case.name, {"x": case.tensors["x"]}, case.grad)
    if works := peers.spikingjelly(plain):
        return compare(case, works, peers.spikingjelly_name(), OF_SPIKINGJELLY)
    return compare(case, peers.copies(case), "copy of the same bytes", {})


def against_copy(case: peers.Case) -> list[Row]:
    checked(case)
    return compare(case, peers.copies(case), "copy of the same bytes", OF_COPY)


def beside(case: peers.Case, other: peers.Case, name: str) -> list[Row]:
    checked(case)
    works = {"forward": other.forward(), "forward+backward": other.both()}
    return compare(case, works, name, {})


def compare(
    case: peers.Case, works: dict[str, peers.Work], name: str, targets: dict[str, float]
) -> list[Row]:
    rows = []
    for way, ours in (("forward", case.forward()), ("forward+backward", case.both())):
        times = time_cuda({"ours": ours, "peer": works[way]})
        text = f"{case.name}, {way}"
        rows.append(peers.row(text, times["ours"], times["peer"], name, targets.get(way)))
    return rows
