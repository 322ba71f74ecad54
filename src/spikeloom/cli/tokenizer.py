"""`spikeloom tokenizer …`: learn one, put several side by side, look at what one does to a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli.options import Json, Part, write_json
from spikeloom.errors import ConfigError

tokenizer_app = typer.Typer(
    name="tokenizer",
    help="Learn a tokenizer from text, compare tokenizers, see how one cuts a text.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PARTS = ("all", "train", "eval")
_HEADS = (
    *("tokens", "bytes/\ntoken", "chars/\ntoken", "tokens/\nword"),
    *("MB/s", "used", "bytes", "restored"),
)
_COLOURS = ("black on cyan", "black on yellow", "black on green", "black on magenta")

Data = Annotated[
    str, typer.Option("--data", metavar="SOURCE", help="Text; `spikeloom train --help` says how.")
]


@tokenizer_app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the tokenizer goes.")],
    kind: Annotated[
        str, typer.Option(metavar="bpe|syllable|char", help="Syllables are English ones.")
    ] = "bpe",
    vocab_size: Annotated[
        int, typer.Option(metavar="N", help="The most tokens; fewer if the text gives no more.")
    ] = 4096,
    part: Part = "all",
    json_file: Json = None,
) -> None:
    """Learn a tokenizer from text.

    spikeloom tokenizer train --kind syllable --vocab-size 2000 --data python-docs --out runs/syl

    DIR is read by `spikeloom train --tokenizer DIR` and by AutoTokenizer of transformers. All
    kinds write any text and give it back exactly, and all know the chat format.
    """
    from time import perf_counter

    from rich.console import Console

    from spikeloom import tokenizers

    if (out / "tokenizer.json").exists():
        raise ConfigError(f"{out} holds a tokenizer already: give another --out, or delete it")
    out.mkdir(parents=True, exist_ok=True)
    began = perf_counter()
    with Console(stderr=True).status(f"learning {kind} from {data}"):
        learned = tokenizers.train(kind, _documents(data, part), vocab_size)
    seconds = perf_counter() - began
    learned.save_pretrained(out)
    count = tokenizers.size(learned)
    print(f"{out}: {kind}, {count:,} tokens, learned in {seconds:.0f} s")
    report = {"directory": str(out), "kind": kind, "vocab_size": count, "seconds": seconds}
    report |= {"source": data, "part": part, "fingerprint": tokenizers.fingerprint(learned)}
    write_json(report, json_file)


@tokenizer_app.command()
def compare(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Tokenizers, or checkpoints with one.")
    ],
    data: Data,
    part: Part = "all",
    max_bytes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Read documents until they hold so much.")
    ] = 10_000_000,
    json_file: Json = None,
) -> None:
    """Put tokenizers side by side on the same text: length, speed, vocabulary.

    MB/s is encoding by one core, in processor time; `used` the share of the vocabulary that occurs;
    `bytes` the share of tokens that say less than a character, or that it is unknown; `restored`
    the share of documents that come back exactly.
    """
    from dataclasses import asdict

    from rich.console import Console

    from spikeloom import tokenizers
    from spikeloom.tokenizers.measure import measure

    loaded = [(path, tokenizers.load(path)) for path in directories]
    texts = _first(_documents(data, part), max_bytes)
    rows = []
    for path, words in loaded:
        with Console(stderr=True).status(f"measuring {path}"):
            rows.append({"directory": str(path), **asdict(measure(words, texts))})
    about = {"source": data, "part": part, "documents": len(texts)}
    about["bytes"] = sum(len(text.encode()) for text in texts)
    write_json({**about, "rows": rows}, json_file)
    _print_rows(rows, about)


@tokenizer_app.command()
def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A tokenizer or checkpoint.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is cut.")],
    json_file: Json = None,
) -> None:
    """Show the tokens of a text, in colours, with ids and offsets (in characters)."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from spikeloom import tokenizers
    from spikeloom.tokenizers.measure import pieces

    found = pieces(tokenizers.load(directory), text)
    line, table = Text(), Table("token", "id", "offsets", "text", box=None)
    for index, piece in enumerate(found):
        colour, there = _COLOURS[index % len(_COLOURS)], text[piece.start : piece.end]
        line.append(_visible(piece.token), colour)
        offsets = f"{piece.start}-{piece.end}"
        cells = (_visible(piece.token), str(piece.id), offsets, repr(there))
        table.add_row(Text(cells[0], colour), *map(Text, cells[1:]))
    console = Console()
    console.print(line)
    console.print(table)
    console.print(f"{len(found)} tokens, {len(text)} characters", highlight=False)
    write_json({"text": text, "tokens": [asdict(piece) for piece in found]}, json_file)


def _documents(source: str, part: str) -> Iterator[str]:
    from spikeloom.data.sources import documents
    from spikeloom.data.split import split_documents

    if part not in _PARTS:
        raise ConfigError(f"part '{part}' is unknown: use {', '.join(_PARTS)}")
    texts = documents(source)
    return texts if part == "all" else split_documents(texts, part)  # type: ignore[arg-type]


def _first(documents: Iterator[str], max_bytes: int) -> list[str]:
    texts, left = [], max_bytes
    for text in documents:
        texts.append(text)
        left -= len(text.encode())
        if left <= 0:
            break
    return texts


def _print_rows(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    table.add_column("tokenizer", overflow="fold")
    for head in _HEADS:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            row["directory"],
            f"{row['vocab_size']:,}",
            f"{row['bytes_per_token']:.2f}",
            f"{row['characters_per_token']:.2f}",
            f"{row['tokens_per_word']:.2f}",
            f"{row['megabytes_per_second']:.1f}",
            f"{row['vocabulary_use']:.1%}",
            f"{row['byte_share']:.2%}",
            f"{row['restored']:.0%}",
        )
    console = Console()
    console.print(table)
    size = f"{about['documents']:,} documents, {about['bytes'] / 1e6:.2f} MB"
    console.print(f"[dim]{about['source']} ({about['part']}): {size}[/]", highlight=False)


def _visible(token: str) -> str:
    """White space and control characters as signs; a space at the beginning as a dot."""
    shown = token.replace(" ", "·")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
