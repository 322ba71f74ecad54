"""The command line: one function per verb; what a verb needs is imported when it runs.

User errors (`SpikeloomError`) end with one line and exit code 2; anything else is a bug and keeps
its traceback.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli_data import data_app
from spikeloom.cli_prepare import trace
from spikeloom.cli_tokenizer import tokenizer_app
from spikeloom.errors import ConfigError, SpikeloomError

app = typer.Typer(
    name="spikeloom",
    help="Spiking language models: raw text in, a checkpoint directory out, measured honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app)
app.add_typer(tokenizer_app)
app.command()(trace)

_DISK_ERRORS = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
SOURCE_HELP = (
    "SOURCE: a .txt/.md/.jsonl/.parquet file (also .gz/.bz2/.xz/.zst), a folder or glob of them, "
    "hub:NAME[:split][:column], python-docs, or several joined by commas; or what `data prepare` "
    "made."
)
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")
]
Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint directory.")]
Data = Annotated[str, typer.Option("--data", metavar="SOURCE", help=SOURCE_HELP)]
Part = Annotated[
    str, typer.Option(metavar="all|train|eval", help="eval: the 5% that `train` holds out.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto.")]
Seed = Annotated[int, typer.Option(help="Seed of the random choices.")]
Backend = Annotated[str, typer.Option(metavar="torch|numpy", help="What computes.")]


@app.command()
def train(
    preset: Annotated[str, typer.Argument(metavar="PRESET_OR_YAML", help="See `presets`.")],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Checkpoint directory to write.")],
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
    json_file: Json = None,
) -> None:
    """Train a model from scratch on text.

    spikeloom train spikeloom-1m --data python-docs --out runs/docs --max-minutes 3

    DIR holds `checkpoint-N` folders while it runs and the best weights at the end. A run that was
    interrupted goes on with the same command and --resume.
    """
    from spikeloom import backends
    from spikeloom.config import load_config
    from spikeloom.training.twin import twin_of

    given = {"max_steps": max_steps, "max_tokens": max_tokens, "max_minutes": max_minutes}
    budget = [f"training.{k}={v}" for k, v in given.items() if v is not None]
    if budget:  # a budget on the command line replaces the file's
        budget = [f"training.{k}=null" for k in given] + budget
    run = twin_of(load_config(preset, [*(settings or []), *budget]), twin)
    result = backends.train(
        backend,
        run,
        data,
        out,
        eval_data=eval_data,
        tokenizer=None if tokenizer is None else str(tokenizer),
        resume=resume,
        title=preset if twin is None else f"{preset} ({twin} twin)",
    )
    report = {"directory": str(result.directory), **result.metrics}
    print(f"{result.directory}: {_summary(result.metrics)}")
    _write_json(report, json_file)


@app.command("eval")
def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    part: Part = "all",
    context: Annotated[int | None, typer.Option(help="Tokens per window.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens between windows.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Score at most so many.")] = None,
    batch_size: Annotated[int, typer.Option(help="Windows at a time.")] = 8,
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Measure loss, bits per byte, sparsity, operations and estimated energy on text."""
    from spikeloom.data.packing import pack
    from spikeloom.evaluation.checkpoint import load
    from spikeloom.evaluation.perplexity import evaluate as measure
    from spikeloom.evaluation.text_report import print_evaluation

    model, words = load(checkpoint, device=_device(device))
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
    print_evaluation(report)
    _write_json(report, json_file)


@app.command()
def compare(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="Directories.")],
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
    print(table)
    _write_json({"rows": rows}, json_file)


