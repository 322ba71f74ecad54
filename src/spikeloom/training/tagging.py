"""`spikeloom train --task ner`: labelled texts and a config in, a tagger's checkpoint out.

The same run as that of a language model (directory, budget, resume, firing-rate loss), with rows of
words in place of packed text; the best weights are those with the highest F1 on held-out records.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed

from spikeloom import tokenizers
from spikeloom.checkpoint import read_config, read_tensors, resolve
from spikeloom.config import RunConfig, TrainingConfig
from spikeloom.data.readers import Document
from spikeloom.data.records import Tagged
from spikeloom.data.split import sides
from spikeloom.data.tagging import (
    UNLABELLED,
    RowMaker,
    label_names,
    labelled_rows,
    parts,
    read_tagged,
    require_labels,
)
from spikeloom.errors import ConfigError, DataError
from spikeloom.metrics.entities import entity_scores, require_nervaluate
from spikeloom.model import SpikeloomForTokenClassification
from spikeloom.strict import require, to_dict
from spikeloom.training.budget import Budget
from spikeloom.training.display import Display
from spikeloom.training.heads import Scoring, head_trainer, mean_tokens_per_step, named
from spikeloom.training.memory import keep_freed_memory
from spikeloom.training.run_directory import RUN_FILE, claim, record
from spikeloom.training.start import FREE, neuron_parameters, require_same_architecture
from spikeloom.training.train import Result, carry_out, fit_to_tokenizer, require_trackers

PASSES = 20  # over the records, if no budget is given


def train_tagger(
    run: RunConfig,
    data: str,
    out: str | Path,
    *,
    eval_data: str | None = None,
    tokenizer: str | None = None,
    start: str | Path | None = None,
    resume: bool = False,
    title: str = "training",
) -> Result:
    """Train a tagger from scratch, from a checkpoint's backbone, or continue.

    Args:
        run: model, tokenizer and training config.
        data: SOURCE of labelled records, or a folder that holds `train.*` and `dev.*`.
        out: checkpoint directory to write.
        eval_data: held-out records; None takes the folder's `dev.*`, else 5% of the texts.
        tokenizer: directory of a tokenizer to use instead of a new one.
        start: checkpoint whose backbone and tokenizer are taken over.
        resume: continue the run that `out` holds.
        title: what the progress bar says.

    Raises:
        SpikeloomError: a bad config, source or directory; NaN loss; memory or disk used up.
    """
    out, context = Path(out), run.training.context or run.model.max_position_embeddings
    model = replace(run.model, max_position_embeddings=context)  # what `tag` reads at a time
    run = replace(run, model=model, training=replace(run.training, context=context))
    require_nervaluate()
    require_trackers(run.training)
    teacher = run.training.teacher
    require(teacher is None, "training.teacher", teacher, "null: taggers have none")
    if start is not None:
        require_same_architecture(resolve(start), run, (*FREE, "bidirectional"))
    learned, held_out = read_both(data, eval_data)
    labels = label_names(learned)
    require_labels(held_out, labels, eval_data or parts(data)[1] or data)
    checkpoint = claim(out, run, resume)
    words = _tokenizer(run, learned, out, tokenizer or start)
    run = fit_to_tokenizer(run, words)
    maker = RowMaker(words, labels, context)
    train_rows, eval_rows = labelled_rows(learned, maker), labelled_rows(held_out, maker)
    run = replace(run, training=_with_budget(run.training, len(train_rows)))
    told = {"data": data, "eval_data": eval_data, "task": "ner", "labels": labels}
    _same_labels(out, labels)
    record(out, words, {**to_dict(run), **told, "from": None if start is None else str(start)})
    tokens_per_step = mean_tokens_per_step(run.training, train_rows)
    trainer = head_trainer(
        run.training,
        out,
        make_model(run, labels, start),
        words,
        (train_rows, eval_rows),
        Scoring("f1", lambda found: _f1(found, labels)),
        Display(Budget.of(run.training, tokens_per_step), tokens_per_step, title),
    )
    return carry_out(trainer, checkpoint, out, tokens_per_step)


def read_both(data: str, eval_data: str | None) -> tuple[list[Tagged], list[Tagged]]:
    """Records to learn from, and held-out ones.

    Raises:
        DataError: a source cannot be read, or holds too few records to hold some out.
    """
    learned, beside = parts(data)
    if eval_data is not None:
        return read_tagged(data), read_tagged(eval_data)
    if beside is not None:
        return read_tagged(learned), read_tagged(beside)
    records = read_tagged(data)
    found = sides(Document(record.text, {"record": record}) for record in records)
    both: dict[str, list[Any]] = {"train": [], "eval": []}
    for side, document in found:
        both[side].append(document.about["record"])
    if len(records) < 2 or not both["eval"]:
        raise DataError(f"{data}: {len(records)} records are too few to hold some out: --eval-data")
    return both["train"], both["eval"]


def make_model(
    run: RunConfig, labels: Sequence[str], start: str | Path | None
) -> SpikeloomForTokenClassification:
    """A tagger at its initial weights, which the seed decides, or on a trained backbone."""
    keep_freed_memory()
    set_seed(run.training.seed)
    model = SpikeloomForTokenClassification(named(run.model, labels))
    if start is not None:
        _load_backbone(model, resolve(start))
    return model


def _f1(found: Any, labels: Sequence[str]) -> dict[str, float]:
    """Scores over the words of all rows."""
    gold, named = [], []
    for classes, wanted in zip(found.predictions, found.label_ids, strict=True):
        places = np.flatnonzero(wanted != UNLABELLED)
        gold.append([labels[i] for i in wanted[places]])
        named.append([labels[i] for i in classes[places]])
    scores = entity_scores(gold, named)
    return {name: scores[name] for name in ("precision", "recall", "f1")}


def _with_budget(config: TrainingConfig, rows: int) -> TrainingConfig:
    """Without a budget, `PASSES` over the rows."""
    if (config.max_steps, config.max_tokens, config.max_minutes) != (None, None, None):
        return config
    steps = math.ceil(PASSES * rows / (config.batch_size * config.gradient_accumulation))
    print(f"no budget given: {PASSES} passes over the records, {steps} steps", file=sys.stderr)
    return replace(config, max_steps=steps)


def _tokenizer(run: RunConfig, records: list[Tagged], out: Path, given: Any) -> Any:
    """Of the run in `out`; else the given one; else one trained on the records."""
    if (out / RUN_FILE).exists():
        return tokenizers.load(out)
    if given is not None:
        return tokenizers.load(resolve(given) if (Path(given) / "config.json").exists() else given)
    texts = (record.text for record in records)
    return tokenizers.train(run.tokenizer.kind, texts, run.tokenizer.vocab_size)


def _same_labels(out: Path, labels: Sequence[str]) -> None:
    """Refuse to resume with records of other types."""
    if not (out / RUN_FILE).exists():
        return
    before = json.loads((out / RUN_FILE).read_text("utf-8")).get("labels")
    if before != list(labels):
        raise ConfigError(
            f"{out} was trained with labels {before}, --data has {list(labels)}: choose another "
            "--out"
        )


def _load_backbone(model: SpikeloomForTokenClassification, start: Path) -> None:
    """Take over all weights below the head; neurons that a dense model lacks stay as they are."""
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in read_tensors(start).items()
        if name.startswith("model.")
    }
    new = {} if read_config(start).spiking else neuron_parameters(model.model)
    try:
        model.model.load_state_dict({**new, **weights})
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise ConfigError(f"--from {start}: its weights do not fit ({why})") from None
