"""Verbs that make a checkpoint fit to be handed on: slim it, and write its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeloom.cli.options import Checkpoint, Json, Seed, write_json
from spikeloom.errors import ConfigError

ship_app = typer.Typer()


@ship_app.command()
def slim(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")],
    json_file: Json = None,
) -> None:
    """Write a checkpoint to be shipped: bfloat16 weights, tokenizer, config; no training state.

    spikeloom slim runs/stories --out stories
    """
    from spikeloom.export.slim import slim as write_slim

    report = write_slim(checkpoint, out)
    size = report["weight_bytes"] / 2**20
    write_json(report, json_file)
    print(f"{out}: {report['parameters'] / 1e6:.2f} M parameters, weights of {size:.2f} MiB")


@ship_app.command()
def card(
    checkpoint: Checkpoint,
    name: Annotated[str, typer.Option(help="Of the model.")],
    data: Annotated[
        list[str],
        typer.Option(metavar="NAME=LICENCE", help="A data set it learned from; repeatable."),
    ],
    evaluations: Annotated[
        list[str] | None,
        typer.Option("--eval", metavar="NAME=FILE", help="What `eval --json` wrote; repeatable."),
    ] = None,
    verification: Annotated[
        Path | None, typer.Option("--verify", metavar="FILE", help="What `verify --json` wrote.")
    ] = None,
    comparison: Annotated[
        Path | None, typer.Option("--compare", metavar="FILE", help="What `compare --json` wrote.")
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--run", metavar="DIR", help="A run that led here, the first one first; repeatable."
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "Apache-2.0",
    samples: Annotated[int, typer.Option(min=0, metavar="N", help="Samples to draw.")] = 10,
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Write the README.md of a checkpoint: data, training, figures, limits, unpicked samples.

    spikeloom card stories --name stories-7m --data "TinyStories=CDLA-Sharing-1.0" --eval
    tinystories=eval.json --verify verify.json
    """
    from spikeloom.export.card import Facts, write_card

    facts = Facts(
        name=name,
        licence=licence,
        data=dict(_pair("--data", each) for each in data),
        evaluations={k: Path(v) for k, v in (_pair("--eval", e) for e in evaluations or [])},
        verification=verification,
        comparison=comparison,
        runs=runs or (),
    )
    text = write_card(checkpoint, facts, samples, seed)
    write_json({"card": text}, json_file)
    print(text)


def _pair(option: str, given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"{option} {given}: expected NAME=VALUE")
    return name, value
