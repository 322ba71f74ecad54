"""What a run shows while it lasts: a live bar on a terminal, plain lines elsewhere, samples."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from spikeloom.training.budget import Budget

SECONDS_BETWEEN_LINES = 10.0


class Display(TrainerCallback):
    """Progress bar with loss, bits per byte, active share and speed; one printed line per event.

    Args:
        budget: what the bar counts.
        tokens_per_step: to show tokens per second.
        title: what stands before the bar.
    """

    def __init__(self, budget: Budget, tokens_per_step: int, title: str) -> None:
        self.budget = budget
        self.tokens_per_step = tokens_per_step
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn(title),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=1.0, figures="")
        self._first = (0, 0.0)
        self._last_line = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first = (state.global_step, time.monotonic())
        if state.is_world_process_zero:
            self.bar.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.stop()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(self.task, completed=self.budget.progress(state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if "eval_loss" in logs:
            self.console.print(f"step {state.global_step}: held-out {_figures(logs, 'eval_')}")
        elif "loss" in logs:
            figures = f"{_figures(logs)} · {self._speed(state.global_step):,.0f} tok/s"
            self.bar.update(self.task, figures=figures)
            self._line(state.global_step, figures)

    def _speed(self, step: int) -> float:
        seconds = max(time.monotonic() - self._first[1], 1e-9)
        return (step - self._first[0]) * self.tokens_per_step / seconds

    def _line(self, step: int, figures: str) -> None:
        """Without a terminal, a line every now and then instead of the bar."""
        if self.bar.disable and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            share = self.budget.progress(step)
            print(f"step {step} ({share:.0%}): {figures}", file=sys.stderr, flush=True)


class Sampler(TrainerCallback):
    """Prints a short continuation now and then, so that one sees the model learn.

    Args:
        tokenizer: of the model.
        console: where to print.
        every: optimizer steps between samples.
        prompt: how the text begins; None starts a document.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        console: Console,
        every: int,
        prompt: str | None = None,
    ) -> None:
        self.tokenizer, self.console, self.every, self.prompt = tokenizer, console, every, prompt

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and state.global_step % self.every == 0:
            text = sample(model, self.tokenizer, self.prompt)
            self.console.print(f"step {state.global_step}: “{text}”", style="dim", markup=False)


def sample(model: Any, tokenizer: Any, prompt: str | None, tokens: int = 40) -> str:
    """A continuation of `tokens` tokens at temperature 0.8, without touching the global RNG."""
    ids = [tokenizer.bos_token_id, *tokenizer.encode(prompt or "", add_special_tokens=False)]
    training = model.training
    model.eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        out = model.generate(
            torch.tensor([ids], device=model.device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=model.device),
            min_new_tokens=tokens // 4,
            max_new_tokens=tokens,
            do_sample=True,
            temperature=0.8,
            top_p=0.95,
            pad_token_id=tokenizer.pad_token_id,
        )
    model.train(training)
    text = tokenizer.decode(out[0], skip_special_tokens=True)
    return " ".join(text.split())


def _figures(logs: dict[str, float], prefix: str = "") -> str:
    forms = {
        "loss": "loss {:.3f}",
        "bits_per_byte": "{:.3f} bits/byte",
        "f1": "F1 {:.3f}",
        "accuracy": "accuracy {:.3f}",
        "active_share": "active share {:.2f}",
    }
    there = {name: logs[prefix + name] for name in forms if prefix + name in logs}
    return " · ".join(forms[name].format(value) for name, value in there.items())
