"""Milliseconds of causal SDSA launched in other ways, on a GPU.

usage: PYTHONPATH=src python benchmarks/sweep_attention.py

B8 H12 K64 L4096 in bf16, where issue 3 asks for fla's time. Every choice is compiled first, side by
side, then checked with its gradients against the recurrence, then timed in turns with all others;
at the end the shipped one and the fastest, launch by launch (60 s).
"""

import argparse
import os
import time
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from unittest.mock import patch

import torch

from spikeloom.bench import attention
from spikeloom.bench.timing import time_cuda
from spikeloom.ops import launches
from spikeloom.ops.attention import fused, naive, passes
from spikeloom.ops.attention.passes import Launch
from spikeloom.ops.launches import Launches

SIZE = (8, 12, 4096, 64)
WIDTH = SIZE[-1]
CHECKED = 2113  # tokens: two of the longest segments, and nothing that 64 divides
TOLERANCE = attention.TOLERANCE[torch.bfloat16]
NONE, ALL = 10**9, 0  # WALKERS: no program walks through all tokens, or all do


def programs(walk=None, resume=None, gather=None):
    """`LAUNCHES` with others at this width."""
    given = {"walk": walk, "resume": resume, "gather": gather}
    return {
        mode: table if given[mode] is None else {**table, WIDTH: Launch(*given[mode])}
        for mode, table in passes.LAUNCHES.items()
    }


def gradients(warps, stages, registers=None):
    limit = {} if registers is None else {"maxnreg": registers}
    return {"num_warps": warps, "num_stages": stages, **limit}


SEGMENTS = {"WALKERS": NONE}
WARPS_STAGES_REGISTERS = (
    *((4, 1), (4, 3), (8, 1), (8, 2)),
    *((4, 1, 168), (4, 2, 168), (8, 2, 128), (4, 1, 128)),
)
CHOICES = {
    "shipped": {},
    "a scan for each gradient, walking": {"WALKERS": ALL, "ONE_PASS": 0},
    "a scan for each gradient, in segments": {"WALKERS": NONE, "ONE_PASS": 0},
    **{
        f"walk {walk}": {"WALKERS": ALL, "LAUNCHES": programs(walk=walk)}
        for walk in ((32, 4, 2), (32, 4, 4), (32, 8, 3), (64, 4, 3), (64, 8, 4), (16, 4, 4))
    },
    "segments": SEGMENTS,
    **{
        f"segments, resume {resume}": SEGMENTS | {"LAUNCHES": programs(resume=resume)}
        for resume in (
            *((64, 4, 1), (64, 4, 3), (64, 8, 2), (32, 4, 2), (32, 4, 3)),
            *((64, 4, 1, 168), (64, 4, 2, 168), (64, 4, 2, 128)),
        )
    },
    **{
        f"segments, gather {gather}": SEGMENTS | {"LAUNCHES": programs(gather=gather)}
        for gather in ((64, 4, 3), (64, 4, 4), (64, 8, 3), (32, 4, 3))
    },
    **{f"segments of {n} chunks": SEGMENTS | {"SEGMENT": n} for n in (2, 4, 16, 32)},
    "segments of 4 chunks of 128": SEGMENTS | {"SEGMENT": 4, "CHUNK": 128},
    "segments of 4 chunks of 128, 8 warps": SEGMENTS
    | {
        "SEGMENT": 4,
        "CHUNK": 128,
        "LAUNCHES": programs(resume=(64, 8, 2), gather=(64, 8, 2)),
        "GRADIENTS": gradients(8, 2),
    },
    "walk chunks of 128": {
        "WALKERS": ALL,
        "SEGMENT": 4,
        "CHUNK": 128,
        "LAUNCHES": programs(walk=(32, 8, 3), gather=(64, 8, 2)),
        "GRADIENTS": gradients(8, 2),
    },
    "segments of 16 chunks of 32": SEGMENTS | {"SEGMENT": 16, "CHUNK": 32},
    **{
        f"segments, gradients {given}": SEGMENTS | {"GRADIENTS": gradients(*given)}
        for given in WARPS_STAGES_REGISTERS
    },
    "segments of 4 chunks, gradients (4, 2, 168)": SEGMENTS
    | {"SEGMENT": 4, "GRADIENTS": gradients(4, 2, 168)},
}


