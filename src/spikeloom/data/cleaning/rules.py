"""The rule file of `spikeloom data clean`, strictly read; `rules.yaml` is the default."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import yaml

from spikeloom.errors import ConfigError
from spikeloom.strict import build, parse_yaml, require, require_each


@dataclass(frozen=True)
class Quality:
    """Limits of the quality rules; null switches one off. `rules.yaml` explains each."""

    min_words: int | None = None
    max_words: int | None = None
    min_mean_word_length: float | None = None
    max_mean_word_length: float | None = None
    max_symbol_ratio: float | None = None
    max_bullet_lines: float | None = None
    max_ellipsis_lines: float | None = None
    min_alphabetic_words: float | None = None
    min_stop_words: int | None = None
    max_repeated_lines: float | None = None
    max_repeated_characters: float | None = None
    max_top_bigram: float | None = None
    max_top_trigram: float | None = None
    max_top_fourgram: float | None = None
    max_braces: float | None = None

    def __post_init__(self) -> None:
        require_each(self, " ".join(vars(self)), lambda v: v >= 0, "null, or 0 or more")


@dataclass(frozen=True)
class Unwanted:
    """A list of phrases, and how often they may occur."""

    name: str
    phrases: tuple[str, ...]
    least: int = 1
    per_thousand: float = 0.0

    def __post_init__(self) -> None:
        require(bool(self.phrases), "phrases", list(self.phrases), "at least one")
        require(all(p.strip(" *") for p in self.phrases), "phrases", self.phrases, "no empty one")
        require(self.least >= 1, "least", self.least, "1 or more")
        require(self.per_thousand >= 0, "per_thousand", self.per_thousand, "0 or more")


@dataclass(frozen=True)
class Rules:
    """A rule file."""

    languages: tuple[str, ...] = ()
    language_characters: int = 100
    quality: Quality = field(default_factory=Quality)
    near_duplicates: float | None = None
    unwanted: tuple[Unwanted, ...] = ()

    def __post_init__(self) -> None:
        near = self.near_duplicates
        require(near is None or 0.5 <= near <= 1, "near_duplicates", near, "null or in [0.5, 1]")
        names = [each.name for each in self.unwanted]
        require(len(set(names)) == len(names), "unwanted", names, "a name of its own for each")


def load_rules(path: str | Path | None = None) -> Rules:
    """The rules of a file, or the default ones.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key or an impossible value.
    """
    try:
        text = default_rules() if path is None else Path(path).read_text(encoding="utf-8")
        tree = parse_yaml(text)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    rules: Rules = build(Rules, tree, "")
    return rules


def default_rules() -> str:
    """The text of the rule file that is shipped."""
    return files("spikeloom.data.cleaning").joinpath("rules.yaml").read_text(encoding="utf-8")
