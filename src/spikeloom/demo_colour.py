"""`spikeloom demo-colour`: which colour does a word call to mind? The seed's toy task.

A word goes in letter by letter, and from what the last letter's head neuron emits a classifier
names one of eight colours. The words are few and their colours a matter of taste, so the accuracy
on the words trained on says only that the model can learn by heart; what it has understood is the
accuracy on words held out, over ten folds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from transformers import set_seed

from spikeloom import tokenizers
from spikeloom.backends.numpy.colour import GEOMETRY
from spikeloom.backends.words import COLOURS, Pairs, read_pairs, xkcd_pairs
from spikeloom.config import RunConfig, load_config
from spikeloom.errors import ConfigError
from spikeloom.model import SpikeloomForSequenceClassification
from spikeloom.strict import to_dict
from spikeloom.training.budget import Budget
from spikeloom.training.display import Display
from spikeloom.training.heads import Scoring, head_trainer, mean_tokens_per_step, named
from spikeloom.training.memory import keep_freed_memory
from spikeloom.training.run_directory import claim, record
from spikeloom.training.train import Result, carry_out, fit_to_tokenizer

BATCH = 32
SEED_ACCURACY = 0.773  # of the seed project, on the words it was trained on, after 500 epochs
CHECKS = 8  # times that the accuracy is looked at


@dataclass(frozen=True)
class Word:
    """The letters of a word, behind the document mark, and the number of its colour."""

    input_ids: list[int]
    labels: int


def run_demo(
    out: Path, data: Path | None, preset: str, epochs: int, folds: int, seed: int
) -> dict[str, Any]:
    """Learn all words, then ten times nine tenths of them, and print the accuracies.

    Args:
        out: the checkpoint directory of the model that has seen all words.
        data: lines of word and colour; None takes matplotlib's xkcd names.
        preset: whose layers and neurons are used, at the seed's sizes.
        epochs: passes over the words.
        folds: of the cross-validation; 0 for none.
        seed: of weights, order and folds.

    Raises:
        SpikeloomError: data or directory are not fit; fewer than two folds, or more than words.
    """
    pairs = read_pairs(data) if data else xkcd_pairs()
    if folds and not 2 <= folds <= len(pairs):
        raise ConfigError(f"--folds {folds}: expected 0, or 2 to {len(pairs)} (the words)")
    run, words, examples = prepare(pairs, preset, epochs, seed)
    result = learn(run, words, (examples, examples), out, CHECKS, "all words")
    report = {"words": len(pairs), "steps": result.metrics["steps"], **accuracies(out)}
    print(in_words(report), flush=True)
    if folds:
        report |= cross_validate(run, words, examples, folds, seed)
        print(
            f"{folds}-fold cross-validation: {report['held_out_accuracy']:.1%} of words never seen "
            f"(most frequent colour: {most_frequent(examples):.1%})"
        )
    return report


def prepare(pairs: Pairs, preset: str, epochs: int, seed: int) -> tuple[RunConfig, Any, list[Word]]:
    """The run at the seed's sizes, the tokenizer of characters, and the words in its tokens."""
    steps = max(1, epochs * (len(pairs) // BATCH))
    settings = [
        *GEOMETRY,
        f"training.max_steps={steps}",
        f"training.batch_size={BATCH}",
        f"training.seed={seed}",
        "training.sample_every=0",
        "training.dtype=float32",
    ]
    run = load_config(preset, settings)
    words = tokenizers.train("char", [word for word, _ in pairs], 2048)
    start = words.bos_token_id
    examples = [
        Word([start, *words.encode(word, add_special_tokens=False)], COLOURS.index(colour))
        for word, colour in pairs
    ]
    longest = max(len(each.input_ids) for each in examples)
    run = replace(run, model=replace(run.model, max_position_embeddings=longest))
    return fit_to_tokenizer(run, words), words, examples


def learn(
    run: RunConfig,
    words: Any,
    examples: tuple[list[Word], list[Word]],
    out: Path,
    checks: int,
    title: str,
) -> Result:
    """Train on the first examples; the accuracy on the second is looked at `checks` times."""
    steps = run.training.max_steps or 1
    config = replace(run.training, checkpoint_every=-(-steps // checks), context=64)
    claim(out, run, resume=False)
    record(out, words, {**to_dict(run), "task": "colour", "labels": COLOURS})
    keep_freed_memory()
    torch.set_num_threads(1)  # tensors this small lose time to a second thread
    set_seed(config.seed)
    model = SpikeloomForSequenceClassification(named(run.model, COLOURS))
    tokens = mean_tokens_per_step(config, examples[0])
    display = Display(Budget.of(config, tokens), tokens, title)
    scoring = Scoring("accuracy", lambda found: {"accuracy": _accuracy(found)})
    trainer = head_trainer(config, out, model, words, examples, scoring, display)
    return carry_out(trainer, None, out, tokens)


def cross_validate(
    run: RunConfig, words: Any, examples: list[Word], folds: int, seed: int
) -> dict[str, Any]:
    """Accuracy over all words, each named by a model that has not seen it.

    Every fold is scored once, at the end of its training, so nothing is chosen by what is held out.
    As many folds are learned at a time as there are cores.
    """
    order = np.random.default_rng(seed).permutation(len(examples))
    parts = np.array_split(order, folds)
    held_out = [[examples[i] for i in part] for part in parts]
    learned = [[examples[i] for i in np.setdiff1d(order, part)] for part in parts]
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    with ProcessPoolExecutor(min(folds, os.cpu_count() or 1), fresh) as pool:
        found = pool.map(held_out_accuracy, [run] * folds, [words] * folds, learned, held_out)
        by_fold = list(
            track(found, "folds", folds, transient=True, disable=not sys.stderr.isatty())
        )
    right = sum(share * len(part) for share, part in zip(by_fold, parts, strict=True))
    return {"held_out_accuracy": right / len(examples), "folds": by_fold}


def held_out_accuracy(
    run: RunConfig, words: Any, learned: list[Word], held_out: list[Word]
) -> float:
    """One fold, in a process of its own: its words named by a model of all the others."""
    with tempfile.TemporaryDirectory() as folder:
        result = learn(run, words, (learned, held_out), Path(folder) / "fold", 1, "fold")
    share: float = result.metrics["eval_accuracy"]
    return share


def accuracies(out: Path) -> dict[str, Any]:
    """What a run's log says: the accuracy at the end, and when the seed's was passed."""
    import json

    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    seen = [entry for entry in history if "eval_accuracy" in entry]
    passed = [e["seconds"] for e in seen if e["eval_accuracy"] > SEED_ACCURACY]
    return {
        "training_accuracy": seen[-1]["eval_accuracy"],
        "active_share": seen[-1]["eval_active_share"],
        "seconds": seen[-1]["seconds"],
        "seconds_to_seed_accuracy": passed[0] if passed else None,
    }


def in_words(report: dict[str, Any]) -> str:
    passed = report["seconds_to_seed_accuracy"]
    when = "not reached" if passed is None else f"passed after {passed:.0f} s"
    return (
        f"{report['training_accuracy']:.1%} of the {report['words']} words trained on, after "
        f"{report['seconds']:.0f} s (the seed's {SEED_ACCURACY:.1%}: {when}); active share "
        f"{report['active_share']:.2f}"
    )


def most_frequent(examples: list[Word]) -> float:
    """What always naming one colour would give."""
    return float(np.bincount([each.labels for each in examples]).max() / len(examples))


def _accuracy(found: Any) -> float:
    return float((found.predictions == found.label_ids).mean())
