"""Upload a folder of outputs to the Hugging Face hub, with a data card made from its manifests.

Only what a manifest answers for goes up: data files that are still what their manifest says, the
manifests, and the card. Everything else in the folder (caches, notes, keys) stays here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeloom.data.hub_card import Manifest, card, licences
from spikeloom.data.manifest import SUFFIX, changes, read_manifest
from spikeloom.errors import ConfigError, DataError, MissingExtraError

TOKEN = "HF_TOKEN"
_UNSTATED = {"", "unknown", "not stated"}


@dataclass(frozen=True)
class Plan:
    """What would be uploaded.

    Args:
        repo: OWNER/NAME.
        files: path in the data set -> file here.
        left_out: files of the folder that no manifest answers for.
        card: README.md of the data set; None if the folder brings its own.
    """

    repo: str
    files: dict[str, Path]
    left_out: list[str]
    card: str | None


def plan(folder: Path, repo: str) -> Plan:
    """Look through a folder; nothing is sent.

    Raises:
        ConfigError: `repo` is no name of a data set.
        DataError: no manifest, a file that changed since, or a licence that is not stated.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ConfigError(f"--repo {repo!r}: write OWNER/NAME")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    manifests = [_manifest(path, folder) for path in _manifest_paths(folder)]
    if not manifests:
        raise DataError(f"{folder} has no manifest: `spikeloom data` verbs leave one beside output")
    files: dict[str, Path] = {}
    for path in _manifest_paths(folder):
        files[path.relative_to(folder).as_posix()] = path
    for within, manifest in manifests:
        files |= {within + name: folder / within / name for name in manifest["files"]}
    own = folder / "README.md"
    text = None if own.is_file() else card(repo.partition("/")[2], manifests)
    if own.is_file():
        files["README.md"] = own
    return Plan(repo, dict(sorted(files.items())), _left_out(folder, files), text)


def upload(plan: Plan, private: bool = True, api: Any = None) -> str:
    """Send everything in one commit; return the address of the data set.

    Args:
        plan: see `plan`.
        private: if the data set has to be made, only its owner sees it.
        api: a `huggingface_hub.HfApi`; made with the token of the environment if None.

    Raises:
        ConfigError: there is no token.
        DataError: the hub refused or cannot be reached.
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hub") from None
    if not os.environ.get(TOKEN):
        raise ConfigError(f"{TOKEN} is not set: make a token with write access on the hub")
    api = api or HfApi(token=os.environ[TOKEN])
    sent: dict[str, Any] = {name: str(path) for name, path in plan.files.items()}
    if plan.card is not None:
        sent["README.md"] = plan.card.encode()
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=what) for name, what in sent.items()
    ]
    where = {"repo_id": plan.repo, "repo_type": "dataset"}
    try:
        api.create_repo(**where, private=private, exist_ok=True)
        api.create_commit(**where, operations=operations, commit_message="Data with its manifests")
    except Exception as exc:  # the client raises its own errors and those of its HTTP library
        first = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise DataError(f"{plan.repo}: the hub refused, or cannot be reached ({first})") from exc
    return f"https://huggingface.co/datasets/{plan.repo}"


def _manifest_paths(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if not _hidden(path.relative_to(folder))]
    return sorted(p for p in found if p.name == SUFFIX[1:] or p.name.endswith(SUFFIX))


def _manifest(path: Path, folder: Path) -> tuple[str, Manifest]:
    """The folder of the output's files within the data set (`` or `a/`), and the manifest."""
    output = path.parent if path.name == SUFFIX[1:] else path.with_name(path.name[: -len(SUFFIX)])
    manifest = read_manifest(output)
    for name in manifest["files"]:
        if not (path.parent / name).resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{path}: {name!r} lies outside of {folder}")
    if changed := changes(output):
        what = ", ".join(changed)
        raise DataError(f"{path} is not of these files any more: {what}: run its command again")
    if any(name in _UNSTATED for name in licences([manifest])):
        raise DataError(f"{path}: the licence is not stated: run its command with --licence")
    within = path.parent.relative_to(folder).as_posix()
    return ("" if within == "." else f"{within}/"), manifest


def _left_out(folder: Path, files: dict[str, Path]) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in found)
    return sorted(name for name in names if name not in files)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
