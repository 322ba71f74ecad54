"""Microseconds of the event-driven products cut up in other ways, on a GPU.

usage: PYTHONPATH=src python benchmarks/sweep_gather.py [large] [decoder]

`large` are the sizes of `bench event`, their parts added up (60 s); `decoder` the products of a
step of spikeloom-125m near its firing rates, their parts left to what comes behind (30 s).
"""

import argparse
from contextlib import ExitStack
from unittest.mock import patch

import torch

from spikeloom.bench import event
from spikeloom.bench.timing import time_cuda
from spikeloom.ops.event import gather, naive, skip
from spikeloom.ops.event.gather import Launch

RATE = 0.1
LAUNCHES = (
    Launch(64, 1, 256, 8),
    Launch(64, 4, 128, 4),
    Launch(64, 2, 256, 8),
    Launch(64, 4, 256, 8),
    Launch(64, 8, 128, 8),
    Launch(32, 2, 256, 8),
)
SLICES = (512, 1024, 4096)  # channels of a list, under each of the next
SLICED = (Launch(64, 4, 256, 8), Launch(64, 8, 128, 8))
CUTS = (
    Launch(64, 4, 256, 8),
    Launch(64, 8, 256, 8),
    Launch(64, 16, 128, 4),
    Launch(128, 8, 128, 8),
)
DECODER = {  # d_in, d_out, channel rate
    "q, k and v, joined": (768, 2304, 0.3),
    "o": (768, 768, 0.3),
    "up": (768, 3072, 0.3),
    "down": (3072, 768, 0.06),
    "head": (768, 32768, 0.3),
}
DECODER_CUTS = (
    Launch(64, 1, 128, 4),
    Launch(64, 3, 128, 4),
    Launch(64, 6, 128, 4),
    Launch(64, 3, 256, 8),
    Launch(64, 6, 128, 8),
    Launch(32, 6, 128, 4),
    Launch(32, 3, 256, 4),
    Launch(128, 6, 128, 8),
    Launch(128, 6, 64, 4),
)


def with_choice(work, launch=None, channels=None):
    """`work` under that launch, or lists of so many channels, instead of the shipped choice."""

    def run():
        with ExitStack() as stack:
            if launch is not None:
                stack.enter_context(patch.object(gather, "launch_of", lambda *_: launch))
            if channels is not None:
                stack.enter_context(patch.object(gather, "SLICE", channels))
            return work()

    return run


def skipping(payload, chain, cut=None, added=True):
    """Products without a list, cut up so; parts are added up, or left as they are."""

    def product(weights):
        parts = skip.skipping_matvec(payload, weights)
        if not added:
            return parts
        y = parts.new_empty(weights.d_out)
        gather.add_up(parts, y)
        return y

    def run():
        with patch.object(skip, "cut_of", skip.cut_of if cut is None else lambda *_: cut):
            return [product(weights) for weights in chain]

    return run


def check(work, payload, chain):
    """Every product of a chain: launches that come early must not touch what is still in use."""
    for got, weights in zip(work(), chain, strict=True):
        got = got.sum(0) if got.dim() > 1 else got
        exact = naive.event_matvec(payload, weights)
        error = float((got - exact).norm() / exact.norm())
        if not error < 1e-5:
            raise SystemExit(f"a product is off by {error:.2g}")


def large(d_in, d_out):
    """Works of a size of `bench event`, their list given, made or not needed."""
    chain, payload = event.draw_chain(d_in, d_out), event.draw_payload(d_in, RATE)
    ways = {way: event.product(payload, chain, way) for way in event.LISTS}
    works = {
        f"{tuple(launch)}, list {way}": with_choice(work, launch)
        for launch in LAUNCHES
        for way, work in ways.items()
    }
    for launch in SLICED:
        for channels in SLICES:
            name = f"{tuple(launch)}, lists of {channels} made here"
            works[name] = with_choice(ways[event.MADE], launch, channels)
    works |= {f"{tuple(cut)}, no list": skipping(payload, chain, cut) for cut in CUTS}
    return payload, chain, works


def decoder(d_in, d_out, rate):
    """Works of a product of a decoder: nothing in common is made or added up but by `gather`."""
    chain, payload = event.draw_chain(d_in, d_out), event.draw_payload(d_in, rate)
    works = {f"gather, list {way}": event.product(payload, chain, way) for way in event.LISTS}
    works["gather, list made here, parts left"] = lambda: [
        gather.event_matvec_in_parts(payload, weights) for weights in chain
    ]
    for cut in (None, *DECODER_CUTS):
        name = f"shipped {tuple(skip.cut_of(d_in, d_out))}" if cut is None else tuple(cut)
        works[f"{name}, no list"] = skipping(payload, chain, cut, added=False)
    return payload, chain, works


def compare(name, payload, chain, works):
    """Times of the works and of the dense product, fastest first."""
    for work in works.values():
        check(work, payload, chain)
    dense = event.dense_products(payload, chain)
    times = time_cuda({**works, **dense}, rounds=10)
    best = min(times[way].ms for way in dense)
    print(f"{name}: {chain[0].d_in} in, {chain[0].d_out} out")
    for work, (ms, spread) in sorted(times.items(), key=lambda item: item[1].ms):
        us = 1e3 * ms / len(chain)
        print(f"  {us:8.2f} us  {best / ms:5.2f}x  {spread:4.0%}  {work}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sweeps = ("large", "decoder")
    parser.add_argument("wanted", nargs="*", metavar="SWEEP", help=" or ".join(sweeps))
    wanted = parser.parse_args().wanted or sweeps
    if unknown := set(wanted).difference(sweeps):
        parser.error(f"no such sweep: {', '.join(sorted(unknown))}")
    torch.manual_seed(0)
    if "decoder" in wanted:
        for name, size in DECODER.items():
            compare(name, *decoder(*size))
    if "large" in wanted:
        for name, size in event.SIZES.items():
            compare(f"{name}, shipped {tuple(gather.launch_of(*size))}", *large(*size))


if __name__ == "__main__":
    main()
