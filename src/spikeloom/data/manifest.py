"""The note that lies beside every output of `spikeloom data`: where it came from, and what it is.

    articles.jsonl      -> articles.jsonl.manifest.json
    shards/ (a folder)  -> shards/manifest.json

    {"format": 1, "output": "articles.jsonl", "date": "2026-11-22T10:00:00Z",
     "source": "https://en.wikipedia.org", "licence": "CC BY-SA 4.0",
     "counts": {"articles": 100}, "command": "spikeloom data wikipedia --out articles.jsonl …",
     "inputs": [{"path": "titles.txt", "bytes": 120, "sha256": "…"}],
     "files": {"articles.jsonl": {"bytes": 4711, "sha256": "…"}}, "spikeloom": "0.1.0"}

Call `write_manifest(output, source=…, licence=…, counts=…, command=this_command(), inputs=[…])`
once, when the output is whole; `read_manifest(output)` gives it back; `changes(output)` tells
whether the output is still what the manifest describes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spikeloom import __version__
from spikeloom.errors import DataError

FORMAT = 1
SUFFIX = ".manifest.json"
PRIVATE_OPTIONS = ("--contact",)  # their values stay out of the manifest, which gets published

_FIELDS = ("output", "date", "source", "licence", "counts", "command", "inputs", "files", "format")


def manifest_path(output: Path) -> Path:
    """Where the manifest of a file or a folder lies."""
    return output / "manifest.json" if output.is_dir() else output.with_name(output.name + SUFFIX)


def write_manifest(
    output: Path,
    *,
    source: str,
    licence: str | Sequence[str],
    counts: Mapping[str, Any],
    command: str,
    inputs: Iterable[Path] = (),
    skip: Iterable[str] = (),
) -> Path:
    """Write the manifest of a finished output, in one step, and return its path.

    Args:
        output: the file, or the folder whose files (recursively, hidden ones left out) are hashed.
        source: where the data came from: an address, or the names of the inputs.
        licence: one licence, or all that occur in the output.
        counts: what was kept and what was dropped, and why; any JSON-able tree.
        command: what was typed, see `this_command`.
        inputs: local files that were read; they are hashed too.
        skip: names of files in the folder that are not part of the output (caches).
    """
    path = manifest_path(output)
    manifest = {
        "format": FORMAT,
        "output": output.resolve().name,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "source": source,
        "licence": licence if isinstance(licence, str) else sorted(set(licence)),
        "counts": dict(counts),
        "command": command,
        "inputs": [{"path": _without_home(str(file)), **_facts(file)} for file in inputs],
        "files": {name: _facts(file) for name, file in _files(output, set(skip)).items()},
        "spikeloom": __version__,
    }
    write_whole(path, json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n")
    return path


def read_manifest(output: Path) -> dict[str, Any]:
    """The manifest beside an output.

    Raises:
        DataError: there is none, or it is not a manifest of ours.
    """
    path = manifest_path(output)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{output} has no manifest: {path} does not exist") from None
    except ValueError as exc:
        raise DataError(f"{path} is not JSON ({exc})") from exc
    if not isinstance(manifest, dict) or (missing := [f for f in _FIELDS if f not in manifest]):
        lacks = f": it lacks '{missing[0]}'" if isinstance(manifest, dict) else ""
        raise DataError(f"{path} is not a manifest of spikeloom{lacks}")
    if manifest["format"] != FORMAT:
        raise DataError(f"{path}: format {manifest['format']!r} is unknown, expected {FORMAT}")
    return manifest


def changes(output: Path) -> list[str]:
    """Files of the manifest that are gone or hold something else by now; empty if all is well."""
    root = output if output.is_dir() else output.parent
    return [
        name
        for name, facts in read_manifest(output)["files"].items()
        if not (root / name).is_file() or _facts(root / name) != facts
    ]


def this_command() -> str:
    """What was typed, quoted for a shell; the values of `PRIVATE_OPTIONS` are left out."""
    words, hide = ["spikeloom"], False
    for word in sys.argv[1:]:
        name, equals, _ = word.partition("=")
        if name in PRIVATE_OPTIONS and equals:
            word = f"{name}=…"
        words.append("…" if hide else word)
        hide = word in PRIVATE_OPTIONS
    return _without_home(shlex.join(words))


def _without_home(text: str) -> str:
    """Whose home directory it was is nobody's business."""
    return text.replace(f"{Path.home()}/", "~/")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def _files(output: Path, skip: set[str]) -> dict[str, Path]:
    if output.is_file():
        return {output.name: output}
    found = {path.relative_to(output): path for path in sorted(output.rglob("*"))}
    return {
        name.as_posix(): path
        for name, path in found.items()
        if path.is_file()
        and name.as_posix() != "manifest.json"
        and name.name not in skip
        and not any(part.startswith(".") for part in name.parts)
    }


def _facts(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}
