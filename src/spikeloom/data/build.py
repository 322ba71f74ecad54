"""A corpus from a recipe, by one command: clean the sources, train a tokenizer, prepare shards.

    DIR/clean.jsonl.xz    the cleaned documents, with source, category and licence in every record
    DIR/prepared/         what `spikeloom train --data DIR/prepared` takes
    DIR/manifest.json     sources, licences, counts of every step, hashes of every file

Each step is skipped if it was finished by an earlier run of the same recipe on the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from spikeloom import tokenizers
from spikeloom.config import TokenizerConfig
from spikeloom.data import sources
from spikeloom.data.cleaning.judge import Options
from spikeloom.data.cleaning.pipeline import Labelled, clean
from spikeloom.data.cleaning.rules import load_rules
from spikeloom.data.manifest import read_manifest, this_command, write_manifest, write_whole
from spikeloom.data.packing import EVAL_SHARE, SHARD_TOKENS
from spikeloom.data.prepare import CONTEXTS, Layout, prepare
from spikeloom.errors import ConfigError, DataError
from spikeloom.strict import build as build_strictly
from spikeloom.strict import parse_yaml, require, to_dict

CLEAN, PREPARED_FOLDER = "clean.jsonl.xz", "prepared"

_DONE = ".recipe.json"  # what the cleaned file was made by


@dataclass(frozen=True)
class RecipeSource:
    """One line of a recipe's `sources`.

    Attributes:
        source: see `spikeloom.data.sources`; relative paths start at the recipe's folder.
        name: what records name as their `source`.
        licence: of all its documents.
        category: of all its documents; or
        category_column: the column that names it.
    """

    source: str
    name: str
    licence: str
    category: str | None = None
    category_column: str | None = None

    def __post_init__(self) -> None:
        both = self.category is not None and self.category_column is not None
        require(not both, "category", self.category, "either category or category_column")
        for key in ("source", "name", "licence"):
            require(bool(getattr(self, key).strip()), key, getattr(self, key), "a text")

    def labelled(self) -> Labelled:
        """The source with its labels."""
        about = {"source": self.name, "licence": self.licence}
        if self.category is not None:
            about["category"] = self.category
        return Labelled(self.source, about, self.category_column)


@dataclass(frozen=True)
class Recipe:
    """A recipe file.

    Attributes:
        sources: in the order in which they are read; the first of two duplicates stays.
        rules: rule file of `data clean`; null for the default one.
        redact: `patterns` or `presidio`; null leaves personal data.
        tokenizer: kind and size of the tokenizer to train on the cleaned text; or
        tokenizer_directory: one that is there already.
        contexts, eval_share, seed, shard_tokens: see `spikeloom.data.prepare.Layout`.
    """

    sources: tuple[RecipeSource, ...]
    rules: str | None = None
    redact: str | None = None
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    tokenizer_directory: str | None = None
    contexts: tuple[int, ...] = CONTEXTS
    eval_share: float = EVAL_SHARE
    seed: int | None = 0
    shard_tokens: int = SHARD_TOKENS

    def __post_init__(self) -> None:
        names = [each.name for each in self.sources]
        require(bool(names), "sources", names, "at least one")
        require(len(set(names)) == len(names), "sources", names, "a name of its own for each")

    @property
    def layout(self) -> Layout:
        return Layout(self.contexts, self.eval_share, self.seed, self.shard_tokens)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe; paths in it start at its own folder.

    Raises:
        ConfigError: it cannot be read, or has an unknown key or an impossible value.
    """
    path = Path(path)
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(tree, dict) or "sources" not in tree:
        raise ConfigError(f"{path}: a recipe needs a list of 'sources'")
    recipe: Recipe = build_strictly(Recipe, tree, "")
    return _from_folder(recipe, path.parent)


def build(
    recipe: Recipe, out: str | Path, processes: int = 2, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Make the corpus of a recipe, or what is missing of it.

    Args:
        recipe: what to make.
        out: folder to make it in.
        processes: workers of the cleaning step.
        say: told what happens, a line a step.

    Returns:
        `clean` (counts of the cleaning step) and `prepared` (statistics of the shards).

    Raises:
        SpikeloomError: a source, rule or tokenizer cannot be had, or `out` holds something else.
    """
    out = Path(out)
    text, folder = out / CLEAN, out / PREPARED_FOLDER
    _clean(recipe, out, processes, say)
    words = _tokenizer(recipe, text, folder, say)
    say(f"preparing {folder}")
    statistics = {
        "clean": read_manifest(text)["counts"],
        "prepared": prepare(str(text), words, folder, recipe.layout),
    }
    write_manifest(
        out,
        source=", ".join(each.source for each in recipe.sources),
        licence=[each.licence for each in recipe.sources],
        counts=statistics,
        command=this_command(),
        inputs=[file for each in recipe.sources for file in sources.files(each.source)],
    )
    return statistics


def _clean(recipe: Recipe, out: Path, processes: int, say: Callable[[str], None]) -> None:
    asked = _decides_text(recipe)
    if (out / _DONE).exists():
        if json.loads((out / _DONE).read_text(encoding="utf-8")) != asked:
            raise DataError(f"{out} was built from another recipe or other files: choose another")
        say(f"{out / CLEAN} is there already")
        return
    say(f"cleaning {', '.join(each.name for each in recipe.sources)}")
    clean(
        [each.labelled() for each in recipe.sources],
        out / CLEAN,
        load_rules(recipe.rules),
        Options(redact=recipe.redact, processes=processes),
    )
    write_whole(out / _DONE, json.dumps(asked))


def _decides_text(recipe: Recipe) -> dict[str, Any]:
    """All that decides the cleaned text."""
    prints = [sources.fingerprint(each.source) for each in recipe.sources]
    rules = to_dict(load_rules(recipe.rules))
    labels = [to_dict(each) for each in recipe.sources]
    return {"sources": labels, "files": prints, "rules": rules, "redact": recipe.redact}


def _tokenizer(recipe: Recipe, text: Path, folder: Path, say: Callable[[str], None]) -> Any:
    if recipe.tokenizer_directory is not None:
        return tokenizers.load(recipe.tokenizer_directory)
    if (folder / "tokenizer").is_dir():  # of an earlier sitting
        return tokenizers.load(folder / "tokenizer")
    wanted = recipe.tokenizer
    say(f"training a {wanted.kind} tokenizer of {wanted.vocab_size} tokens")
    return tokenizers.train(wanted.kind, sources.documents(str(text)), wanted.vocab_size)


def _from_folder(recipe: Recipe, folder: Path) -> Recipe:
    def placed(path: str | None) -> str | None:
        return None if path is None else str(folder / Path(path).expanduser())

    def source(each: RecipeSource) -> RecipeSource:
        local = each.source != sources.PYTHON_DOCS and not each.source.startswith("hub:")
        return replace(each, source=str(folder / each.source)) if local else each

    return replace(
        recipe,
        sources=tuple(source(each) for each in recipe.sources),
        rules=placed(recipe.rules),
        tokenizer_directory=placed(recipe.tokenizer_directory),
    )