def under(choice, work):
    """`work` with that choice in the place of the shipped one."""

    def run():
        with ExitStack() as stack:
            for name, value in choice.items():
                stack.enter_context(patch.object(passes, name, value))
            return work()

    return run


def recorded(choice, inputs):
    """What forward and backward would launch: `(program, grid, arguments, options)` each."""
    given = []
    with patch.object(Launches, "run", lambda self, kind: given.extend(self._given)):
        under(choice, lambda: both(inputs))()
    return given


def forward(inputs):
    return fused.sdsa(*inputs[:4])[0]


def both(inputs):
    return torch.autograd.grad(forward(inputs), inputs[:4], inputs[4])


def compile_all(choices, inputs):
    """All programs of all choices, side by side; the names of choices that cannot be compiled."""
    began, jobs, users = time.perf_counter(), {}, {}
    for name, choice in choices.items():
        for launch in recorded(choice, inputs):
            jobs[key_of(*launch)] = Launches._job(torch.cuda.current_device(), *launch)
            users.setdefault(key_of(*launch), set()).add(name)
    failed = set()
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        for key, done in [(key, threads.submit(job)) for key, job in jobs.items()]:
            if error := done.exception():
                print(f"{key[0]}: {str(error).splitlines()[0]}: {sorted(users[key])} left out")
                failed |= users[key]
    print(f"{len(jobs)} programs compiled in {time.perf_counter() - began:.0f} s", flush=True)
    return failed


def key_of(program, grid, arguments, options) -> Hashable:
    """What makes launches of one size the same program."""
    there = tuple(argument is None for argument in arguments)
    return program.fn.__name__, there, tuple(sorted(options.items()))


def checker():
    """A function: what is wrong with a choice, over segments and an odd length (None: nothing)."""
    with patch.object(attention, "CHECKED", CHECKED):
        inputs = attention.checked_inputs("cuda", torch.bfloat16, WIDTH, strength=0.3)
    exact = attention.outcome(naive, [x.double().cpu() for x in inputs], None, False)
    exact = [x.cuda() for x in exact]

    def wrong(choice):
        try:
            got = under(choice, lambda: attention.outcome(fused, inputs, None, False))()
        except Exception as error:  # a program that needs too much memory, for one
            return str(error).splitlines()[0]
        errors = [float((g - x).norm() / x.norm()) for g, x in zip(got, exact, strict=True)]
        worst = max(errors)
        return None if worst < TOLERANCE else f"off by {worst:.2g}"

    return wrong


def show_launches(name, choice, inputs):
    """Times of its launches, each alone."""
    works = {}
    for number, (program, grid, arguments, options) in enumerate(recorded(choice, inputs)):
        case = f"{number} {program.fn.__name__} {options.get('MODE', '')} {grid}"
        works[case] = lambda p=program, g=grid, a=arguments, o=options: p[g](*a, **o)
    print(f"{name}, launch by launch:")
    for launch, (ms, spread) in time_cuda(works, rounds=15).items():
        print(f"  {ms:8.4f} ms  {spread:4.0%}  {launch}", flush=True)


def main():
    raw = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=raw).parse_args()
    torch.manual_seed(0)
    inputs = attention.draw(*SIZE)
    failed = compile_all(CHOICES, inputs)
    wrong, works = checker(), {}
    for name, choice in CHOICES.items():
        launches._compiled.clear()
        if name in failed:
            continue
        if why := wrong(choice):
            print(f"{name}: left out: {why}", flush=True)
            continue
        works[name, "forward"] = under(choice, lambda: forward(inputs))
        works[name, "both"] = under(choice, lambda: both(inputs))
    times = time_cuda(works, rounds=15)
    kept = sorted((name for name, what in times if what == "both"), key=lambda n: times[n, "both"])
    for name in kept:
        one, two = times[name, "forward"], times[name, "both"]
        figures = f"forward {one.ms:.4f} {one.spread:4.0%}  both {two.ms:.4f} {two.spread:4.0%}"
        print(f"  {figures}  {name}", flush=True)
    for name in dict.fromkeys(("shipped", kept[0])):
        show_launches(name, CHOICES[name], inputs)


if __name__ == "__main__":
    main()
