"""Milliseconds of both neurons on the token clock: few lanes, many steps one after the other.

The input is what a model hands over, `[B, L, D]` with L brought to the front without a copy. With
6 thousand lanes the time is that of L dependent steps; with 49 thousand it nears that of a copy.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spikeloom.bench import neuron_peers as peers
from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row
from spikeloom.bench.timing import time_cuda

D = 768
CHECKED = 131  # tokens: an odd length that no chunk divides
OF_SPIKINGJELLY = {"forward": 8.0, "forward+backward": 6.0}
OF_COPY = {"forward": 0.70, "forward+backward": 0.70}


def run(device: str, options: Options = ALL) -> Iterator[Row]:
    """Few lanes against SpikingJelly, many against a copy, an odd length, packed resets.

    Raises:
        ConfigError: there is no GPU, or no Triton.
        DisagreementError: a neuron is wrong.
    """
    kinds = options.select(peers.KINDS)
    peers.require_cuda(device, "scan")
    for kind in kinds:
        yield from few_lanes(kind)
    for kind in kinds:
        yield from many_lanes(kind)
    for kind in () if options.quick else kinds:
        yield from awkward(kind)


def few_lanes(kind: str) -> Iterator[Row]:
    """6 thousand of them: bound by the steps that follow each other."""
    check(kind, 2)
    case = peers.case(kind, "B8 L1024 D768, bfloat16", tokens(8, 1024))
    yield from against_spikingjelly(case)


def many_lanes(kind: str) -> Iterator[Row]:
    """49 thousand: nearer to the time of a copy."""
    check(kind, 44)  # enough lanes for the programs that the row is about
    case = peers.case(kind, "B64 L1024 D768, bfloat16", tokens(64, 1024))
    yield from compare(case, peers.copies(case), "copy of the same bytes", OF_COPY)


def awkward(kind: str) -> Iterator[Row]:
    """An odd length and packed resets, beside ours without."""
    even = peers.case(kind, "B8 L1024 D768, bfloat16", tokens(8, 1024))
    odd = peers.case(kind, "B8 L1023 D768, bfloat16", tokens(8, 1023))
    yield from beside(odd, even, "ours at L1024")
    check(kind, 2, packed=True)
    packed = even._replace(name=f"{even.name}, packed resets", starts=resets(8, 1024))
    yield from beside(packed, even, "ours without resets")


def check(kind: str, B: int, packed: bool = False) -> None:
    starts = resets(B, CHECKED) if packed else None
    name = f"B{B} L{CHECKED} D768{', packed resets' * packed}"
    peers.case(kind, name, tokens(B, CHECKED), starts).check()


def tokens(B: int, L: int) -> Tensor:
    """`[L, B, D]`, a view of `[B, L, D]`."""
    generator = torch.Generator("cuda").manual_seed(B + L)
    x = torch.randn(B, L, D, generator=generator, device="cuda")
    return x.bfloat16().transpose(0, 1)


def resets(B: int, L: int) -> Tensor:
    """`[L, B, 1]`: documents of about 100 tokens."""
    generator = torch.Generator("cuda").manual_seed(2)
    return torch.rand(L, B, 1, generator=generator, device="cuda") < 0.01


def against_spikingjelly(case: peers.Case) -> Iterator[Row]:
    """Without the package, our own times beside a copy; it knows the plain LIF only."""
    plain = peers.Case(case.name, {"x": case.tensors["x"]}, case.grad)
    if works := peers.spikingjelly(plain):
        yield from compare(case, works, peers.spikingjelly_name(), OF_SPIKINGJELLY)
    else:
        yield from compare(case, peers.copies(case), "copy of the same bytes", {})


def beside(case: peers.Case, other: peers.Case, name: str) -> Iterator[Row]:
    works = {"forward": other.forward(), "forward+backward": other.both()}
    yield from compare(case, works, name, {})


def compare(
    case: peers.Case, works: dict[str, peers.Work], name: str, targets: dict[str, float]
) -> Iterator[Row]:
    for way, ours in (("forward", case.forward()), ("forward+backward", case.both())):
        times = time_cuda({"ours": ours, "peer": works[way]})
        text = f"{case.name}, {way}"
        yield peers.row(text, times["ours"], times["peer"], name, targets.get(way))
