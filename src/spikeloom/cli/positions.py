"""`spikeloom positions`: what a long context is worth to models, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeloom.cli.options import Checkpoints, Data, Device, Json, Part, device_of, write_json
from spikeloom.errors import ConfigError


def positions(
    checkpoints: Checkpoints,
    data: Data,
    part: Part = "all",
    edges: Annotated[
        str | None,
        typer.Option(metavar="N,N,…", help="Bucket edges in tokens; default 0,64,128,…,16384."),
    ] = None,
    max_documents: Annotated[
        int | None, typer.Option(metavar="N", help="Read at most so many documents.")
    ] = None,
    chunk: Annotated[int, typer.Option(help="Tokens read at a time.")] = 1024,
    batch_size: Annotated[int, typer.Option(help="Documents side by side.")] = 4,
    device: Device = "auto",
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw bits per byte over position.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Measure bits per byte over the position in long texts, such as whole books.

    spikeloom positions runs/sdsa runs/window runs/full --data books/valid.jsonl --picture long.png

    Texts are read from their first token, with the state carried on; those that do not reach the
    last edge are left out. Positions are counted in tokens, so all models need one tokenizer.
    """
    from spikeloom.data.packing import pack
    from spikeloom.evaluation import pictures
    from spikeloom.evaluation.checkpoint import load
    from spikeloom.evaluation.compare import names, same_tokenizer
    from spikeloom.evaluation.positions import EDGES, evaluate_by_position
    from spikeloom.evaluation.text_report import print_positions

    bounds = EDGES if edges is None else _numbers(edges)
    loaded = [load(checkpoint, device=device_of(device)) for checkpoint in checkpoints]
    if not same_tokenizer([words for _, words in loaded]):
        raise ConfigError("these models have different tokenizers: measure them one at a time")
    rows = []
    for name, (model, words) in zip(names(checkpoints), loaded, strict=True):
        report = evaluate_by_position(
            model,
            words,
            pack(data, words, part=part),  # type: ignore[arg-type]
            edges=bounds,
            max_documents=max_documents,
            chunk=chunk,
            batch_size=batch_size,
        )
        report["protocol"] |= {"source": data, "part": part}
        rows.append({"name": name, **report})
    write_json({"models": rows}, json_file)
    print_positions(rows)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        pictures.by_position(rows, picture)


def _numbers(edges: str) -> list[int]:
    try:
        return [int(edge) for edge in edges.split(",")]
    except ValueError:
        raise ConfigError(f"--edges {edges}: give whole numbers, as in 0,64,128,256") from None
