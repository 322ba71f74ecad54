"""`spikeloom data …`: verbs on text at hand, that clean it, and build and pack a corpus."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli.options import Json, write_json
from spikeloom.errors import ConfigError

prepare_app = typer.Typer()

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A .txt/.md/.jsonl/.parquet file (also .gz/.xz/.zst), a folder or glob of them, "
        "hub:NAME[:split][:column], or several joined by commas.",
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")]


@prepare_app.command()
def clean(
    source: Source,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="A .jsonl, .jsonl.gz or .jsonl.xz file.")
    ],
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rules; `data rules` prints the default.")
    ] = None,
    redact: Annotated[
        str | None,
        typer.Option(
            metavar="patterns|presidio|CKPT",
            help="Replace personal data by [KIND]: by form, by presidio, or by a tagger of ours.",
        ),
    ] = None,
    lossy_tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Remove paragraphs that this tokenizer cannot write."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Source that the records name.")] = None,
    category: Annotated[str | None, typer.Option(help="Category that the records name.")] = None,
    category_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="… or the column that holds it.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence that the records name.")] = None,
    processes: Annotated[int, typer.Option(metavar="N", help="Worker processes.")] = 2,
    json_file: Json = None,
) -> None:
    """Put text in order, drop what is foreign, poor, unwanted or a duplicate; say what and why.

    spikeloom data clean books/ --out clean.jsonl.xz --name books --licence "public domain"

    Paragraphs with <unk> in them are removed; the other columns of a record come along.
    """
    from spikeloom.data.cleaning.pipeline import Labelled, Options
    from spikeloom.data.cleaning.pipeline import clean as run
    from spikeloom.data.cleaning.rules import load_rules

    given = {"source": name, "category": category, "licence": licence}
    about = {key: value for key, value in given.items() if value is not None}
    began = time.perf_counter()
    report = run(
        [Labelled(source, about, category_column)],
        out,
        load_rules(rules),
        Options(
            _finder(redact), None if lossy_tokenizer is None else str(lossy_tokenizer), processes
        ),
    )
    _print_cleaned(out, report, time.perf_counter() - began)
    write_json({"file": str(out), **vars(report)}, json_file)


def _finder(redact: str | None) -> Any:
    """A tagger where a directory is named; else the name of a finder."""
    if redact is None or not Path(redact).is_dir():
        return redact
    from spikeloom.evaluation.tagging import TaggerFinder, load_tagger

    load_tagger(redact)  # to fail before the first byte
    return TaggerFinder(redact)


@prepare_app.command()
def rules(json_file: Json = None) -> None:
    """Print the default rules of `data clean`, to be copied and changed."""
    from dataclasses import asdict

    from spikeloom.data.cleaning.rules import default_rules, load_rules

    print(default_rules(), end="")
    write_json(asdict(load_rules()), json_file)


@prepare_app.command()
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
    fresh, began = not out.exists(), time.perf_counter()
    statistics = run(source, _tokenizer(source, out, tokenizer, preset), out, layout)
    _print_prepared(out, statistics)
    seconds = time.perf_counter() - began
    megabytes = sum(counts["bytes"] for counts in statistics["parts"].values()) / 1e6
    speed = f", {megabytes / seconds:.1f} MB/s" if fresh else " for what was not there yet"
    print(f"{seconds:.1f} s{speed}")
    write_json({"directory": str(out), **statistics}, json_file)


@prepare_app.command()
def build(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.yaml", help="See docs/data-prepare.md.")
    ],
    out: OutFolder,
    processes: Annotated[int, typer.Option(metavar="N", help="Worker processes.")] = 2,
    json_file: Json = None,
) -> None:
    """Make a corpus from a recipe: clean its sources, train its tokenizer, prepare its shards.

    spikeloom data build recipe.yaml --out corpus

    Then `spikeloom train … --data corpus/prepared`. Steps that were finished are not done again.
    """
    from spikeloom.data.build import PREPARED_FOLDER, load_recipe
    from spikeloom.data.build import build as run

    began = time.perf_counter()
    statistics = run(load_recipe(recipe), out, processes)
    cleaned = statistics["clean"]
    for name, counts in cleaned["sources"].items():
        dropped = counts.get("dropped", 0)
        print(f"{name}: {counts.get('documents', 0):,} documents kept, {dropped:,} dropped")
    for rule, number in cleaned["dropped"].items():
        print(f"  dropped by {rule}: {number:,}, such as {cleaned['samples'][rule][0]}")
    _print_prepared(out / PREPARED_FOLDER, statistics["prepared"])
    print(f"{time.perf_counter() - began:.0f} s for all that was not there yet")
    write_json({"directory": str(out), **statistics}, json_file)


@prepare_app.command()
def curriculum(
    source: Source,
    out: OutFolder,
    limit: Annotated[int, typer.Option(metavar="N", help="Most pieces of a phase.")] = 50_000,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Count lengths in its tokens as well.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Cut a corpus into phases: words, phrases, sentences, stories, conversations.

    spikeloom data curriculum books/ --out curriculum

    DIR gets a .jsonl a phase, and phases.yaml with their order and sequence lengths.
    """
    from rich.console import Console
    from rich.table import Table

    from spikeloom import tokenizers
    from spikeloom.data.curriculum import QUANTILES, build_curriculum

    words = None if tokenizer is None else tokenizers.load(tokenizer)
    statistics = build_curriculum(source, out, limit, seed, words)
    unit = "characters" if words is None else "tokens"
    shares = [f"{share:.0%}" for share in QUANTILES]
    table = Table("phase", "pieces", "found", unit, *shares, "context", box=None)
    for phase, facts in statistics.items():
        row = [phase, f"{facts['count']:,}", f"{facts['found']:,}"]
        if facts["count"]:
            lengths = [str(facts["length"][unit][share]) for share in shares]
            row += [f"{facts[unit]:,}", *lengths, str(facts["context"])]
        table.add_row(*row)
    Console().print(table)
    write_json({"directory": str(out), "phases": statistics}, json_file)


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


def _print_cleaned(out: Path, report: Any, seconds: float) -> None:
    import resource

    from rich.console import Console
    from rich.table import Table

    table = Table("", "documents", "for example", box=None)
    for kind in ("dropped", "changed"):
        for rule, number in getattr(report, kind).most_common():
            examples = report.samples.get(rule, report.samples.get(rule.partition(":")[0], []))
            table.add_row(f"{kind}: {rule}", f"{number:,}", "\n".join(examples))
    console = Console(highlight=False)
    console.print(table, markup=False) if table.row_count else None
    read, kept = report.read, report.kept
    peaks = [resource.getrusage(who).ru_maxrss for who in (0, resource.RUSAGE_CHILDREN)]
    console.print(
        f"{out}: {kept['documents']:,} of {read['documents']:,} documents, "
        f"{kept['bytes'] / 1e6:.1f} of {read['bytes'] / 1e6:.1f} MB, {seconds:.1f} s, "
        f"peak memory {peaks[0] / 1024:.0f} MB here, {peaks[1] / 1024:.0f} MB in the largest worker"
    )


def _print_prepared(out: Path, statistics: dict[str, Any]) -> None:
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
    print(f"{out}: ready for `spikeloom train … --data {out}`")
