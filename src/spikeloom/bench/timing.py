"""How things are timed: contenders in turns, medians, on a GPU by events around replayed graphs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

Work = Callable[[], object]


class Timing(NamedTuple):
    """Median in milliseconds, and the distance between the quartiles relative to it."""

    ms: float
    spread: float


def summarise(times: list[float]) -> Timing:
    first, middle, third = statistics.quantiles(times, n=4)
    return Timing(middle, (third - first) / middle)


def time_cpu(contenders: Mapping[str, Work], rounds: int = 20) -> dict[str, Timing]:
    """Each contender once a round, after two rounds that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for count in range(rounds + 2):
        for name, work in contenders.items():
            before = time.perf_counter()
            work()
            if count >= 2:
                times[name].append(1e3 * (time.perf_counter() - before))
    return {name: summarise(ms) for name, ms in times.items()}


def time_cuda(
    contenders: Mapping[str, Work], rounds: int = 30, graph: bool = True
) -> dict[str, Timing]:
    """Each contender once a round, between two events, with the L2 cache overwritten before.

    Args:
        contenders: work on the current device, without arguments; each allocates what it needs.
        graph: capture each once and replay it, so that launches are not timed. Work that waits for
            the GPU, or launches on streams of its own, cannot be captured.
    """
    ready = {name: _captured(work) if graph else _warm(work) for name, work in contenders.items()}
    flush = torch.empty(128 << 20, dtype=torch.int8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in ready.items():
            flush.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end))
    return {name: summarise(ms) for name, ms in times.items()}


def _warm(work: Work) -> Work:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    return work


def _captured(work: Work) -> Work:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        _warm(work)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = work()
    replay = graph.replay

    def run() -> object:
        replay()
        return kept  # what the graph writes to stays allocated

    return run
