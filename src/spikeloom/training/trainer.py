"""Hugging Face's Trainer with what spiking models need: sparsity pressure and safe checkpoints.

`FiringRateMixin` works with any Trainer (TRL's too): it reads the firing rates from the model's
output and adds `rate_weight * max(0, active_share - target)` to the loss.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from spikeloom.config import TrainingConfig
from spikeloom.errors import TrainingError
from spikeloom.model import active_share, fed_weights
from spikeloom.training.budget import Budget, learning_rate_factor
from spikeloom.training.optimizers import make_optimizer

STAGING = ".saving"


class FiringRateMixin:
    """Adds the firing-rate loss, and meters what the log should show.

    Attributes:
        target_active_share: the share above which firing costs; None for no such loss.
        rate_weight: loss in nats per unit of active share above the target.
    """

    target_active_share: float | None = None
    rate_weight: float = 2.0

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)  # type: ignore[misc]
        if not hasattr(self, "_fed"):
            self._fed = fed_weights(self.model).to(loss.device)  # type: ignore[attr-defined]
            self._metered: list[Tensor] = []
        share = active_share(outputs.firing_rates, self._fed)
        self._metered.append(torch.stack([loss.detach(), share.detach()]))
        if self.target_active_share is not None and model.training:
            loss = loss + self.rate_weight * (share - self.target_active_share).clamp(min=0)
        return (loss, outputs) if return_outputs else loss

    def take_metered(self) -> tuple[float, float] | None:
        """Mean cross-entropy and active share since the last call; None if nothing ran."""
        metered, self._metered = getattr(self, "_metered", []), []
        if not metered:
            return None
        loss, share = torch.stack(metered).mean(0).tolist()
        return loss, share


class SpikeTrainer(FiringRateMixin, Trainer):
    """Trainer for `spikeloom train`: budget-driven schedule, honest log, atomic checkpoints.

    Args:
        config: the training part of a run.
        budget: how long the run lasts.
        tokens_per_byte: of the training text, to log bits per byte.
        eval_tokens_per_byte: of the evaluation text.
    """

    def __init__(
        self,
        *args: Any,
        config: TrainingConfig,
        budget: Budget,
        tokens_per_byte: float,
        eval_tokens_per_byte: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.config = config
        self.budget = budget
        self.target_active_share = config.target_active_share
        self.rate_weight = config.rate_weight
        self._bits = {
            "": tokens_per_byte / math.log(2),
            "eval_": eval_tokens_per_byte / math.log(2),
        }

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(model or self.model, self.config)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: learning_rate_factor(self.budget.progress(step), self.config),
            )
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the plain cross-entropy (not the sum with the firing-rate loss) and the share."""
        logs["seconds"] = round(self.budget.seconds, 3)
        prefix = "eval_" if "eval_loss" in logs else ""
        if f"{prefix}loss" in logs and (metered := self.take_metered()) is not None:
            if not prefix:
                logs["loss"] = metered[0]
            logs[f"{prefix}bits_per_byte"] = logs[f"{prefix}loss"] * self._bits[prefix]
            logs[f"{prefix}active_share"] = metered[1]
            self._check_finite(logs[f"{prefix}loss"])
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in Trainer, with what was metered in training set aside meanwhile."""
        training, self._metered = getattr(self, "_metered", []), []
        metrics = super().evaluate(*args, **kwargs)
        self._metered = training
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        pickled = Path(output_dir or self.args.output_dir) / "training_args.bin"
        pickled.unlink(missing_ok=True)  # run.json says the same, and needs no unpickling

    def _check_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        saved = sorted(Path(self.args.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
        kept = f"the last good checkpoint is {saved[-1]}" if saved else "nothing was saved yet"
        raise TrainingError(
            f"the loss became {loss} at step {self.state.global_step}; {kept}; "
            "lower training.learning_rate or training.clip and --resume"
        )

    def _get_output_dir(self, trial: Any) -> str:
        return getattr(self, "_staging", None) or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write the checkpoint beside its place and rename it there when it is whole.

        A process killed while saving leaves a staging folder that nobody reads; the checkpoint
        before it stays the newest one.
        """
        if (metered := getattr(self, "_metered", [])) and not torch.stack(metered).isfinite().all():
            self._check_finite(math.nan)
        out = Path(self.args.output_dir)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._staging = str(out / STAGING)
        try:
            super()._save_checkpoint(model, trial)
            self._staged_state(out, name)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._publish(out, name)
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(self._staging, ignore_errors=True)
            raise TrainingError(
                f"{out / name} could not be saved ({_first_line(error)}); earlier checkpoints are "
                "untouched: make room on the disk and --resume"
            ) from error
        finally:
            self._staging = None

    def _staged_state(self, out: Path, name: str) -> None:
        """Name the best checkpoint by where it will lie, not by the staging folder."""
        best = self.state.best_model_checkpoint
        if best is not None and Path(best).parent.name == STAGING:
            self.state.best_model_checkpoint = str(out / Path(best).name)
        if self.args.should_save:
            self.state.save_to_json(str(out / STAGING / name / "trainer_state.json"))

    def _publish(self, out: Path, name: str) -> None:
        if (out / name).exists():
            shutil.rmtree(out / name)
        os.replace(out / STAGING / name, out / name)
        shutil.rmtree(out / STAGING)
        rotate_checkpoints(
            output_dir=str(out),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
        )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
