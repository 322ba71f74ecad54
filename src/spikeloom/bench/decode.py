"""Milliseconds per token at batch 1, one thread: the event-driven engine beside dense decoders.

All contenders take turns in one process, 8 tokens at a time, behind the same 64-token prompt.
Weights are random, and one factor on all payload steps sets the active share. The dense twin runs
in torch (`DecoderState`), and, so that Python's part in that is seen, in our own engine too; other
engines decode the twin that they know (`flow_twin`) where they are installed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from spikeloom.bench.contenders import Contender, Spiking, dense_engine, peer, torch_model
from spikeloom.bench.decode_peers import TARGETS as PEER_TARGETS
from spikeloom.bench.decode_peers import peers
from spikeloom.bench.decode_picture import draw
from spikeloom.bench.engine_memory import memory_row
from spikeloom.bench.flow_twin import flow_twin
from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, summarise
from spikeloom.inference.engine import Engine
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, dense_twin
from spikeloom.model.sizes import random_model

__all__ = ["draw", "run"]

PROMPT, TURN, TURNS = 64, 8, 12
SIZES = ("15m", "125m")
DTYPES = ("float32", "bfloat16", "int8")
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
TARGET_SHARE, TARGETS = 0.2, {"float32": 3.5, "bfloat16": 3.5, "int8": 2.0}
IN_TORCH, IN_OURS = "dense twin in torch", "dense twin in our engine"


def run(device: str, options: Options = ALL) -> Iterator[Row]:
    """On a CPU event-driven against dense, over active shares; on a GPU `decode_graph`.

    Raises:
        SpikeloomError: a peer computes something else than the twin it was given.
    """
    if device != "cpu":
        from spikeloom.bench.decode_graph import against_dense_twin

        yield from against_dense_twin(options)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for size in options.select(SIZES, quick=1):
            yield from curves(size)
        if not options.quick:
            yield from loading(SIZES[-1])
            yield memory_row()
    finally:
        torch.set_num_threads(threads)


def curves(size: str, turns: int = TURNS) -> list[Row]:
    """The rows of one size: every dtype at every share, and other engines at the largest size."""
    model = random_model(f"spikeloom-{size}")
    config = SpikeloomConfig.from_architecture(dense_twin(model.config.architecture))
    twin = SpikeloomForCausalLM(config).eval()
    factors = Spiking(model, "bfloat16").factors(SHARES)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        flow = flow_twin(model.config.architecture) if size == SIZES[-1] else None
        for dtype in DTYPES:
            others = {} if flow is None else peers(flow, dtype, Path(folder))
            ours = Spiking(model, dtype)
            times = measure(
                {
                    **{str(share): ours.at(factor) for share, factor in factors.items()},
                    IN_TORCH: torch_model(twin, dtype),
                    IN_OURS: dense_engine(twin, dtype),
                    **{name: peer(step) for name, step in others.items()},
                },
                turns,
            )
            rows += to_rows(size, dtype, times)
    return rows


def to_rows(size: str, dtype: str, times: Mapping[str, Timing]) -> list[Row]:
    """One row per share and twin of ours; one per other engine, at the share of the target."""
    own = {IN_TORCH: SHARES, IN_OURS: SHARES}
    others = {name: (TARGET_SHARE,) for name in times if _is_peer(name)}
    return [
        Row(
            case(size, dtype, share),
            device_name("cpu"),
            times[str(share)].ms,
            times[name].ms,
            name,
            "ms",
            _target(name, dtype) if share == TARGET_SHARE else None,
            times[str(share)].spread,
        )
        for name, shares in {**own, **others}.items()
        for share in shares
    ]


def case(size: str, dtype: str, share: float) -> str:
    return f"{size} {dtype}, active share {share} (bound {1 / share:.1f}x)"


def measure(contenders: Mapping[str, Contender], turns: int) -> dict[str, Timing]:
    """Milliseconds per token of each contender, taking turns."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 1000, (PROMPT + turns * TURN,), generator=generator).tolist()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender.ready()
        for token in tokens[:PROMPT]:
            contender.step(token)
    for turn in range(turns):
        start = PROMPT + turn * TURN
        for name, contender in contenders.items():
            contender.ready()
            for token in tokens[start : start + TURN]:
                before = time.perf_counter()
                contender.step(token)
                times[name].append(1e3 * (time.perf_counter() - before))
    return {name: summarise(ms) for name, ms in times.items()}


def loading(size: str, rounds: int = 5) -> list[Row]:
    """Seconds from a checkpoint directory (in the page cache) to an engine, per dtype."""
    rows = []
    disable_progress_bar()  # of the one weight file
    with tempfile.TemporaryDirectory() as folder:
        random_model(f"spikeloom-{size}").save_pretrained(folder)
        for dtype in DTYPES:
            seconds = []
            for _ in range(rounds):
                before = time.perf_counter()
                Engine.load(folder, dtype)
                seconds.append(time.perf_counter() - before)
            middle, spread = summarise(seconds)
            bound = (1.0, "the bound that was asked for", "s", 1.0)
            rows.append(Row(f"{size} {dtype}, load", device_name("cpu"), middle, *bound, spread))
    return rows


def _is_peer(name: str) -> bool:
    return name not in (IN_TORCH, IN_OURS) and name not in map(str, SHARES)


def _target(name: str, dtype: str) -> float | None:
    if name == IN_TORCH:
        return TARGETS[dtype]
    return next((t for known, t in PEER_TARGETS.items() if name.startswith(known)), None)
