"""Verbs for models with a head that names: taggers, classifiers of texts, embeddings.

`train` and `eval` of models.py hand over to this file with `--task`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli.options import Checkpoint, Json, write_json
from spikeloom.errors import ConfigError

heads_app = typer.Typer()

TASKS = ("ner",)
Task = Annotated[
    str | None,
    typer.Option(metavar="ner", help="Label words instead: --data holds tags or labelled spans."),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="CKPT",
        help="Start on this model's weights (with --task: its backbone), with its tokenizer; a "
        "dense twin's of the same layers, too: its neurons are then new.",
    ),
]
BothWays = Annotated[
    bool | None,
    typer.Option(
        "--bidirectional/--causal", help="With --task: read both ways [default], or from the left."
    ),
]


def train_task(
    task: str | None,
    preset: str,
    settings: list[str],
    twin: str | None,
    bidirectional: bool | None,
    data: str,
    out: Path,
    json_file: Path | None,
    **options: Any,
) -> None:
    """`spikeloom train --task`: what of `train` is for taggers alone."""
    from spikeloom.config import load_config
    from spikeloom.training.tagging import train_tagger
    from spikeloom.training.twin import twin_of

    _require_task(task)
    if not any(setting.startswith("model.bidirectional=") for setting in settings):
        settings = [*settings, f"model.bidirectional={str(bidirectional is not False).lower()}"]
    run = twin_of(load_config(preset, settings), twin)
    title = preset if twin is None else f"{preset} ({twin} twin)"
    result = train_tagger(run, data, out, title=title, **options)
    figures = result.metrics
    print(
        f"{result.directory}: {figures['steps']} steps in {figures['seconds']:.0f} s; held-out "
        f"F1 {figures['eval_f1']:.3f} (precision {figures['eval_precision']:.3f}, recall "
        f"{figures['eval_recall']:.3f}), active share {figures['eval_active_share']:.3f}"
    )
    write_json({"directory": str(result.directory), **figures}, json_file)


def evaluate_task(
    task: str, checkpoint: Path, data: str, batch_size: int, device: str, json_file: Path | None
) -> None:
    """`spikeloom eval --task`: entity scores, overall and by type."""
    from rich.console import Console
    from rich.table import Table

    from spikeloom.evaluation.tagging import evaluate, load_tagger

    _require_task(task)
    report = evaluate(load_tagger(checkpoint, device), data, batch_size)
    table = Table("type", "precision", "recall", "F1", "entities", box=None)
    for name, row in [*report["per_type"].items(), ("all", report)]:
        figures = (f"{row[key]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(name, *figures, str(row["entities"]))
    Console().print(table)
    print(f"{report['records']} records; active share {report['active_share']:.3f}")
    write_json(report, json_file)


@heads_app.command()
def tag(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A tagger's checkpoint directory.")
    ],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to tag.")] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tag a file of text instead.")
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Print the text with [TYPE] in place of each span.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Find names, addresses and the like: where they stand, in characters, and what they are.

    spikeloom tag runs/pii "Call Ann Lee at 555 0100." --redact
    """
    from spikeloom.evaluation.tagging import load_tagger
    from spikeloom.inference.tagger import redacted

    text = _given_text(text, file)
    spans = load_tagger(checkpoint).tag([text])[0].spans
    clean = redacted(text, spans)
    if redact:
        print(clean)
    else:
        for span in spans:
            found = json.dumps(text[span.start : span.end], ensure_ascii=False)
            print(f"{span.start:6} {span.end:6}  {span.label:20} {found}")
        if not spans:
            print("nothing found", file=sys.stderr)
    listed = [{**vars(span), "text": text[span.start : span.end]} for span in spans]
    write_json({"text": text, "spans": listed, "redacted": clean}, json_file)


@heads_app.command("demo-colour")
def demo_colour(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl", help='Lines of {"word", "colour"}; else the xkcd colour names.'
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Checkpoint directory to write.")] = Path(
        "runs/colour"
    ),
    preset: Annotated[
        str, typer.Option(help="Whose layers and neurons; sizes are the seed's.")
    ] = "spike-transformer",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the words.")] = 56,
    folds: Annotated[int, typer.Option(min=0, help="Of the cross-validation; 0: none.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, order and folds.")] = 0,
    json_file: Json = None,
) -> None:
    """Learn which colour a word calls to mind: the seed project's toy, and how far it generalises.

    2 layers of spike-driven attention, 4 heads, width 64, 4 steps a letter.
    """
    from spikeloom.demo_colour import run_demo

    write_json(run_demo(out, data, preset, epochs, folds, seed), json_file)


@heads_app.command()
def embed(
    checkpoint: Checkpoint,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="Repeatable.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts, one a line, instead.")
    ] = None,
    level: Annotated[str, typer.Option(metavar="token|sentence", help="What gets a vector.")] = (
        "sentence"
    ),
    out: Annotated[
        Path | None, typer.Option(metavar="F.npy", help="Write the vectors, float32 [n, D].")
    ] = None,
    nearest: Annotated[
        str | None, typer.Option(metavar="TEXT", help="List what lies nearest to this text.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Neighbours to list.")] = 10,
    json_file: Json = None,
) -> None:
    """Vectors of texts, or of their tokens, from the final residual stream.

    spikeloom embed runs/tiny --file words.txt --out words.npy --nearest ocean
    """
    import numpy as np

    from spikeloom.evaluation.checkpoint import load_any
    from spikeloom.inference.embedding import Embedder
    from spikeloom.inference.embedding import nearest as neighbours

    embedder = Embedder(*load_any(checkpoint))
    found = embedder.embed(_lines(text, file), level)  # type: ignore[arg-type]
    vectors = np.stack([each.vector for each in found])
    report: dict[str, Any] = {"level": level, "texts": [each.text for each in found]}
    if out is not None:
        _save_array(vectors, out)
    if nearest is not None:
        (query,) = embedder.embed([nearest])
        ranked = neighbours(query.vector, found, count)
        print("\n".join(f"{cosine:6.3f}  {name}" for name, cosine in ranked))
        report["nearest"] = [{"text": name, "cosine": cosine} for name, cosine in ranked]
    print(f"{len(vectors)} vectors of width {vectors.shape[1]}", file=sys.stderr)
    write_json({**report, "vectors": vectors.tolist()}, json_file)


def _lines(texts: list[str] | None, file: Path | None) -> list[str]:
    """The texts given one by one, or the lines of a file that are not empty."""
    if texts and file is None:
        return texts
    if texts:
        raise ConfigError("give --text, or --file, not both")
    whole = _given_text(None, file)
    return [line.strip() for line in whole.splitlines() if line.strip()]


def _save_array(vectors: Any, out: Path) -> None:
    import numpy as np

    if out.suffix != ".npy":
        raise ConfigError(f"--out {out}: name a .npy file (--json FILE writes JSON)")
    out.parent.mkdir(parents=True, exist_ok=True)
    np.save(out, vectors, allow_pickle=False)


def _require_task(task: str | None) -> None:
    from spikeloom.strict import one_of

    if task is None:
        raise ConfigError("--bidirectional and --causal need --task ner")
    one_of("--task", task, TASKS)


def _given_text(text: str | None, file: Path | None) -> str:
    """The text, or that of the file; exactly one of them.

    Raises:
        ConfigError: both are given, or none.
        DataError: the file cannot be read.
    """
    from spikeloom.errors import DataError

    if (text is None) == (file is None):
        raise ConfigError("give a text, or a text file by --file: one of them")
    if file is None:
        assert text is not None
        return text
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as text ({error})") from None
