"""The verbs of `spikeloom data` that work on text at hand: clean it, build and pack a corpus.

Like cli.py: one function per verb, and what a verb needs is imported when it runs.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli_data import data_app
from spikeloom.errors import ConfigError

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A .txt/.md/.jsonl/.parquet file (also .gz/.xz/.zst), a folder or glob of them, "
        "hub:NAME[:split][:column], or several joined by commas.",
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")
]


@data_app.command()
def prepare(
    source: Source,
    out: OutFolder,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A tokenizer, or a checkpoint that has one.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Train the tokenizer that this preset wants.")
    ] = None,
    context: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Row length to count rows for; repeatable. [256 1024 2048]"),
    ] = None,
    eval_share: Annotated[float, typer.Option(help="Share of documents held out.")] = 0.05,
    seed: Annotated[
        int | None, typer.Option(help="Shuffle the documents; else they keep their order.")
    ] = None,
    shard_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of a shard.")] = 1 << 26,
    json_file: Json = None,
) -> None:
    """Tokenise a source into memory-mapped shards, split into training and held-out documents.

    spikeloom data prepare corpus.jsonl.xz --preset spikeloom-6m --out prepared

    `spikeloom train … --data DIR` reads it at any context. Stopped, the same command goes on at
    the last shard that was finished, and ends with the same bytes.
    """
    from spikeloom.data.prepare import CONTEXTS, Layout
    from spikeloom.data.prepare import prepare as run

    layout = Layout(tuple(context or CONTEXTS), eval_share, seed, shard_tokens)
    began = time.perf_counter()
    statistics = run(source, _tokenizer(source, out, tokenizer, preset), out, layout)
    _print_prepared(out, statistics, time.perf_counter() - began)
    _write_json({"directory": str(out), **statistics}, json_file)


def _tokenizer(source: str, out: Path, directory: Path | None, preset: str | None) -> Any:
    """The one asked for; for a preset that of an earlier sitting, or a new one."""
    from spikeloom import tokenizers
    from spikeloom.config import load_config
    from spikeloom.data.sources import documents

    if (directory is None) == (preset is None):
        raise ConfigError("give either --tokenizer DIR or --preset NAME")
    if directory is not None:
        return tokenizers.load(directory)
    assert preset is not None
    wanted = load_config(preset).tokenizer
    if (out / "tokenizer").is_dir():
        return tokenizers.load(out / "tokenizer")
    return tokenizers.train(wanted.kind, documents(source), wanted.vocab_size)


def _print_prepared(out: Path, statistics: dict[str, Any], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "documents", "MB", "tokens", "bytes/token", box=None)
    for kind in ("sources", "parts"):
        for name, counts in statistics[kind].items():
            ratio = counts["bytes"] / counts["tokens"]
            table.add_row(
                name,
                f"{counts['documents']:,}",
                f"{counts['bytes'] / 1e6:.2f}",
                f"{counts['tokens']:,}",
                f"{ratio:.2f}",
            )
        table.add_section()
    console = Console()
    console.print(table)
    for context, rows in statistics["rows"].items():
        console.print(f"context {context}: {rows['train']:,} rows, {rows['eval']:,} held out")
    speed = sum(counts["bytes"] for counts in statistics["parts"].values()) / 1e6 / seconds
    took = f"{seconds:.1f} s, {speed:.1f} MB/s"
    console.print(f"{out}: ready for `spikeloom train … --data {out}` ({took})")


def _write_json(report: Any, file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")
