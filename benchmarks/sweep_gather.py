"""Microseconds of the event-driven product under every launch in its table, on a GPU (40 s).

usage: PYTHONPATH=src python benchmarks/sweep_gather.py
"""

from unittest.mock import patch

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


def compare(name, d_in, d_out, launches):
    """Times of the launches, of the shipped one, and of the dense product, fastest first."""
    chain = event.draw_chain(d_in, d_out)
    payload = event.draw_payload(d_in, RATE)
    ours = event.product(payload, chain)
    swept = {str(tuple(launch)): launched(launch, ours) for launch in launches}
    for work in swept.values():
        check(work, payload, chain)
    times = time_cuda({"shipped": ours, **swept, **event.dense_products(payload, chain)}, rounds=10)
    print(f"{name}, shipped {tuple(gather.launch_of(d_in, d_out))}")
    for work, (ms, spread) in sorted(times.items(), key=lambda item: item[1].ms):
        print(f"  {1e3 * ms / len(chain):8.2f} us  {spread:4.0%}  {work}", flush=True)


def main():
    torch.manual_seed(0)
    for early in (False, True):  # apart: whatever a driver makes of early ones, the others are seen
        for name, size in event.SIZES.items():
            compare(name, *size, [launch for launch in gather.LAUNCHES if launch.early == early])


if __name__ == "__main__":
    main()
