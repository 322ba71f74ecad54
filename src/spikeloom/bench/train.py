"""Training speed: spiking beside its dense twin, the Trainer beside a bare loop of the same step.

A bare loop is a model under `torch.compile`, mixed precision, clipping and the preset's optimizer,
fed with batches that wait on the device: nothing but the step. Models take turns, block by block.
`spikeloom train` is then run on a file of text, data loading, metering and log included, and its
speed is read from its own log, with compilation left out.
"""

from __future__ import annotations

import gc
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spikeloom.bench.kernel_profile import kernels_of, table
from spikeloom.bench.neuron_peers import say
from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, summarise
from spikeloom.config import RunConfig, TrainingConfig, load_config
from spikeloom.data.python_docs import python_docs
from spikeloom.model import active_share, fed_weights
from spikeloom.training.compiling import compiled
from spikeloom.training.optimizers import make_optimizer
from spikeloom.training.train import make_model, mixed_precision, train
from spikeloom.training.twin import twin_of

PRESETS = {"cuda": ("spikeloom-15m", "spikeloom-125m"), "cpu": ("spikeloom-1m",)}
TARGET_SPEED, TARGET_MEMORY, TARGET_TRAINER, TARGET_LOSS = 0.75, 1 / 1.25, 0.9, 0.98
BLOCKS, MICRO_BATCHES = 7, 4  # of a block at least
TRAINER_TOKENS = 6_000_000
LOGGED = {"cuda": 10, "cpu": 5}  # steps between two lines of the Trainer's log; 10 by default


def run(device: str, options: Options = ALL) -> Iterator[Row]:
    """Rows for every preset of that device; a CPU compiles nothing and takes the smallest one."""
    for preset in options.select(PRESETS[device], quick=1):
        yield from measure(preset, device, options)


def measure(preset: str, device: str, options: Options = ALL) -> Iterator[Row]:
    """Against the dense twin in time and (GPU) memory; the rate loss; the Trainer."""
    torch.set_float32_matmul_precision("high")
    spiking, where = with_whole_dead_zones(preset, device), device_name(device)
    peers = {"spiking": spiking, "dense twin": twin_of(spiking, "dense")}
    loops, times = side_by_side(peers, device, 3 if options.quick else BLOCKS)
    yield _speed_row(preset, loops, times, "dense twin", TARGET_SPEED)
    if device == "cuda" and options.profile:
        for name, loop in loops.items():
            say(table(f"{preset}, {name}", kernels_of(loop.block), loop.steps))
    speed = loops["spiking"].tokens_per_second(times["spiking"])
    del loops
    if not options.quick:
        gc.collect()
        ours, case = trainer_speed(spiking, device), f"{preset}, spikeloom train"
        yield Row(case, where, ours, speed, "our bare loop", "tokens/s", TARGET_TRAINER)
    if device == "cuda":
        ours, theirs = (memory_held(run) / 2**20 for run in peers.values())
        case, peer = f"{preset}, GPU memory held", "dense twin"
        yield Row(case, where, ours, theirs, peer, "MB", TARGET_MEMORY)
    if not options.quick:
        without = "without the firing-rate loss"
        peers = {"spiking": spiking, without: _without_rate_loss(spiking)}
        yield _speed_row(preset, *side_by_side(peers, device, BLOCKS), without, TARGET_LOSS)


def with_whole_dead_zones(preset: str, device: str, settings: Sequence[str] = ()) -> RunConfig:
    """The preset with its dead zones whole from the start, as for most of its training."""
    compiled_there = f"training.compile={str(device == 'cuda').lower()}"
    run = load_config(preset, [compiled_there, *settings])
    return replace(run, training=replace(run.training, dead_zone_warmup=0.0))


def _speed_row(
    preset: str,
    loops: dict[str, BareLoop],
    times: dict[str, Timing],
    peer: str,
    target: float | None,
) -> Row:
    ours, theirs = (loops[name].tokens_per_second(times[name]) for name in ("spiking", peer))
    where, spread = device_name(loops["spiking"].device), times["spiking"].spread
    return Row(f"{preset}, bare loop", where, ours, theirs, peer, "tokens/s", target, spread)


