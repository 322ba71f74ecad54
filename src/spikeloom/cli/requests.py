"""`spikeloom data requests`: stories to conversations that ask for them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from spikeloom.cli.options import SOURCE_HELP, Json, Seed
from spikeloom.cli.output import finish


def requests(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"Stories. {SOURCE_HELP}")],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Where the records go.")],
    licence: Annotated[str, typer.Option(help="Of the stories, for the manifest.")],
    plain: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="Of stories that nobody asks for.")
    ] = 0.3,
    rename: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Of heroes that get another name."),
    ] = 0.5,
    swap: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Of things that become other things."),
    ] = 0.5,
    max_words: Annotated[int, typer.Option(min=1, metavar="N", help="Leave out longer.")] = 350,
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Turn stories into requests and the stories that answer them, by rule, from their own words.

    spikeloom data requests stories.jsonl --licence CDLA-Sharing-1.0 --out requests.jsonl

    spikeloom train RUN --from RUN --data requests.jsonl --set training.chat=true --out tuned

    A share stays plain text, so that the model goes on telling stories unasked.
    """
    from spikeloom.data.manifest import write_whole
    from spikeloom.data.requests import make_records
    from spikeloom.data.sources import documents, files

    counts: Counter[str] = Counter()
    records = list(make_records(documents(source), counts, plain, rename, swap, max_words, seed))
    write_whole(out, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    facts = {"records": len(records), **dict(counts)}
    finish(out, source, licence, facts, json_file, files(source))
