"""Microseconds a step of the recurrent LIF under other tilings, on a GPU.

usage: PYTHONPATH=src python benchmarks/sweep_recurrent.py
"""

from unittest.mock import patch

import torch

from spikeloom.bench import recurrent
from spikeloom.bench.timing import time_cuda
from spikeloom.ops.lif import dispatch, recurrent_scan

# Sequences and neurons of a program, parts of a sum, warps, words that a thread waits for at once.
TILINGS = [
    (16, 16, 4, 4, 4),
    (16, 16, 4, 4, 2),
    (16, 16, 4, 4, 1),
    (16, 16, 4, 4, 0),  # all threads together
    (16, 16, 2, 2, 4),
    (16, 16, 4, 2, 4),
    (16, 32, 4, 4, 4),
    (16, 16, 8, 4, 4),
]
NAMES = ("ROWS", "COLS", "SPLIT", "WARPS", "AT_ONCE")


def tiled(work, tiling):
    def run():
        with patch.multiple(recurrent_scan, **dict(zip(NAMES, tiling, strict=True))):
            return work()

    return run


def main():
    weight = recurrent.draw(1, 1, recurrent.D)[1].cuda().requires_grad_()
    x = recurrent.draw(recurrent.S, recurrent.B, recurrent.D)[0].cuda().bfloat16().requires_grad_()
    works = recurrent.works(dispatch.recurrent_lif, x, weight)
    small = recurrent.draw(recurrent.CHECKED, recurrent.B, recurrent.D)
    for way in ("forward", "both"):
        candidates = {}
        for tiling in TILINGS:
            check = tiled(lambda: recurrent.check(dispatch.recurrent_lif, *small, "cuda"), tiling)
            try:
                check()
                candidates[str(tiling)] = tiled(works[way], tiling)
            except Exception as error:  # too large for the GPU, or wrong: neither is timed
                print(f"  {tiling}: {str(error).splitlines()[0]}", flush=True)
        times = time_cuda(candidates, rounds=10)
        print(f"recurrent LIF, {way}, a step: {', '.join(NAMES)}")
        for name, (ms, spread) in sorted(times.items(), key=lambda item: item[1].ms):
            print(f"  {1e3 * ms / recurrent.S:8.2f} us  {spread:4.0%}  {name}", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