def memory_held(run: RunConfig) -> int:
    """Bytes that torch holds on the GPU for one model in training, with nothing else there.

    Held, not allocated: what CUDA graphs work in counts as allocated to nobody, and models that
    stand side by side share it.
    """
    torch.compiler.reset()  # graphs of other models, too
    before = _give_back()
    loop = BareLoop(run, "cuda")
    _give_back()  # what compilation took
    loop.block()
    return torch.cuda.memory_reserved() - before


def _give_back() -> int:
    """Give back what is free; the bytes that torch still holds on the GPU."""
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


class BareLoop:
    """One model and the least that trains it.

    Args:
        run: model and recipe; `training.compile` decides on compilation.
        device: `cpu` or `cuda`.

    Attributes:
        tokens_per_block: tokens that one `block` trains on.
    """

    def __init__(self, run: RunConfig, device: str) -> None:
        self.config = run.training
        self.device = device
        with torch.device(device):
            self.model = make_model(run).train()
        self.fed = fed_weights(self.model).to(device)
        self.optimizer = make_optimizer(self.model, self.config)
        self.forward = compiled(self.model, self.config)
        context = self.config.context or run.model.max_position_embeddings
        shape = (self.config.batch_size, context)
        self.batch = torch.randint(run.model.vocab_size, shape, device=device)
        self.steps = max(1, MICRO_BATCHES // self.config.gradient_accumulation)
        self.tokens_per_block = self.steps * self.config.gradient_accumulation * self.batch.numel()
        self.block()  # compiles, and makes the optimizer's state

    def tokens_per_second(self, block: Timing) -> float:
        return 1e3 * self.tokens_per_block / block.ms

    def block(self) -> None:
        for _ in range(self.steps):
            self._step()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _step(self) -> None:
        for _ in range(self.config.gradient_accumulation):
            with torch.autocast(self.device, torch.bfloat16, mixed_precision(self.config.dtype)):
                output = self.forward(input_ids=self.batch, labels=self.batch)
            loss = output.loss
            if self.config.target_active_share is not None:
                share = active_share(output.firing_rates, self.fed)
                loss = loss + (share - self.config.target_active_share).clamp(min=0)
            (loss / self.config.gradient_accumulation).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _without_rate_loss(run: RunConfig) -> RunConfig:
    return replace(run, training=replace(run.training, target_active_share=None))


def side_by_side(
    runs: dict[str, RunConfig], device: str, blocks: int
) -> tuple[dict[str, BareLoop], dict[str, Timing]]:
    """A loop of each, and its time for a block, taken in turns."""
    loops = {name: BareLoop(run, device) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(blocks):
        for name, loop in loops.items():
            begin = time.perf_counter()
            loop.block()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return loops, {name: summarise(ms) for name, ms in times.items()}


def trainer_speed(run: RunConfig, device: str) -> float:
    """Tokens per second of `spikeloom train`, from the second half of its log."""
    per_step = (
        run.training.batch_size
        * run.training.gradient_accumulation
        * (run.training.context or run.model.max_position_embeddings)
    )
    every = LOGGED[device]
    logs = min(max(TRAINER_TOKENS // (per_step * every), 6), 24) if device == "cuda" else 6
    steps = logs * every
    given: dict[str, Any] = {
        "max_steps": steps,
        "log_every": every,
        "checkpoint_every": steps,
        "sample_every": 0,
    }
    config = replace(run.training, **given, eval_tokens=8192)
    with tempfile.TemporaryDirectory() as folder:
        text = _write_text(Path(folder) / "text.jsonl", config, run.model.max_position_embeddings)
        out = Path(folder) / "run"
        train(replace(run, training=config), str(text), out, title="Trainer")
        log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    seconds = {entry["step"]: entry["seconds"] for entry in log if "loss" in entry}
    first, last = logs // 2 * every, steps - every  # the last line may wait for the evaluation
    return (last - first) * per_step / (seconds[last] - seconds[first])


def _write_text(path: Path, config: TrainingConfig, context: int) -> Path:
    """Words of Python's documentation in random order, enough for a batch many times over."""
    words = [word for document in python_docs() for word in document.split()]
    pick = random.Random(0)
    texts = (" ".join(pick.choices(words, k=context)) for _ in range(40 * config.batch_size))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path
