"""Hugging Face's Trainer with what spiking models need: sparsity pressure and safe checkpoints.

`FiringRateMixin` works with any Trainer (TRL's too): it reads the firing rates from the model's
output and adds to the loss, where a target is given,

    rate_weight * max(0, active_share - target_active_share)
    rate_weight * mean over channels of |channel rate of their neuron - target_firing_rate|

The first presses on weights touched and knows no lower bound; the second holds every layer near a
rate, also one that falls silent.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from spikeloom.checkpoint import is_whole, steps
from spikeloom.config import TrainingConfig
from spikeloom.data.conditioning import PLAIN
from spikeloom.errors import TrainingError
from spikeloom.model import active_share, fed_weights, neurons
from spikeloom.training.budget import Budget, learning_rate_factor
from spikeloom.training.compiling import allow_recompilation
from spikeloom.training.curriculum import Curriculum
from spikeloom.training.dead_zone import DeadZoneWarmup
from spikeloom.training.distillation import Teacher
from spikeloom.training.environment import Adaptation
from spikeloom.training.halves import Halves
from spikeloom.training.optimizers import make_optimizer
from spikeloom.training.phases import cut_rows, phase_at
from spikeloom.training.pressure import target_share

STAGING = ".saving"
STATE_FILES = ("trainer_state.json", "optimizer.pt", "scheduler.pt")

if TYPE_CHECKING:
    AnyTrainer = Trainer
else:
    AnyTrainer = object


class FiringRateMixin(AnyTrainer):
    """Adds the firing-rate loss, and meters what the log should show.

    Attributes:
        target_active_share: the share above which firing costs; None for no such loss.
        target_firing_rate: the channel rate that every neuron is held to; None for no such loss.
        rate_weight: loss in nats per unit of active share above its target, or of rate off it.
        last_loss: cross-entropy of the last training batch, a scalar tensor without gradient.
    """

    target_active_share: float | None = None
    target_firing_rate: float | None = None
    last_loss: Tensor
    rate_weight: float = 2.0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if not hasattr(self, "_fed"):
            assert self.model is not None
            self._fed = fed_weights(self.model).to(loss.device)
            self._channels = spiking_channels(self.model).to(loss.device)
            self._metered: list[Tensor] = []
        share = active_share(outputs.firing_rates, self._fed)
        tokens = torch.full_like(share, inputs["input_ids"].numel())
        self._metered.append(torch.stack([loss.detach(), share.detach(), tokens]))
        if model.training:
            self.last_loss = loss.detach().clone()  # a CUDA graph writes over its own
            loss = loss + self.rate_weight * self._pressure(share, outputs.firing_rates)
            loss = loss + self.taught_loss(inputs, outputs)
        return (loss, outputs) if return_outputs else loss

    def _pressure(self, share: Tensor, rates: Tensor) -> Tensor | float:
        """How far firing is off the targets."""
        pressure: Tensor | float = 0.0
        if self.target_active_share is not None:
            pressure = (share - self.target_active_share).clamp(min=0)
        if self.target_firing_rate is not None:
            off = (rates.float() - self.target_firing_rate).abs()
            pressure = pressure + (off * self._channels).sum()
        return pressure

    def taught_loss(self, inputs: dict[str, Tensor | Any], outputs: Any) -> Tensor | float:
        """What a teacher adds to the loss of a training batch, if there is one."""
        return 0.0

    def take_metered(self) -> tuple[float, float] | None:
        """Mean cross-entropy and active share since the last call, rows weighed by their length;
        None if nothing ran."""
        metered, self._metered = getattr(self, "_metered", []), []
        if not metered:
            return None
        loss, share, tokens = torch.stack(metered).unbind(1)
        total = tokens.sum()
        return float((loss * tokens).sum() / total), float((share * tokens).sum() / total)


def spiking_channels(model: nn.Module) -> Tensor:
    """Share of all spiking channels that each neuron has, `[N]`; 0 for wires."""
    sizes = [m.size if m.spikes else 0 for m in neurons(model).values()]
    total = max(sum(sizes), 1)
    return torch.tensor([size / total for size in sizes])


class SpikeTrainer(FiringRateMixin, Trainer):
    """Trainer for `spikeloom train`: budget-driven schedule, honest log, atomic checkpoints.

    Args:
        config: the training part of a run.
        budget: how long the run lasts.
        tokens_per_byte: of the training text, to log bits per byte; None where none is predicted.
        eval_tokens_per_byte: of the evaluation text.

    Attributes:
        context: tokens per row of the phase under way (`spikeloom.training.phases`).
        curriculum: where training batches come from, in place of the training rows; or None.
    """

    def __init__(
        self,
        *args: Any,
        config: TrainingConfig,
        budget: Budget,
        tokens_per_byte: float | None = None,
        eval_tokens_per_byte: float | None = None,
        **kwargs: Any,
    ) -> None:
        self._staging: Path | None = None
        super().__init__(*args, **kwargs)
        self.config = config
        self.budget = budget
        self.context = config.longest_context or 0
        self.target_active_share = config.target_active_share
        self.target_firing_rate = config.target_firing_rate
        self.rate_weight = config.rate_weight
        assert self.model is not None
        self.dead_zone = DeadZoneWarmup(self.model, budget, config.dead_zone_warmup)
        self.add_callback(self.dead_zone)
        self.add_callback(Adaptation(self.model, lambda: self.last_loss))
        if config.halves is not None:
            self.add_callback(Halves(self.model, budget, config))
        if config.compile and config.dead_zone_warmup:
            allow_recompilation(self.model)
        self.curriculum: Curriculum | None = None
        self.teacher: Teacher | None = None
        if config.teacher is not None:
            self.teacher = Teacher(config, self.processing_class, self.args.device)
        self._tokens_per_byte = {"": tokens_per_byte, "eval_": eval_tokens_per_byte}

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        progress = self.budget.progress(self.state.global_step)
        self.target_active_share = target_share(self.config, progress)
        return super().training_step(model, self._form(inputs, progress), num_items_in_batch)

    def _form(self, inputs: dict[str, Any], progress: float) -> dict[str, Any]:
        """Rows of this phase's length, or rows with metadata, in the cool-down without."""
        if self.config.phases:
            self.context = phase_at(progress, self.config.phases).context
            return cut_rows(inputs, self.context)
        plain = {k.removeprefix(PLAIN): v for k, v in inputs.items() if k.startswith(PLAIN)}
        if plain and progress >= 1.0 - self.config.metadata_cooldown:
            return plain
        return {k: v for k, v in inputs.items() if not k.startswith(PLAIN)}

    def taught_loss(self, inputs: dict[str, Tensor | Any], outputs: Any) -> Tensor | float:
        if self.teacher is None:
            return 0.0
        return self.config.teacher_weight * self.teacher.divergence(inputs, outputs.logits)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            self.optimizer = make_optimizer(model, self.config)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.create_optimizer() if optimizer is None else optimizer,
                lambda step: learning_rate_factor(self.budget.progress(step), self.config),
            )
        return self.lr_scheduler

    def take_up(self, checkpoint: Path) -> None:
        """Stand where a run stood that had used up its budget, without training on."""
        self.state = TrainerState.load_from_json(str(checkpoint / STATE_FILES[0]))
        self._locate_best(checkpoint.name)
        best = self.state.best_model_checkpoint
        self._load_from_checkpoint(str(checkpoint) if best is None else best)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As saved, but with the peak learning rate that the config asks for now.

        Whoever resumes after a NaN was told to lower it.
        """
        assert self.optimizer is not None
        peaks = [group["initial_lr"] for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
            if group["initial_lr"] != peak:
                group["lr"] *= peak / group["initial_lr"]
                group["initial_lr"] = peak
        scheduler: Any = self.lr_scheduler
        scheduler.base_lrs = [group["initial_lr"] for group in self.optimizer.param_groups]
        scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]  # for the log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the plain cross-entropy (not the sum with the firing-rate loss) and the share."""
        logs["seconds"] = round(self.budget.seconds, 3)
        prefix = "eval_" if "eval_loss" in logs else ""
        if f"{prefix}loss" in logs and (metered := self.take_metered()) is not None:
            if not prefix:
                logs["loss"] = metered[0]
            if (ratio := self._tokens_per_byte[prefix]) is not None:
                logs[f"{prefix}bits_per_byte"] = logs[f"{prefix}loss"] * ratio / math.log(2)
            logs[f"{prefix}active_share"] = metered[1]
            if self.config.phases and not prefix:
                logs["context"] = self.context
            self._check_finite(logs[f"{prefix}loss"])
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Tensor | Any]) -> int:
        """None are counted: the Trainer's estimate walks through the model at every step, and knows
        nothing of spikes (`spikeloom.metrics.synops` does)."""
        return 0

    def get_train_dataloader(self) -> DataLoader:
        """As in Trainer, unless a curriculum has the say."""
        if self.curriculum is not None:
            return self.curriculum.loader()
        return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As in Trainer, down to the last row: only training wants batches of one size."""
        self.args.dataloader_drop_last = False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = True

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in Trainer, with what was metered in training set aside meanwhile."""
        training, self._metered = getattr(self, "_metered", []), []
        metrics = super().evaluate(*args, **kwargs)
        self._metered = training
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        pickled = (self._out if output_dir is None else Path(output_dir)) / "training_args.bin"
        pickled.unlink(missing_ok=True)  # run.json says the same, and needs no unpickling

    @property
    def _out(self) -> Path:
        assert self.args.output_dir is not None
        return Path(self.args.output_dir)

    def _check_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        saved = resumable(self._out)
        kept = f"the last good checkpoint is {saved[-1]}" if saved else "nothing was saved yet"
        raise TrainingError(
            f"the loss became {loss} at step {self.state.global_step}; {kept}; "
            "lower training.learning_rate or training.clip and --resume"
        )

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write the checkpoint beside its place and rename it there when it is whole.

        A process killed while saving leaves a staging folder that nobody reads; the checkpoint
        before it stays the newest one.
        """
        if (metered := getattr(self, "_metered", [])) and not torch.stack(metered).isfinite().all():
            self._check_finite(math.nan)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._staging = self._out / STAGING
        try:
            with saving(self._out / name):
                super()._save_checkpoint(model, trial)
                self._locate_best(name)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    self._publish(name)
        finally:
            if self.args.should_save:
                shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None
        self.accelerator.wait_for_everyone()  # others may want to load what was published

    def _locate_best(self, saved: str) -> None:
        """Name the best checkpoint by where it lies now: not in staging, nor in a moved folder."""
        best = self._out / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        known = best.name == saved or best.is_dir()
        self.state.best_model_checkpoint = str(best) if known else None

    def _publish(self, name: str) -> None:
        staged, place = self._out / STAGING / name, self._out / name
        self.state.save_to_json(str(staged / STATE_FILES[0]))
        if place.exists():  # damaged, or we would have resumed from it
            os.replace(place, self._out / STAGING / "replaced")
        os.replace(staged, place)
        kept = {self.state.best_model_checkpoint}
        for old in steps(self._out)[: -self.config.keep]:
            if str(old) not in kept:
                shutil.rmtree(old, ignore_errors=True)


def resumable(out: Path) -> list[Path]:
    """The checkpoints of a run that training can go on from, oldest first."""
    return [
        p for p in steps(out) if is_whole(p) and all((p / name).exists() for name in STATE_FILES)
    ]


@contextmanager
def saving(what: Path) -> Iterator[None]:
    """Turn what a disk may refuse into one line."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f"{what} could not be saved ({why}); earlier checkpoints are untouched: "
            "make room on the disk and --resume"
        ) from error
