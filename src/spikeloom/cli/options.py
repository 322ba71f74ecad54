"""Options that several verbs share, and how a result is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.errors import ConfigError

SOURCE_HELP = (
    "SOURCE: a .txt/.md/.jsonl/.parquet file (also .gz/.bz2/.xz/.zst), a folder or glob of them, "
    "hub:NAME[:split][:column], python-docs, or several joined by commas; or what `data prepare` "
    "made."
)
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")
]


def shipped() -> Path:
    """The checkpoint of a verb that was given none."""
    from spikeloom.pretrained import pretrained_path

    return pretrained_path()


_SHIPPED = "the shipped model"
Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT",
        help="A checkpoint directory.",
        default_factory=shipped,
        show_default=_SHIPPED,
    ),
]
Checkpoints = Annotated[
    list[Path],
    typer.Argument(
        metavar="CKPT",
        help="Checkpoint directories.",
        default_factory=lambda: [shipped()],
        show_default=_SHIPPED,
    ),
]
CheckpointOrPreset = Annotated[
    str,
    typer.Argument(
        metavar="CKPT",
        help="A checkpoint directory, or a preset's name.",
        default_factory=lambda: str(shipped()),
        show_default=_SHIPPED,
    ),
]
Data = Annotated[str, typer.Option("--data", metavar="SOURCE", help=SOURCE_HELP)]
Part = Annotated[
    str,
    typer.Option(
        metavar="all|train|eval",
        help="eval: the 5% that `train` holds out, unless it had --eval-data.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto.")]
Seed = Annotated[int, typer.Option(help="Seed of the random choices.")]
Backend = Annotated[str, typer.Option(metavar="torch|numpy|mlx", help="What computes.")]


def device_of(name: str) -> str:
    import torch

    there = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    if name == "auto":
        return there[-1]
    if name.partition(":")[0] not in there:
        raise ConfigError(f"--device {name}: this machine has {' and '.join(there)}")
    return name


def write_json(report: Any, file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")
