"""Distillation: a run that also learns what a trained model predicts, not only what came.

To the loss of every training batch is added, with `training.teacher_weight`,

    mean over predicted tokens of KL(teacher || student), in nats

(Hinton, Vinyals and Dean 2015, at temperature 1). Held-out figures stay plain cross-entropy.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom import tokenizers
from spikeloom.checkpoint import require_head, resolve
from spikeloom.config import TrainingConfig
from spikeloom.errors import ConfigError
from spikeloom.evaluation.checkpoint import load
from spikeloom.model import SpikeloomForCausalLM


class Teacher:
    """A trained language model that is read and never changed.

    Args:
        config: names the checkpoint; says whether it is compiled.
        words: tokenizer of the run.
        device: of the run.

    Raises:
        CheckpointError: it is not the checkpoint of a language model.
        ConfigError: it was trained with another tokenizer, or on shorter rows.
    """

    def __init__(self, config: TrainingConfig, words: Any, device: torch.device) -> None:
        assert config.teacher is not None
        path = resolve(config.teacher)
        require_head(path, SpikeloomForCausalLM.__name__)
        model, its_words = load(path, device=str(device))
        if tokenizers.fingerprint(its_words) != tokenizers.fingerprint(words):
            raise ConfigError(
                f"training.teacher: {path} was trained with another tokenizer; "
                f"train with --tokenizer {path}"
            )
        longest = model.config.max_position_embeddings
        if longest < (config.longest_context or 0):
            raise ConfigError(
                f"training.teacher: {path} knows rows of up to {longest} tokens; "
                f"set training.context={longest} or less"
            )
        self.model: nn.Module = model.eval().requires_grad_(False)
        self._divergence = divergence
        if config.compile:
            self.model = torch.compile(self.model)  # type: ignore[assignment]
            self._divergence = torch.compile(divergence)

    def divergence(self, inputs: dict[str, Tensor], logits: Tensor) -> Tensor:
        """How far a student's `logits` `[B, L, V]` are from the teacher's, in nats per token."""
        read = {k: v for k, v in inputs.items() if k not in ("labels", "num_items_in_batch")}
        with torch.no_grad():
            taught = self.model(**read, use_cache=False).logits
        return self._divergence(logits, taught, inputs["labels"])


def divergence(logits: Tensor, taught: Tensor, labels: Tensor) -> Tensor:
    """Mean of KL(taught || logits) where the next label counts.

    Args:
        logits, taught: of student and teacher, `[B, L, V]`.
        labels: `[B, L]`, shifted here; -100 does not count.
    """
    counts = labels[:, 1:] != -100
    student = F.log_softmax(logits[:, :-1].float(), dim=-1)
    teacher = F.log_softmax(taught[:, :-1].float(), dim=-1)
    nats = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
    return (nats * counts).sum() / counts.sum().clamp(min=1)
