"""Times of the graded neuron under other tilings, on a GPU, each compared with the shipped one.

usage: PYTHONPATH=src python benchmarks/sweep_lif.py step|token
"""

import sys
from unittest.mock import patch

import torch

from spikeloom.bench import lif, neuron_peers, scan
from spikeloom.bench.timing import time_cuda
from spikeloom.ops.lif import scan as form
from spikeloom.ops.lif.scan import Tiling

# Rows, columns, warps.
STEP_FORWARD = [(1, 512, 4), (2, 256, 4), (2, 256, 8)]
STEP_BACKWARD = [(1, 256, 4), (2, 256, 8), (2, 256, 4), (4, 128, 8), (8, 64, 4)]
# Rows, columns, steps of a chunk.
TOKEN_FORWARD = [(1, 32, 16), (1, 32, 32), (1, 64, 16), (1, 64, 32)]
TOKEN_BOTH = [(1, 32, 16), (1, 64, 16)]


def tiled(work, there=None, back=None):
    """`work` under these tilings forward and backward; where there is none, the shipped one."""
    shipped = form.tiling

    def tiling(shape, learns, backward=False):
        return (back if backward else there) or shipped(shape, learns, backward)

    def run():
        with patch.object(form, "tiling", tiling):
            return work()

    return run


def sweep(title, shipped, candidates, peers):
    """Candidates that agree with the shipped form, fastest first."""
    wanted = flat(shipped())
    for name, work in candidates.items():
        for got, exact in zip(flat(work()), wanted, strict=True):
            error = float((got.double() - exact).norm() / exact.norm())
            if not error < 1e-3:
                raise SystemExit(f"{title}, {name}: off by {error:.2g}")
    times = time_cuda({"shipped": shipped, **candidates, **peers}, rounds=10)
    print(title)
    for name, (ms, spread) in sorted(times.items(), key=lambda item: item[1].ms):
        print(f"  {1e3 * ms:8.1f} us  {spread:4.0%}  {name}", flush=True)


def flat(outputs):
    return [t.double() for t in (outputs if isinstance(outputs, tuple) else (outputs,))]


def step():
    neuron_peers.case(neuron_peers.GRADED_LIF, "small", torch.randn(lif.CHECKED).cuda()).check()
    x = torch.randn(lif.SHAPE, device="cuda").bfloat16()
    case = neuron_peers.case(neuron_peers.GRADED_LIF, "T=16, 8x1024x768", x)
    copy = neuron_peers.copies(case)
    forward, backward = (
        [Tiling(rows, cols, 16, warps) for rows, cols, warps in sizes]
        for sizes in (STEP_FORWARD, STEP_BACKWARD)
    )
    candidates = {str(tuple(t)): tiled(case.forward(), t) for t in forward}
    sweep(f"{case.name}, forward", case.forward(), candidates, {"copy": copy["forward"]})
    candidates = {f"backward {tuple(t)}": tiled(case.both(), None, t) for t in backward}
    both = {"copy": copy["forward+backward"]}
    sweep(f"{case.name}, forward+backward", case.both(), candidates, both)


def token():
    scan.check(neuron_peers.GRADED_LIF, 2)
    forward, both = (
        [Tiling(rows, cols, chunk, 1) for rows, cols, chunk in sizes]
        for sizes in (TOKEN_FORWARD, TOKEN_BOTH)
    )
    for B in (8, 64):
        case = neuron_peers.case(neuron_peers.GRADED_LIF, f"B{B} L1024 D768", scan.tokens(B, 1024))
        copy = neuron_peers.copies(case)
        candidates = {str(tuple(t)): tiled(case.forward(), t) for t in forward}
        sweep(f"{case.name}, forward", case.forward(), candidates, {"copy": copy["forward"]})
        candidates = {str(tuple(t)): tiled(case.both(), t, t) for t in both}
        sweep(f"{case.name}, both", case.both(), candidates, {"copy": copy["forward+backward"]})


if __name__ == "__main__":
    torch.manual_seed(0)
    {"step": step, "token": token}[sys.argv[1]]()
