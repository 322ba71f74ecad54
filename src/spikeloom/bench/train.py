"""Training speed: spiking beside its dense twin, the Trainer beside a bare loop of the same step.

A bare loop is a model under `torch.compile`, mixed precision, clipping and AdamW, fed with batches
that wait on the device: nothing but the step. Models take turns, block by block. `spikeloom train`
is then run on a file of text, data loading, metering and log included, and its speed is read from
its own log, with compilation left out.
"""

from __future__ import annotations

import gc
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, summarise
from spikeloom.config import RunConfig, TrainingConfig, load_config
from spikeloom.data.python_docs import python_docs
from spikeloom.model import active_share, fed_weights
from spikeloom.training.optimizers import make_optimizer
from spikeloom.training.train import make_model, mixed_precision, train
from spikeloom.training.twin import twin_of

PRESETS = {"cuda": ("spikeloom-15m", "spikeloom-125m"), "cpu": ("spikeloom-1m",)}
TARGET_SPEED, TARGET_MEMORY, TARGET_TRAINER, TARGET_LOSS = 0.75, 1 / 1.25, 0.9, 0.98
BLOCKS, STEPS = 9, 4
LOGGED = 10  # steps between two lines of the Trainer's log


def run(device: str) -> list[Row]:
    """Rows for every preset of that device; a CPU compiles nothing and takes the smallest one."""
    return [row for preset in PRESETS[device] for row in measure(preset, device)]


def measure(preset: str, device: str) -> list[Row]:
    """Against the dense twin in time and (GPU) memory; the rate loss; the Trainer."""
    torch.set_float32_matmul_precision("high")
    spiking = load_config(preset, [f"training.compile={str(device == 'cuda').lower()}"])
    spiking = replace(spiking, training=replace(spiking.training, dead_zone_warmup=0.0))
    without = replace(spiking, training=replace(spiking.training, target_active_share=None))
    loops = {
        "spiking": BareLoop(spiking, device),
        "without the firing-rate loss": BareLoop(without, device),
        "dense twin": BareLoop(twin_of(spiking, "dense"), device),
    }
    times = _in_turns({name: loop.block for name, loop in loops.items()})
    speed = {name: 1e3 * loops[name].tokens_per_block / t.ms for name, t in times.items()}
    memory = {name: loop.peak_memory / 2**20 for name, loop in loops.items()}
    del loops
    gc.collect()

    where, ours = device_name(device), speed["spiking"]
    rows = []
    for peer, target in (
        ("dense twin", TARGET_SPEED),
        ("without the firing-rate loss", TARGET_LOSS),
    ):
        case, spread = f"{preset}, bare loop", times["spiking"].spread
        rows.append(Row(case, where, ours, speed[peer], peer, "tokens/s", target, spread))
    if device == "cuda":
        case, peer = f"{preset}, peak memory", "dense twin"
        rows.append(Row(case, where, memory["spiking"], memory[peer], peer, "MB", TARGET_MEMORY))
    trained = trainer_speed(spiking, device)
    case, peer = f"{preset}, spikeloom train", "our bare loop"
    return [*rows, Row(case, where, trained, ours, peer, "tokens/s", TARGET_TRAINER)]


class BareLoop:
    """One model and the least that trains it.

    Args:
        run: model and recipe; `training.compile` decides on compilation.
        device: `cpu` or `cuda`.

    Attributes:
        tokens_per_block: tokens that one `block` trains on.
        peak_memory: bytes allocated on a GPU at most, above what was there before this model.
    """

    def __init__(self, run: RunConfig, device: str) -> None:
        self.config = run.training
        self.device = device
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        with torch.device(device):
            self.model = make_model(run).train()
        self.fed = fed_weights(self.model).to(device)
        self.optimizer = make_optimizer(self.model, self.config)
        self.forward: Callable = torch.compile(self.model) if self.config.compile else self.model
        context = self.config.context or run.model.max_position_embeddings
        shape = (self.config.batch_size, context)
        self.batch = torch.randint(run.model.vocab_size, shape, device=device)
        self.tokens_per_block = STEPS * self.config.gradient_accumulation * self.batch.numel()
        self.peak_memory = 0
        self.block()  # compiles, and makes the optimizer's state
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.block()
            self.peak_memory = torch.cuda.max_memory_allocated() - before

    def block(self) -> None:
        for _ in range(STEPS):
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


def _in_turns(blocks: dict[str, Callable[[], None]]) -> dict[str, Timing]:
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for _ in range(BLOCKS):
        for name, block in blocks.items():
            begin = time.perf_counter()
            block()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: summarise(ms) for name, ms in times.items()}


def trainer_speed(run: RunConfig, device: str) -> float:
    """Tokens per second of `spikeloom train`, from the second half of its log."""
    steps = 12 * LOGGED if device == "cuda" else 4 * LOGGED
    given: dict[str, Any] = {
        "max_steps": steps,
        "log_every": LOGGED,
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
    first, last = steps // 2, steps - LOGGED  # the last line may wait for the evaluation
    per_step = config.batch_size * config.gradient_accumulation * run.model.max_position_embeddings
    return (last - first) * per_step / (seconds[last] - seconds[first])


def _write_text(path: Path, config: TrainingConfig, context: int) -> Path:
    """Words of Python's documentation in random order, enough for a batch many times over."""
    words = [word for document in python_docs() for word in document.split()]
    pick = random.Random(0)
    texts = (" ".join(pick.choices(words, k=context)) for _ in range(40 * config.batch_size))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path
