"""A tagger's checkpoint: read it, measure it on labelled records, lend it to other verbs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikeloom.data.cleaning.personal import Span as Personal
from spikeloom.data.tagging import parts, read_tagged, require_labels, tags_of
from spikeloom.errors import CheckpointError
from spikeloom.evaluation.checkpoint import load
from spikeloom.inference.tagger import Tagger
from spikeloom.metrics.entities import entity_scores
from spikeloom.metrics.recorder import Recorder
from spikeloom.model import (
    SpikeloomForTokenClassification,
    active_share,
    fed_weights,
    neurons,
)


def load_tagger(directory: str | Path, device: str = "cpu") -> Tagger:
    """The tagger of a checkpoint directory.

    Raises:
        CheckpointError: it is none, is damaged, or its labels are not BIO.
    """
    model, tokenizer = load(directory, device=device, head=SpikeloomForTokenClassification)
    tagger = Tagger(model, tokenizer)
    for i, label in enumerate(tagger.labels):
        if label != "O" and label[:2] not in ("B-", "I-"):
            raise CheckpointError(
                f"{directory}/config.json: id2label[{i}]: {label!r} is none of O, B-TYPE and I-TYPE"
            )
    return tagger


def evaluate(tagger: Tagger, data: str, batch_size: int = 32) -> dict[str, Any]:
    """Entity scores on labelled records.

    Args:
        tagger: whose spans are compared with those of the records.
        data: SOURCE of labelled records; of a folder with `train.*` and `dev.*` the latter.
        batch_size: rows at a time.

    Returns:
        the figures of `entity_scores`, `records`, `words`, `active_share`.

    Raises:
        DataError: the source cannot be read, or has a type that the tagger has not.
    """
    source = parts(data)[1] or data
    records = read_tagged(source)
    require_labels(records, tagger.labels, source)
    with Recorder(tagger.model) as recorder, _skipping_padding(tagger.model, recorder):
        found = tagger.tag([record.text for record in records], batch_size)
    gold = [tags_of(each.words, r.spans) for each, r in zip(found, records, strict=True)]
    return {
        **entity_scores(gold, [each.tags for each in found]),
        "records": len(records),
        "words": sum(len(each.words) for each in found),
        "active_share": _active_share(tagger.model, recorder),
        "source": source,
    }


@contextmanager
def _skipping_padding(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """The recorder counts real tokens only."""

    def look(module: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        recorder.positions = inputs["attention_mask"].bool()

    hook = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _active_share(model: nn.Module, recorder: Recorder) -> float:
    seen = recorder.records
    rates = [seen[name].channel_rate if name in seen else 1.0 for name in neurons(model)]
    return float(active_share(torch.tensor(rates), fed_weights(model)))


class TaggerFinder:
    """Finds personal data for `spikeloom.data.cleaning`; reads its checkpoint when first asked.

    So it can be sent to worker processes.

    Args:
        directory: a tagger's checkpoint.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = directory
        self._tagger: Tagger | None = None

    def __call__(self, text: str) -> list[Personal]:
        if self._tagger is None:
            torch.set_num_threads(1)  # a worker of several
            self._tagger = load_tagger(self.directory)
        spans = self._tagger.tag([text])[0].spans
        return [Personal(span.start, span.end, span.label) for span in spans]

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "_tagger": None}
