"""Verbs on models: train one, measure it, use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli.heads import BothWays, From, Task, evaluate_task, train_task
from spikeloom.cli.options import (
    SOURCE_HELP,
    Backend,
    Checkpoint,
    CheckpointOrPreset,
    Checkpoints,
    Data,
    Device,
    Json,
    Part,
    device_of,
    write_json,
)
from spikeloom.errors import ConfigError

models_app = typer.Typer()


@models_app.command()
def train(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET_OR_YAML", help="See `presets`; or a run, whose config is taken again."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Checkpoint directory to write.")],
    data: Annotated[str | None, typer.Option(metavar="SOURCE", help=SOURCE_HELP)] = None,
    curriculum: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of `data curriculum`: its phases, in place of --data."),
    ] = None,
    eval_data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Held-out text; else 5% of the documents."),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(metavar="N", help="Optimizer steps.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="Training tokens.")] = None,
    max_minutes: Annotated[float | None, typer.Option(metavar="M", help="Minutes.")] = None,
    twin: Annotated[
        str | None, typer.Option(help="Train the preset's `dense` or `quantised` twin instead.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Use this tokenizer (or a checkpoint's).")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Override a key of the YAML; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in DIR.")] = False,
    backend: Backend = "torch",
    task: Task = None,
    start: From = None,
    bidirectional: BothWays = None,
    json_file: Json = None,
) -> None:
    """Train a model from scratch on text, or, with --task ner, a tagger on labelled text.

    spikeloom train spikeloom-1m --data python-docs --out runs/docs --max-minutes 3

    spikeloom train spikeloom-1m --task ner --data people.jsonl --out runs/tagger --max-minutes 3

    spikeloom train runs/docs --from runs/docs --data stories.jsonl --out runs/tuned --max-steps 200

    spikeloom train real-sam-v4 --curriculum runs/phases --out runs/sam --max-minutes 30

    DIR holds `checkpoint-N` folders while it runs and the best weights at the end. A run that was
    interrupted goes on with the same command and --resume; --from starts a new one on old weights.
    """
    from spikeloom import backends
    from spikeloom.config import load_config
    from spikeloom.training.twin import twin_of

    if (data is None) == (curriculum is None):
        raise ConfigError("give --data or --curriculum, one of them")
    given = {"max_steps": max_steps, "max_tokens": max_tokens, "max_minutes": max_minutes}
    budget = [f"training.{k}={v}" for k, v in given.items() if v is not None]
    if budget:  # a budget on the command line replaces the file's
        budget = [f"training.{k}=null" for k in given] + budget
    settings = [*(settings or []), *budget]
    words = None if tokenizer is None else str(tokenizer)
    both: dict[str, Any] = {
        "eval_data": eval_data,
        "tokenizer": words,
        "start": start,
        "resume": resume,
    }
    if (task, bidirectional) != (None, None):
        if backend != "torch":
            raise ConfigError(f"--backend {backend} has no heads for --task: use torch")
        if data is None:
            raise ConfigError("--curriculum is of plain text: --task reads labelled --data")
        train_task(task, preset, settings, twin, bidirectional, data, out, json_file, **both)
        return
    run = twin_of(load_config(preset, settings), twin)
    title = preset if twin is None else f"{preset} ({twin} twin)"
    phases = None if curriculum is None else str(curriculum)
    result = backends.train(backend, run, data, out, curriculum=phases, title=title, **both)
    report = {"directory": str(result.directory), **result.metrics}
    write_json(report, json_file)
    print(f"{result.directory}: {_summary(result.metrics)}")


@models_app.command("eval")
def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    part: Part = "all",
    context: Annotated[int | None, typer.Option(help="Tokens per window.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens between windows.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Score at most so many.")] = None,
    batch_size: Annotated[int, typer.Option(help="Windows at a time.")] = 8,
    device: Device = "auto",
    task: Task = None,
    json_file: Json = None,
) -> None:
    """Measure loss, bits per byte, sparsity, operations and estimated energy on text.

    With --task ner: precision, recall and F1 of a tagger on labelled text.
    """
    if task is not None:
        evaluate_task(task, checkpoint, data, batch_size, device_of(device), json_file)
        return
    from spikeloom.data.packing import pack
    from spikeloom.evaluation.checkpoint import load
    from spikeloom.evaluation.perplexity import evaluate as measure
    from spikeloom.evaluation.text_report import print_evaluation

    model, words = load(checkpoint, device=device_of(device))
    report = measure(
        model,
        words,
        pack(data, words, part=part),  # type: ignore[arg-type]
        context=context,
        stride=stride,
        max_tokens=max_tokens,
        batch_size=batch_size,
    )
    report["protocol"] |= {"source": data, "part": part}
    write_json(report, json_file)
    print_evaluation(report)


@models_app.command()
def compare(
    checkpoints: Checkpoints,
    data: Data,
    part: Part = "all",
    max_tokens: Annotated[int | None, typer.Option(help="Score at most so many.")] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where comparison.md and comparison.png go.")
    ] = Path("."),
    speed: Annotated[bool, typer.Option(help="Measure batch-1 decode speed on the CPU.")] = True,
    json_file: Json = None,
) -> None:
    """Put models side by side on the same text: one table, as Markdown and as a picture."""
    from spikeloom.evaluation.compare import compare as run_comparison
    from spikeloom.evaluation.compare import to_markdown, to_png

    rows = run_comparison(
        checkpoints,
        data,
        part=part,  # type: ignore[arg-type]
        max_tokens=max_tokens,
        speed=speed,
    )
    out.mkdir(parents=True, exist_ok=True)
    table = to_markdown(rows)
    (out / "comparison.md").write_text(table + "\n", encoding="utf-8")
    to_png(rows, out / "comparison.png")
    write_json({"rows": rows}, json_file)
    print(table)


@models_app.command()
def verify(
    checkpoint: CheckpointOrPreset,
    text: Annotated[str | None, typer.Option(help="Text to read; else random tokens.")] = None,
    json_file: Json = None,
) -> None:
    """Prove that the graded, unrolled (unary, bitwise) and token-by-token forms agree.

    Exits with 1 if they do not. A preset is verified at random weights.
    """
    from spikeloom.evaluation.text_report import print_verification
    from spikeloom.evaluation.verify import verify as prove

    model, tokens = _verifiable(checkpoint, text)
    report = prove(model, tokens)
    write_json(report, json_file)
    print_verification(report)
    if not report["passed"]:
        raise typer.Exit(1)


@models_app.command()
def profile(
    checkpoint: Checkpoint,
    text: Annotated[str, typer.Option(metavar="TEXT", help="What the model reads.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pictures go.")],
    json_file: Json = None,
) -> None:
    """Draw a spike raster, channel rates and operations; list dead and saturated channels."""
    from spikeloom.evaluation.checkpoint import load
    from spikeloom.evaluation.profile import profile as draw
    from spikeloom.evaluation.text_report import print_profile

    report = draw(*load(checkpoint), text, out)
    write_json(report, json_file)
    print_profile(report, out)


@models_app.command()
def presets(json_file: Json = None) -> None:
    """List the shipped architectures."""
    from rich.console import Console
    from rich.table import Table

    from spikeloom.model.sizes import preset_sizes

    rows = preset_sizes()
    table = Table("preset", "parameters", "layers", "width", "context", "what it is", box=None)
    for row in rows:
        numbers = (row["num_hidden_layers"], row["hidden_size"], row["context"])
        size = f"{row['parameters'] / 1e6:.1f} M"
        table.add_row(row["name"], size, *map(str, numbers), row["description"])
    Console().print(table)
    write_json({"presets": rows}, json_file)


@models_app.command()
def info(checkpoint: Checkpoint, json_file: Json = None) -> None:
    """Say what a checkpoint directory holds."""
    from rich.console import Console

    from spikeloom.evaluation.checkpoint import load
    from spikeloom.model.sizes import describe

    model, words = load(checkpoint)
    report = {"directory": str(checkpoint), **describe(model), "tokenizer_size": len(words)}
    for key, value in report.items():
        Console().print(f"[bold]{key}[/]: {value}", highlight=False)
    write_json(report, json_file)


@models_app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where it all goes.")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[float, typer.Option(help="Training time of the spiking model.")] = 3.0,
    json_file: Json = None,
) -> None:
    """The whole way in one go: train a spiking model and its twin, compare, draw, generate."""
    from spikeloom.demo import run_demo

    write_json(run_demo(out, minutes), json_file)


@models_app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which benchmark; `list` shows all.")],
    device: Device = "auto",
    picture_file: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw the curve (decode).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few sizes: a look in seconds.")] = False,
    case: Annotated[
        str | None, typer.Option(metavar="CASE", help="Only this case: a preset, a size, a neuron.")
    ] = None,
    slow_peers: Annotated[
        bool, typer.Option("--slow-peers", help="Peers that compile or tune for long, too.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Which kernels the time goes to (train, GPU).")
    ] = False,
    json_file: Json = None,
) -> None:
    """Measure ours beside its peers, in one process, as ratios (more than 1: ours is better).

    Rows are printed, and written to the JSON file, as they are measured. Peers are installed for
    this only: benchmarks/README.md says which, and how each figure is reproduced.
    """
    from spikeloom.bench import NAMES, load, picture
    from spikeloom.bench.options import Options
    from spikeloom.bench.rows import show

    if name == "list":
        print("\n".join(f"{key:10} {what}" for key, what in NAMES.items()))
        return
    draw = None if picture_file is None else picture(name)
    run, where = load(name), device_of(device)
    rows = show(
        run(where, Options(quick, slow_peers, case, profile)),
        lambda report: write_json(report, json_file),
    )
    if draw is not None and picture_file is not None:
        draw(rows, picture_file)


def _verifiable(name: str, text: str | None) -> tuple[Any, Any]:
    import torch

    from spikeloom import presets as shipped
    from spikeloom.evaluation.checkpoint import load
    from spikeloom.model.sizes import random_model

    if name in shipped.names():
        if text is not None:
            raise ConfigError(f"--text needs a checkpoint: the preset {name} has no tokenizer")
        return random_model(name), None
    model, words = load(name)
    if text is None:
        return model, None
    return model, torch.tensor(
        [[words.bos_token_id, *words.encode(text, add_special_tokens=False)]]
    )


def _summary(metrics: dict[str, Any]) -> str:
    return (
        f"{metrics['steps']} steps, {metrics['tokens'] / 1e6:.1f} M tokens in "
        f"{metrics['seconds']:.0f} s; best held-out loss {metrics['eval_loss']:.3f}, "
        f"{metrics['eval_bits_per_byte']:.3f} bits per byte, "
        f"active share {metrics['eval_active_share']:.3f}"
    )
