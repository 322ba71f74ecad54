"""What training a head shares, whether it names tokens or whole texts: batches, scores, Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PrinterCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from spikeloom.config import ModelConfig, TrainingConfig
from spikeloom.errors import DataError
from spikeloom.model import SpikeloomConfig
from spikeloom.model.heads import IGNORED, ClassificationModel
from spikeloom.training.display import Display
from spikeloom.training.train import BudgetCallback, training_arguments
from spikeloom.training.trainer import SpikeTrainer


class Example(Protocol):
    """Pieces, and a label for each of them or one for all."""

    @property
    def input_ids(self) -> list[int]: ...
    @property
    def labels(self) -> list[int] | int: ...


Examples = Sequence[Example]


@dataclass(frozen=True)
class Scoring:
    """How held-out examples are scored.

    Attributes:
        best: the figure whose highest value marks the weights to keep.
        score: from `predictions` and `label_ids` to figures, `best` among them.
    """

    best: str
    score: Callable[[Any], dict[str, float]]


class Padding:
    """Examples to a batch, as long as the longest: `input_ids`, `attention_mask`, `labels`."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        ids = [torch.tensor(each["input_ids"]) for each in examples]
        labels = [torch.tensor(each["labels"]) for each in examples]
        return {
            "input_ids": _padded(ids, self.pad_token_id),
            "attention_mask": _padded([torch.ones_like(row) for row in ids], 0),
            "labels": _padded(labels, IGNORED) if labels[0].ndim else torch.stack(labels),
        }


def named(model: ModelConfig, labels: Sequence[str]) -> SpikeloomConfig:
    """The config of a head with these classes."""
    config = SpikeloomConfig.from_architecture(model)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    return config


def mean_tokens_per_step(config: TrainingConfig, examples: Examples) -> int:
    """Tokens that an optimizer step reads on average, padding left out."""
    mean = sum(len(each.input_ids) for each in examples) / len(examples)
    return round(mean * config.batch_size * config.gradient_accumulation)


def head_trainer(
    config: TrainingConfig,
    out: Path,
    model: ClassificationModel,
    words: Any,
    examples: tuple[Examples, Examples],
    scoring: Scoring,
    display: Display,
) -> SpikeTrainer:
    """The Trainer of a head's run.

    Args:
        config: the training part of the run.
        out: its directory.
        model: backbone and head.
        words: the tokenizer, saved beside the weights.
        examples: to learn from, and held out.
        scoring: of those held out.
        display: shows the run; its budget ends it.

    Raises:
        DataError: the examples do not fill one batch.
    """
    learned, held_out = examples
    if len(learned) < config.batch_size:
        raise DataError(
            f"{len(learned)} rows are less than a batch: lower training.batch_size "
            f"(now {config.batch_size})"
        )
    arguments = training_arguments(config, out, display.budget, one_shape=False)
    arguments.prediction_loss_only = False
    arguments.metric_for_best_model = f"eval_{scoring.best}"
    arguments.greater_is_better = True
    trainer = HeadTrainer(
        model=model,
        args=arguments,
        train_dataset=[vars(each) for each in learned],  # type: ignore[arg-type]
        eval_dataset=[vars(each) for each in held_out],  # type: ignore[arg-type]
        data_collator=Padding(words.pad_token_id),
        processing_class=words,
        compute_metrics=scoring.score,
        preprocess_logits_for_metrics=likeliest,
        callbacks=[BudgetCallback(display.budget), display],
        config=config,
        budget=display.budget,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class HeadTrainer(SpikeTrainer):
    """Reads examples of about one length together, so that there is little padding."""

    def _get_train_sampler(self, train_dataset: Any = None) -> ByLength:
        examples: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(each["input_ids"]) for each in examples]
        return ByLength(lengths, self.config.batch_size, self.config.seed)


class ByLength(Sampler[int]):
    """An order of its own for every epoch, the same in a run that was resumed."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order: list[int] = get_length_grouped_indices(
            self.lengths, self.batch_size, generator=generator
        )
        return iter(order)


def likeliest(outputs: Any, labels: Tensor) -> Tensor:
    """The class with the largest of the logits, which come first among a model's outputs."""
    logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return logits.argmax(-1)


def _padded(rows: list[Tensor], padding: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
