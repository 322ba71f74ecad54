"""A curriculum: from words to conversations, each phase until the loss converges.

`phases.yaml` (of `spikeloom data curriculum`) lists the phases in order:

    phases:
      - {name: words, data: words.jsonl, context: 8, share: 0.05}

A phase ends when it has used its share of the budget, or before that when its loss has converged:
the loss is smoothed over about 50 steps, and looked at every `training.converged_over` steps of the
phase; it has converged if it fell by less than the share `training.converged` of itself since the
last look. What a phase leaves of its share goes to the last one, which lasts to the end.

Every step reads as many tokens, whatever the phase: rows are shorter, so there are more of them.
A batch follows from the seed, the phase and its number in the phase. So all there is to remember
is a handful of numbers; they are in `trainer_state.json` of every checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from spikeloom.config import TrainingConfig
from spikeloom.data.curriculum import PHASES_FILE
from spikeloom.data.packing import Part, TokenRows, pack
from spikeloom.errors import CheckpointError, DataError
from spikeloom.strict import build, parse_yaml, require
from spikeloom.training.budget import Budget

SMOOTHING = 0.02  # share of a step's loss in the smoothed loss


@dataclass(frozen=True)
class Phase:
    """One entry of `phases.yaml`.

    Attributes:
        name: what it is called.
        data: file of its texts, beside `phases.yaml`.
        context: tokens in a row.
        share: of the budget that it may use.
    """

    name: str
    data: str
    context: int
    share: float

    def __post_init__(self) -> None:
        require(self.context >= 2, "context", self.context, "at least 2 tokens")
        require(0 < self.share <= 1, "share", self.share, "a share of the budget in (0, 1]")


@dataclass(frozen=True)
class _Phases:
    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        require(len(self.phases) >= 1, "phases", "[]", "at least one phase")


def read_phases(directory: str | Path) -> tuple[Phase, ...]:
    """The phases of a curriculum.

    Raises:
        DataError: there is no readable `phases.yaml`, or it names a file that is not there.
        ConfigError: a key is unknown, or a value impossible.
    """
    directory = Path(directory)
    file = directory / PHASES_FILE
    try:
        tree = parse_yaml(file.read_text("utf-8"))
    except FileNotFoundError:
        made = "`spikeloom data curriculum` makes one"
        raise DataError(f"{directory} is no curriculum: it has no {PHASES_FILE}; {made}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: not readable as YAML ({str(error).splitlines()[0]})") from None
    phases: tuple[Phase, ...] = build(_Phases, tree, str(file)).phases
    for i, phase in enumerate(phases):
        if not (directory / phase.data).is_file():
            raise DataError(f"{file}: phases[{i}].data: there is no {directory / phase.data}")
    return phases


def all_data(directory: str | Path) -> str:
    """SOURCE of the texts of all phases together."""
    return ",".join(str(Path(directory) / phase.data) for phase in read_phases(directory))


class Curriculum(TrainerCallback, ExportableState):
    """Which phase a run is in, and the batches of that phase.

    Args:
        phases: in order.
        rows: of each phase, cut to its context.
        config: of the run; its `context * batch_size` is the number of tokens in a batch.
        budget: tells the progress.
        rank, world: this process among all; they read different rows.

    Attributes:
        phase: index of the phase.
        taken: batches read in it.
        steps: optimizer steps made in it.
        entered: progress of the run when it began.
        smoothed, looked: the smoothed loss now, and at the last look; None before the first.
        history: `[name, last step, why it ended]` of the phases before.
        trainer: whose `last_loss` is watched.
    """

    _SAVED = ("phase", "taken", "steps", "entered", "smoothed", "looked", "history")

    def __init__(
        self,
        phases: tuple[Phase, ...],
        rows: list[TokenRows],
        config: TrainingConfig,
        budget: Budget,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        assert config.context is not None
        self.phases, self.rows, self.config, self.budget = phases, rows, config, budget
        self.rank, self.world = rank, world
        self.tokens = config.context * config.batch_size
        self.trainer: Any = None
        self.phase = self.taken = self.steps = 0
        self.entered = 0.0
        self.smoothed: float | None = None
        self.looked: float | None = None
        self.history: list[list[Any]] = []

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in the Trainer's words."""
        return {"args": {}, "attributes": {name: getattr(self, name) for name in self._SAVED}}

    def take_over(self, trainer: Any, checkpoint: Path | None) -> None:
        """Feed a trainer, from the start or from where a checkpoint stands."""
        self.trainer = trainer
        trainer.curriculum = self
        trainer.add_callback(self)
        trainer.args.ignore_data_skip = True  # what was read is known here
        if checkpoint is not None:
            self.take_up(checkpoint)

    def take_up(self, checkpoint: Path) -> None:
        """Go on where a checkpoint stands, in the middle of a phase.

        Raises:
            CheckpointError: it was saved without a curriculum, or in a phase that is not here.
        """
        saved = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        kept = saved.get("stateful_callbacks", {}).get(type(self).__name__)
        if kept is None:
            raise CheckpointError(f"{checkpoint} was trained without a curriculum")
        if kept["attributes"]["phase"] >= len(self.phases):
            raise CheckpointError(f"{checkpoint}: its curriculum has more phases than this one")
        for name in self._SAVED:
            setattr(self, name, kept["attributes"][name])

    def loader(self) -> DataLoader:
        """Batches without end. It reads not one ahead, so that it follows the phase at once."""
        return DataLoader(_Batches(self), batch_size=None)

    def next_batch(self) -> dict[str, Tensor]:
        """The next batch of the phase: `input_ids` and `labels`, `[n, context]`."""
        rows = self.rows[self.phase]
        n = max(1, self.tokens // rows.context)
        first = (self.taken * self.world + self.rank) * n
        self.taken += 1
        batch = [rows[self._shuffled(first + i)] for i in range(n)]
        return {key: torch.stack([row[key] for row in batch]) for key in batch[0]}

    def _shuffled(self, place: int) -> int:
        """Which row stands at a place of the phase's endless order: epoch after epoch."""
        size = len(self.rows[self.phase])
        epoch, within = divmod(place, size)
        if (key := (self.phase, epoch)) != getattr(self, "_order_of", None):
            seed = hash((self.config.seed, *key)) % 2**63
            self._order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
            self._order_of = key
        return int(self._order[within])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Smooth the loss, and go to the next phase where it is time."""
        self.steps += 1
        loss = _of_the_first(float(self.trainer.last_loss))
        before = loss if self.smoothed is None else self.smoothed
        self.smoothed = before + SMOOTHING * (loss - before)
        progress = self.budget.progress(state.global_step)
        reason = self._reason_to_go_on(progress)
        if reason is not None and self.phase + 1 < len(self.phases):
            self._enter(state, progress, reason)

    def _reason_to_go_on(self, progress: float) -> str | None:
        if progress - self.entered >= self.phases[self.phase].share:
            return "its share of the budget is used"
        if self.steps % self.config.converged_over:
            return None
        assert self.smoothed is not None
        last, self.looked = self.looked, self.smoothed
        fell = last is None or last - self.smoothed >= self.config.converged * last
        return None if fell else "its loss has converged"

    def _enter(self, state: Any, progress: float, reason: str) -> None:
        """Begin the next phase."""
        done, new = self.phases[self.phase], self.phases[self.phase + 1]
        self.history.append([done.name, state.global_step, reason])
        self.phase, self.taken, self.steps, self.entered = self.phase + 1, 0, 0, progress
        self.smoothed = self.looked = None
        if state.is_world_process_zero:
            line = f"step {state.global_step}: {done.name}: {reason}; now {new.name}"
            Console(stderr=True).print(line, highlight=False)


def _of_the_first(loss: float) -> float:
    """The loss of the first process, for all: they must change phases together."""
    reading = [loss]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(reading)
    return reading[0]


class _Batches(IterableDataset):
    def __init__(self, curriculum: Curriculum) -> None:
        self.curriculum = curriculum

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield self.curriculum.next_batch()


def make_curriculum(
    directory: str | Path, config: TrainingConfig, budget: Budget, words: Any, part: Part
) -> Curriculum:
    """Read and tokenise a curriculum, for this process among all.

    Args:
        directory: with `phases.yaml`.
        config, budget: of the run; a phase's context is at most the run's.
        words: the tokenizer.
        part: of each text; `train` leaves out what is held out.

    Raises:
        DataError, ConfigError: see `read_phases`; a phase has not one row; or the run asks for
            what only plain rows have.
    """
    for name in ("metadata", "phases", "chat"):
        value = getattr(config, name)
        require(not value, f"training.{name}", value, "off: a curriculum brings rows of its own")
    assert config.context is not None
    phases, rows = read_phases(directory), []
    for phase in phases:
        packed = pack(str(Path(directory) / phase.data), words, part=part)
        context = min(phase.context, config.context)
        if len(packed) < context:
            short = f"{len(packed)} tokens, a row has {context}"
            raise DataError(f"{directory}: the phase {phase.name} has {short}: use more text")
        rows.append(TokenRows(packed, context, position_ids=config.separate_documents))
    rank, world = (int(os.environ.get(*place)) for place in (("RANK", "0"), ("WORLD_SIZE", "1")))
    return Curriculum(phases, rows, config, budget, rank, world)
