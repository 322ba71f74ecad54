"""`spikeloom train --backend …`: the loop around any learner but PyTorch's.

Text, tokenizer, budget, display and directory are those of `spikeloom.training`; the learner makes
the updates. The directory holds the best weights so far from the first evaluation on.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import TrainerState

from spikeloom.backends.weights import Array
from spikeloom.config import RunConfig, TrainingConfig
from spikeloom.errors import TrainingError
from spikeloom.strict import to_dict
from spikeloom.training.budget import Budget, learning_rate_factor
from spikeloom.training.display import Display
from spikeloom.training.memory import keep_freed_memory
from spikeloom.training.rows import HeldOut, Rows, make_rows, tokens_per_byte
from spikeloom.training.run_directory import claim, record, staged
from spikeloom.training.train import (
    Result,
    count_tokens_per_step,
    fit_to_tokenizer,
    make_tokenizer,
)


class Learner(Protocol):
    """A model in training."""

    def step(self, batches: Sequence[Array], factor: float, progress: float) -> tuple[float, float]:
        """One update: rows `[B, L]` per accumulation, share of the peak learning rate, progress.

        Returns loss and active share.
        """

    def evaluate(self, rows: Array) -> tuple[float, float]:
        """Loss and active share of rows `[B, L]`."""

    def save(self, directory: Path) -> None:
        """`config.json` and `model.safetensors`."""


def train(
    make_learner: Callable[[RunConfig], Learner],
    run: RunConfig,
    data: str,
    out: str | Path,
    *,
    eval_data: str | None = None,
    tokenizer: str | None = None,
    title: str = "training",
) -> Result:
    """Train a model from scratch; arguments, result and errors as `spikeloom.training.train`."""
    out, run = Path(out), run.with_context()
    tokens_per_step = count_tokens_per_step(run.training)
    budget = Budget.of(run.training, tokens_per_step)
    claim(out, run, resume=False)
    words = make_tokenizer(run, data, out, tokenizer)
    run = fit_to_tokenizer(run, words)
    rows, held_out = make_rows(run.training, data, eval_data, words)
    record(out, words, {**to_dict(run), "data": data, "eval_data": eval_data})
    keep_freed_memory()
    if run.training.sample_every:
        print("this backend draws no samples while it trains", file=sys.stderr)
    loop = Loop(make_learner(run), run.training, budget, rows, held_out, out)
    return loop.run(Display(budget, tokens_per_step, title), tokens_per_step)


class Loop:
    """Updates until the budget is used up, evaluating and saving every `checkpoint_every` steps."""

    def __init__(
        self,
        learner: Learner,
        config: TrainingConfig,
        budget: Budget,
        rows: Rows,
        held_out: HeldOut,
        out: Path,
    ) -> None:
        self.learner, self.config, self.budget = learner, config, budget
        self.rows, self.held_out, self.out = rows, held_out, out
        self.best: dict[str, Any] = {"eval_loss": math.inf}

    def run(self, display: Display, tokens_per_step: int) -> Result:
        """Train, and report what the best evaluation found."""
        state, batches, metered = TrainerState(), self.batches(), []
        self.budget.start()
        display.on_train_begin(None, state, None)
        while (progress := self.budget.progress(state.global_step)) < 1.0:
            rows = [next(batches) for _ in range(self.config.gradient_accumulation)]
            factor = learning_rate_factor(progress, self.config)
            metered.append(self.learner.step(rows, factor, progress))
            state.global_step += 1
            self.budget.read_clock()
            display.on_step_end(None, state, None)
            ends = self.budget.progress(state.global_step) >= 1.0
            if ends or state.global_step % self.config.log_every == 0:
                display.on_log(None, state, None, self.figures("", metered, self.rows))
                metered = []
            if ends or state.global_step % self.config.checkpoint_every == 0:
                display.on_log(None, state, None, self.evaluate(state.global_step, tokens_per_step))
        display.on_train_end(None, state, None)
        used = {"steps": state.global_step, "tokens": state.global_step * tokens_per_step}
        return Result(self.out, {**used, "seconds": round(self.budget.seconds, 1), **self.best})

    def batches(self) -> Iterator[Array]:
        """Rows `[B, L]` in a random order, drawn anew each time all were seen."""
        rng, size = np.random.default_rng(self.config.seed), self.config.batch_size
        while True:
            order = rng.permutation(len(self.rows))
            for i in range(0, len(order) - size + 1, size):
                yield take(self.rows, order[i : i + size])

    def evaluate(self, step: int, tokens_per_step: int) -> dict[str, Any]:
        """Figures of the held-out rows; the weights are saved if they are the best so far."""
        size, count = self.config.batch_size, len(self.held_out)
        parts = [range(i, min(i + size, count)) for i in range(0, count, size)]
        scores = [self.learner.evaluate(take(self.held_out, part)) for part in parts]
        figures = self.figures("eval_", scores, self.held_out, [len(part) for part in parts])
        if figures["eval_loss"] < self.best["eval_loss"]:
            self.best = figures
            with staged(self.out) as staging:
                self.learner.save(staging)
                report = {"steps": step, "tokens": step * tokens_per_step, **figures}
                (staging / "training.json").write_text(json.dumps(report, indent=2))
        return figures

    def figures(
        self,
        prefix: str,
        scores: list[tuple[float, float]],
        rows: Rows,
        weights: list[int] | None = None,
    ) -> dict[str, Any]:
        """Mean loss, bits per byte, active share."""
        loss, share = (float(x) for x in np.average(scores, axis=0, weights=weights))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss}; lower training.learning_rate or training.clip"
            )
        bits = loss * tokens_per_byte(rows.packed) / math.log(2)
        names = ("loss", "bits_per_byte", "active_share")
        return {f"{prefix}{k}": v for k, v in zip(names, (loss, bits, share), strict=True)}


def take(rows: Rows, indices: Sequence[int] | Array) -> Array:
    """Token ids `[B, L]`."""
    return np.stack([rows[int(i)]["input_ids"].numpy() for i in indices])
