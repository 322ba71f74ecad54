"""What the verbs of `spikeloom data` share: options, and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli.options import write_json

_UNSAID = ("categories",)  # long: in the manifest only
Out = Annotated[
    Path, typer.Option(metavar="FILE.jsonl", help="Where records go; a second run adds to it.")
]


def finish(
    out: Path,
    source: str,
    licence: str | list[str],
    counts: dict[str, Any],
    json_file: Path | None,
    inputs: list[Path] | None = None,
) -> None:
    """Leave the manifest, and say what there is now."""
    from spikeloom.data.manifest import this_command, write_manifest

    command = this_command()
    write_manifest(
        out, source=source, licence=licence, counts=counts, command=command, inputs=inputs or []
    )
    print(f"{out}: {in_words({k: v for k, v in counts.items() if k not in _UNSAID})}")
    write_json({"output": str(out), "licence": licence, **counts}, json_file)


def in_words(counts: dict[str, Any]) -> str:
    """`12 articles, 3 new; passed over: 2 missing`, for counts in one level of groups."""
    plain = [
        f"{value} {name.replace('_', ' ')}"
        for name, value in counts.items()
        if isinstance(value, int | float)
    ]
    groups = [
        f"{name.replace('_', ' ')}: " + ", ".join(f"{n} {what}" for what, n in value.items())
        for name, value in counts.items()
        if isinstance(value, dict) and value
    ]
    return "; ".join([", ".join(plain), *groups])