@app.command()
def generate(
    checkpoint: Checkpoint,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="How the text begins.")] = "",
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens to add.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
    seed: Seed = 0,
    category: Annotated[
        str | None, typer.Option(help="Of the text, for a model trained with metadata.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    backend: Backend = "torch",
    json_file: Json = None,
) -> None:
    """Continue a text, streaming to the terminal."""
    from spikeloom import backends
    from spikeloom.inference.conditioned import conditioned_prompt
    from spikeloom.inference.generate import Sampling

    sampling = Sampling(temperature, top_p, seed, max_new_tokens)
    generator = backends.generator(backend, checkpoint)
    given = {"category": category, "source": source}
    start = conditioned_prompt(generator, checkpoint, prompt, given)
    pieces = []
    sys.stdout.write(prompt)
    for piece in generator.stream(start, sampling):
        pieces.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    _write_json({"prompt": prompt, "text": "".join(pieces), **generator.statistics()}, json_file)


@app.command()
def chat(
    checkpoint: Checkpoint,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens per answer.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 0.95,
    seed: Seed = 0,
    roles: Annotated[
        bool, typer.Option("--roles", help="Use the chat template (for a model tuned on it).")
    ] = False,
    json_file: Json = None,
) -> None:
    """Talk to a model; the state is kept between turns. /reset forgets, /quit or Ctrl-D leaves.

    Ctrl-C stops the answer only.
    """
    from spikeloom.inference.chat import chat as run_chat
    from spikeloom.inference.generate import Generator, Sampling

    sampling = Sampling(temperature, top_p, seed, max_new_tokens)
    turns = run_chat(Generator.load(checkpoint), sampling, roles)
    _write_json({"turns": turns}, json_file)


@app.command()
def verify(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CKPT", help="A checkpoint directory, or a preset's name.")
    ],
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
    print_verification(report)
    _write_json(report, json_file)
    if not report["passed"]:
        raise typer.Exit(1)


@app.command()
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
    print_profile(report, out)
    _write_json(report, json_file)


@app.command()
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
    _write_json({"presets": rows}, json_file)


@app.command()
def info(checkpoint: Checkpoint, json_file: Json = None) -> None:
    """Say what a checkpoint directory holds."""
    from rich.console import Console

    from spikeloom.evaluation.checkpoint import load
    from spikeloom.model.sizes import describe

    model, words = load(checkpoint)
    report = {"directory": str(checkpoint), **describe(model), "tokenizer_size": len(words)}
    for key, value in report.items():
        Console().print(f"[bold]{key}[/]: {value}", highlight=False)
    _write_json(report, json_file)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where it all goes.")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[float, typer.Option(help="Training time of the spiking model.")] = 3.0,
    json_file: Json = None,
) -> None:
    """The whole way in one go: train a spiking model and its twin, compare, draw, generate."""
    from spikeloom.demo import run_demo

    _write_json(run_demo(out, minutes), json_file)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which benchmark; `list` shows all.")],
    device: Device = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Few sizes: a look in seconds.")] = False,
    case: Annotated[
        str | None, typer.Option(metavar="CASE", help="Only this case: a preset, a size, a neuron.")
    ] = None,
    slow_peers: Annotated[
        bool, typer.Option("--slow-peers", help="Peers that compile or tune for long, too.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Measure ours beside its peers, in one process, as ratios (more than 1: ours is better).

    Rows are printed, and written to the JSON file, as they are measured. Peers are installed for
    this only: benchmarks/README.md says which, and how each figure is reproduced.
    """
    from spikeloom.bench import NAMES, load
    from spikeloom.bench.options import Options
    from spikeloom.bench.rows import HEAD, machine, markdown_line

    if name == "list":
        print("\n".join(f"{key:10} {what}" for key, what in NAMES.items()))
        return
    run, where, on = load(name), _device(device), machine()
    report: dict[str, Any] = {"results": [], "machine": on, "complete": False}
    for row in run(where, Options(quick, slow_peers, case)):
        if not report["results"]:
            print(HEAD)
        print(markdown_line(row), flush=True)
        report["results"].append(row.as_json())
        _write_json(report, json_file)  # an interrupted run leaves what it measured
    _write_json({**report, "complete": True}, json_file)


def main() -> None:
    """Entry point of the `spikeloom` command."""
    try:
        app()
    except SpikeloomError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in _DISK_ERRORS or error.filename is None:
            raise
        _refuse(f"{error.filename}: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _refuse("out of memory: use less text or context at a time, or a smaller --batch-size")


def _is_out_of_memory(error: Exception) -> bool:
    """On any device; torch's own class is known by name, to keep `--help` free of torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _refuse(why: str) -> None:
    print(f"error: {why}", file=sys.stderr)
    sys.exit(2)


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


def _device(name: str) -> str:
    import torch

    there = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    if name == "auto":
        return there[-1]
    if name.partition(":")[0] not in there:
        raise ConfigError(f"--device {name}: this machine has {' and '.join(there)}")
    return name


def _summary(metrics: dict[str, Any]) -> str:
    return (
        f"{metrics['steps']} steps, {metrics['tokens'] / 1e6:.1f} M tokens in "
        f"{metrics['seconds']:.0f} s; best held-out loss {metrics['eval_loss']:.3f}, "
        f"{metrics['eval_bits_per_byte']:.3f} bits per byte, "
        f"active share {metrics['eval_active_share']:.3f}"
    )


def _write_json(report: Any, file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
