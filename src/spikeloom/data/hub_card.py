"""The data card of a folder: its manifests, told to a reader and to the hub.

The hub reads the YAML at the top (licence, which files make which configuration); a person reads
where each file came from, how it was made, and how to make it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

Manifest = dict[str, Any]
_PLAIN = {"mit": "mit", "apache-2.0": "apache-2.0", "cdla-sharing-1.0": "cdla-sharing-1.0"}
_CREATIVE_COMMONS = re.compile(r"cc (by(?:-nc)?(?:-sa|-nd)?) (\d\.\d)")


def card(name: str, manifests: list[tuple[str, Manifest]]) -> str:
    """README.md for the hub.

    Args:
        name: of the data set.
        manifests: with the folder each one's files are in, relative to the data set (`` or `a/`).
    """
    parts = [f"---\n{_front(manifests)}---\n\n# {name}\n"]
    parts += [_section(folder, manifest) for folder, manifest in manifests]
    parts.append("Made with spikeloom; each manifest holds sizes and SHA-256 of its files.\n")
    return "\n".join(parts)


def hub_licence(name: str) -> str:
    """The hub's identifier of a licence, `other` if it has none."""
    plain = name.strip().lower()
    if match := _CREATIVE_COMMONS.fullmatch(plain):
        return f"cc-{match[1]}-{match[2]}"
    return "cc0-1.0" if plain == "cc0 1.0" else _PLAIN.get(plain, "other")


def licences(manifests: Iterable[Manifest]) -> list[str]:
    """Every licence that is named, each once, sorted."""
    named = (m["licence"] for m in manifests)
    return sorted({one for n in named for one in ([n] if isinstance(n, str) else n)})


def _front(manifests: list[tuple[str, Manifest]]) -> str:
    known = sorted({hub_licence(name) for name in licences(m for _, m in manifests)})
    paths = [folder + file for folder, manifest in manifests for file in manifest["files"]]
    configs = [
        {"config_name": re.sub(r"\W+", "_", path.partition(".")[0]), "data_files": path}
        for path in sorted(paths)
        if path.endswith((".jsonl", ".parquet"))
    ]
    front: dict[str, Any] = {"license": known[0] if len(known) == 1 else known}
    front |= {"tags": ["spikeloom"]} | ({"configs": configs} if configs else {})
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


def _section(folder: str, manifest: Manifest) -> str:
    licence = manifest["licence"]
    facts = {
        "source": manifest["source"],
        "licence": licence if isinstance(licence, str) else ", ".join(licence),
        "date": manifest["date"],
        "command": f"`{manifest['command']}`",
    }
    lines = [f"## {folder}{manifest['output']}\n", "| | |", "|---|---|"]
    counts = {key: _told(value) for key, value in manifest["counts"].items() if value}
    lines += [f"| {key} | {_cell(value)} |" for key, value in (facts | counts).items()]
    lines += ["", "| file | bytes | sha256 |", "|---|---|---|"]
    files = manifest["files"].items()
    lines += [f"| {folder}{file} | {f['bytes']} | `{f['sha256'][:16]}…` |" for file, f in files]
    return "\n".join(lines) + "\n"


def _told(value: Any) -> str:
    if isinstance(value, dict):
        most = sorted(value.items(), key=lambda item: str(item[0]))[:20]
        more = f", … ({len(value)} in all)" if len(value) > len(most) else ""
        return ", ".join(f"{key}: {n}" for key, n in most) + more
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
