"""Microseconds of the event-driven product cut up in other ways, on a GPU (20 s).

usage: PYTHONPATH=src python benchmarks/sweep_gather.py
"""

from unittest.mock import patch

import torch

from spikeloom.bench import event
from spikeloom.bench.timing import time_cuda
from spikeloom.ops.event import gather, naive
from spikeloom.ops.event.gather import Launch

RATE = 0.1
LAUNCHES = (
    Launch(64, 1, 256, 8),
    Launch(64, 4, 128, 4),
    Launch(64, 2, 256, 8),
    Launch(64, 4, 256, 8),
    Launch(32, 1, 512, 8),
    Launch(32, 2, 256, 8),
)
SLICES = (512, 1024, 2048, 16384)  # channels of a list


def launched(launch, work):
    """`work` under that launch instead of the shipped choice."""

    def run():
        with patch.object(gather, "launch_of", lambda *_: launch):
            return work()

    return run


def sliced(channels, work):
    """`work` whose lists are of so many channels."""

    def run():
        with patch.object(gather, "SLICE", channels):
            return work()

    return run


def check(work, payload, chain):
    """Every product of a chain: launches that come early must not touch what is still in use."""
    for got, weights in zip(work(), chain, strict=True):
        exact = naive.event_matvec(payload, weights)
        error = float((got - exact).norm() / exact.norm())
        if not error < 1e-5:
            raise SystemExit(f"a product is off by {error:.2g}")


def compare(name, d_in, d_out):
    """Times of the launches, their list given or made, and of the dense product, fastest first."""
    chain = event.draw_chain(d_in, d_out)
    payload = event.draw_payload(d_in, RATE)
    ways = {way: event.product(payload, chain, way) for way in event.LISTS}
    works = {
        f"{tuple(launch)}, list {way}": launched(launch, work)
        for launch in LAUNCHES
        for way, work in ways.items()
    }
    for channels in SLICES:
        works[f"shipped, lists of {channels} made here"] = sliced(channels, ways[event.MADE])
    for work in works.values():
        check(work, payload, chain)
    dense = event.dense_products(payload, chain)
    times = time_cuda({**works, **dense}, rounds=10)
    best = min(times[way].ms for way in dense)
    print(f"{name}, shipped {tuple(gather.launch_of(d_in, d_out))}")
    for work, (ms, spread) in sorted(times.items(), key=lambda item: item[1].ms):
        us = 1e3 * ms / len(chain)
        print(f"  {us:8.2f} us  {best / ms:5.2f}x  {spread:4.0%}  {work}", flush=True)


def main():
    torch.manual_seed(0)
    for name, size in event.SIZES.items():
        compare(name, *size)


if __name__ == "__main__":
    main()
