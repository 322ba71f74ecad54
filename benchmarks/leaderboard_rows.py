"""What the leaderboard trains: the rows of leaderboard.yaml, each at several learning rates."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from spikeloom.config import ModelConfig
    from spikeloom.model import SpikeloomConfig

ROWS = Path(__file__).with_name("leaderboard.yaml")
SIZES = ("6m", "15m")
VOCABULARY = 4096  # tokens of the one tokenizer, whatever a preset says


@dataclass(frozen=True)
class Row:
    """A row at one size: what `spikeloom train` is told, but for the learning rate.

    Attributes:
        name, what: of the row; `what` is one line for the page.
        size: one of `SIZES`.
        preset, twin: as of `spikeloom train`.
        settings: its `--set` options.
        rates: the learning rates to try.
    """

    name: str
    what: str
    size: str
    preset: str
    twin: str | None
    settings: tuple[str, ...]
    rates: tuple[float, ...]

    def config(self, settings: Sequence[str] = ()) -> SpikeloomConfig:
        """The architecture with the one tokenizer's vocabulary; `settings` win over the row's."""
        from spikeloom.model import SpikeloomConfig

        told = self.architecture(settings).__dict__
        return SpikeloomConfig(**{**told, "vocab_size": VOCABULARY})

    def architecture(self, settings: Sequence[str] = ()) -> ModelConfig:
        from spikeloom.config import load_config
        from spikeloom.training.twin import twin_of

        return twin_of(load_config(self.preset, [*self.settings, *settings]), self.twin).model

    @property
    def kind(self) -> str:
        """`spiking`, `quantised` or `dense`."""
        from spikeloom.evaluation.compare import kind

        return kind(self.architecture())

    @property
    def parameters(self) -> int:
        import torch

        from spikeloom.model import SpikeloomForCausalLM

        with torch.device("meta"):
            return SpikeloomForCausalLM(self.config()).num_parameters()


@dataclass(frozen=True)
class Run:
    """A row at one learning rate."""

    row: Row
    rate: float

    def __str__(self) -> str:
        return f"{self.row.size} {self.row.name} at {self.rate:g}"

    @property
    def folder(self) -> Path:
        """Where everything of such runs is kept, below a directory: `SIZE/RATE`."""
        return Path(self.row.size) / f"{self.rate:g}"

    def command(self, data: Path, out: Path, max_tokens: int, extra: Sequence[str]) -> list[str]:
        """The arguments of `spikeloom`; `extra` settings win over the row's."""
        twin = [] if self.row.twin is None else ["--twin", self.row.twin]
        told = [*self.row.settings, *extra, f"training.learning_rate={self.rate:g}"]
        settings = [part for setting in told for part in ("--set", setting)]
        budget = ["--max-tokens", str(max_tokens)]
        return ["train", self.row.preset, *twin, "--data", str(data), "--out", str(out), *budget,
                *settings]  # fmt: skip


def rows(size: str, only: Sequence[str] = (), file: Path = ROWS) -> list[Row]:
    """The rows of leaderboard.yaml at one size, in order, or only those named.

    Raises:
        SystemExit: there is no row of such a name.
    """
    tree = yaml.safe_load(file.read_text("utf-8"))
    if unknown := set(only) - set(tree["rows"]):
        raise SystemExit(f"error: --only {min(unknown)}: the rows are {', '.join(tree['rows'])}")
    made = []
    for name, row in tree["rows"].items():
        told = {**tree["shared"], **row[size].get("set", {})}
        settings = tuple(f"{key}={json.dumps(value)}" for key, value in told.items())
        rates = tuple(row.get("rates", tree["rates"]))
        where = (row[size]["preset"], row.get("twin"))
        made.append(Row(name, row["what"], size, *where, settings, rates))
    return [row for row in made if not only or row.name in only]


def runs(rows: Sequence[Row], rates: Sequence[float] = ()) -> list[Run]:
    """Every row at its first rate, then at its second, and so on; at `rates` if there are any.

    So whatever there is time for, most rows have something to show.
    """
    tried = [(i, Run(row, rate)) for row in rows for i, rate in enumerate(rates or row.rates)]
    return [run for _, run in sorted(tried, key=lambda pair: pair[0])]


def shell(command: Sequence[str]) -> str:
    """A command of `spikeloom`, for people to copy."""
    return f"spikeloom {shlex.join(command)}"
