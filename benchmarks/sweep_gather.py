"""Microseconds of the event-driven product under every launch in its table, on a GPU (40 s).

usage: PYTHONPATH=src python benchmarks/sweep_gather.py
"""

from unittest.mock import patch

import gather_given
import torch

from spikeloom.bench import event
from spikeloom.bench.timing import time_cuda
from spikeloom.ops.event import gather, naive

RATE = 0.1


def launched(launch, work):
    """`work` under that launch instead of the shipped choice."""

    def run():
        with patch.object(gather, "launch_of", lambda *_: launch):
            return work()

    return run


def check(work, payload, chain):
    """Every product of a chain: launches that come early must not touch what is still in use."""
    for got, weights in zip(work(), chain, strict=True):
        exact = naive.event_matvec(payload, weights)
        error = float((got - exact).norm() / exact.norm())
        if not error < 1e-5:
            raise SystemExit(f"a product is off by {error:.2g}")


def given(payload, chain, cut, listed=None):
    """Products that share out a list made before, or (without one) each make their own."""

    def run():
        lists = (
            listed if listed is not None else gather_given.list_channels(payload) for _ in chain
        )
        return [
            gather_given.event_matvec(payload, channels, weights, cut)
            for channels, weights in zip(lists, chain, strict=True)
        ]

    return run


def compare(name, d_in, d_out, launches, cuts=()):
    """Times of the launches, of the shipped one, and of the dense product, fastest first."""
    chain = event.draw_chain(d_in, d_out)
    payload = event.draw_payload(d_in, RATE)
    ours = event.product(payload, chain)
    works = {describe(launch): launched(launch, ours) for launch in launches}
    for cut in cuts:
        listed = gather_given.list_channels(payload)
        works[f"list given {tuple(cut)}"] = given(payload, chain, cut, listed)
    if cuts:
        works[f"list made and used {tuple(cuts[0])}"] = given(payload, chain, cuts[0])
    for work in works.values():
        check(work, payload, chain)
    times = time_cuda({"shipped": ours, **works, **event.dense_products(payload, chain)}, rounds=10)
    dense = min(times[way].ms for way in event.dense_products(payload, chain))
    print(f"{name}, shipped {describe(gather.launch_of(d_in, d_out))}")
    for work, (ms, spread) in sorted(times.items(), key=lambda item: item[1].ms):
        us = 1e3 * ms / len(chain)
        print(f"  {us:8.2f} us  {dense / ms:5.2f}x  {spread:4.0%}  {work}", flush=True)


def describe(launch):
    columns, channels, rows, warps, stages, early, listed = launch
    staged = f", {stages} stages" * (stages > 1) + ", early" * early + ", listed" * listed
    return f"{columns} columns, {channels} channels, {rows} rows, {warps} warps{staged}"


def main():
    torch.manual_seed(0)
    for name, size in event.SIZES.items():
        launches = [launch for launch in gather.LAUNCHES if launch.channels <= 2 * size[0]]
        compare(name, *size, launches, gather_given.CUTS)


if __name__ == "__main__":
    main()
