"""Strict data: build frozen dataclasses from plain trees, and refuse what does not fit.

Errors name the field by its path in the file, the value, and what would do.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Hashable
from typing import Any, Literal, get_args, get_origin

import yaml

from spikeloom.errors import ConfigError, did_you_mean


def require(ok: bool, name: str, value: Any, what: str) -> None:
    """Refuse an impossible value, saying what was expected."""
    if not ok:
        raise ConfigError(f"{name}: {value!r} is impossible, expected {what}")


def require_each(config: Any, names: str, holds: Callable[[Any], bool], what: str) -> None:
    """`require` for several fields, named in one string; null is the type's affair."""
    for name in names.split():
        value = getattr(config, name)
        require(value is None or holds(value), name, value, what)


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not known, suggesting the nearest."""
    if value not in known:
        hint = did_you_mean(value, known) or f", expected one of {', '.join(known)}"
        raise ConfigError(f"{name}: {value!r} is unknown{hint}")


def brief(value: Any) -> str:
    """`=value`, unless it is a whole table."""
    return f"={value}" if isinstance(value, int | float | str) else ""


def parse_yaml(text: str) -> Any:
    """YAML as plain data; of two equal keys neither wins.

    Raises:
        yaml.YAMLError: it is not YAML, or a key is given twice.
    """
    return yaml.load(text, _UniqueKeys)


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: the key '{key.value}' is given twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON-able data (tuples become lists); `build` reads it back."""
    return {k: _plain(v) for k, v in dataclasses.asdict(config).items()}


def build(cls: type, tree: Any, path: str) -> Any:
    """Build a config dataclass from a dict, refusing what does not fit.

    Args:
        cls: one of the dataclasses of this module.
        tree: its keys and values.
        path: where it stands in the file, for messages (`model.neurons`).
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{path or 'the file'}: expected a table of keys, got {tree!r}")
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        here = f"{path}.{key}" if path else str(key)
        if key not in hints:
            raise ConfigError(f"{here}: unknown key{did_you_mean(str(key), hints)}")
        values[key] = _convert(value, hints[key], here)
    for each in dataclasses.fields(cls):
        default = each.default, each.default_factory
        if each.name not in values and default == (dataclasses.MISSING, dataclasses.MISSING):
            raise ConfigError(f"{path or 'the file'}: '{each.name}' is missing")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}.{error}" if path else str(error)) from None


def _convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint`, or a `ConfigError` that says what would do."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(value, next(a for a in args if a is not type(None)), path)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{path}: {value!r} is not one of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        return _convert_tuple(value, args, path)
    if dataclasses.is_dataclass(hint):
        kind = typing.cast(type, hint)
        return value if isinstance(value, kind) else build(kind, value, path)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        value = _number(value)  # YAML reads 2e-3 as a string and 1 as an integer
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path}: expected {hint.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: expected a finite number, got {value}")
    return value


def _convert_tuple(value: Any, args: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path}: expected a list, got {value!r}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(v, args[0], f"{path}[{i}]") for i, v in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(f"{path}: expected {len(args)} values, got {value!r}")
    return tuple(
        _convert(v, a, f"{path}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True))
    )


def _number(value: int | str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
