"""`spikeloom trace`: which training text a generation is nearest to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeloom.cli.options import Json, write_json
from spikeloom.errors import ConfigError


def trace(
    data: Annotated[
        Path, typer.Argument(metavar="DIR", help="What `data prepare` made: the training data.")
    ],
    text: Annotated[str | None, typer.Option(help="The text to trace.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="CKPT", help="… or the model to generate it with.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="How the generation begins.")] = "",
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens to generate.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the generation.")] = 0,
    most: Annotated[int, typer.Option(metavar="N", help="Chunks to show.")] = 5,
    json_file: Json = None,
) -> None:
    """Find the training chunks that a text, or a fresh generation, is nearest to.

    spikeloom trace corpus/prepared --checkpoint runs/books --prompt "It was the best of"

    Compared are rare runs of three tokens; the first call builds an index beside the shards.
    """
    from rich.console import Console
    from rich.table import Table

    from spikeloom.data.trace import Trace

    if (text is None) == (checkpoint is None):
        raise ConfigError("give either --text TEXT or --checkpoint CKPT")
    written = _generate(checkpoint, prompt, max_new_tokens, seed) if text is None else text
    hits = Trace(data).nearest(written, most)
    table = Table("chunk", "score", "tokens in a row", "document", "text", box=None)
    for hit in hits:
        known = (hit.about.get(name) for name in ("source", "category", "title"))
        named = " / ".join(str(value) for value in known if value)
        glimpse = " ".join(hit.text.split())[:100]
        table.add_row(hit.chunk, f"{hit.share:.2f}", str(hit.run), named, glimpse)
    console = Console()
    console.print(written, style="dim", markup=False, highlight=False)
    console.print(table, markup=False)
    write_json({"text": written, "chunks": [vars(hit) for hit in hits]}, json_file)


def _generate(checkpoint: Path | None, prompt: str, max_new_tokens: int, seed: int) -> str:
    from spikeloom.inference.generate import Generator, Sampling

    assert checkpoint is not None
    sampling = Sampling(seed=seed, max_new_tokens=max_new_tokens)
    return prompt + "".join(Generator.load(checkpoint).stream(prompt, sampling))
