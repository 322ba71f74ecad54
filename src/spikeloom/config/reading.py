"""From a YAML file, or a preset's name, and `a.b=c` overrides to a `RunConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from spikeloom.config.model import NeuronsConfig
from spikeloom.config.training import RunConfig
from spikeloom.errors import ConfigError
from spikeloom.strict import build, parse_yaml


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a preset by name, or a YAML file, and apply `a.b=c` overrides.

    Raises:
        ConfigError: unknown preset, unreadable YAML, or any bad key, type or value.
    """
    from spikeloom import presets

    tree = presets.read(name_or_path)
    for override in overrides:
        _override(tree, override)
    return parse_run(tree)


def parse_run(tree: dict[str, Any]) -> RunConfig:
    """Build a `RunConfig` from the nested dict that a YAML file holds."""
    tree = dict(tree)
    if isinstance(tree.get("model"), dict):
        tree["model"] = expand_neurons(tree["model"])
    return build(RunConfig, tree, "")


def expand_neurons(model: dict[str, Any]) -> dict[str, Any]:
    """Give every role what `neurons.default` says, under the role's own keys."""
    neurons = model.get("neurons")
    if not isinstance(neurons, dict) or "default" not in neurons:
        return model
    shared = neurons["default"] or {}
    roles = [f.name for f in fields(NeuronsConfig)]
    for key, value in neurons.items():
        if not isinstance(value, dict):
            raise ConfigError(
                f"model.neurons.{key}: expected a table of neuron keys, got {value!r}"
            )
    expanded = {role: {**shared, **neurons.get(role, {})} for role in roles}
    unknown = {k: v for k, v in neurons.items() if k not in roles and k != "default"}
    return {**model, "neurons": {**expanded, **unknown}}


def _override(tree: dict[str, Any], override: str) -> None:
    """Apply one `a.b=c`; list entries are addressed by number (`model.layers.0.mixer=sdsa`)."""
    import yaml

    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError(f"--set {override}: expected key=value, as in training.batch_size=16")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None
    *parents, last = path.split(".")
    node: Any = tree
    for name in parents:
        node = _child(node, name, path)
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    else:
        node[last] = value


def _child(node: Any, name: str, path: str) -> Any:
    child = node[_index(node, name, path)] if isinstance(node, list) else node.setdefault(name, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {path}: {name} is a value, not a table")
    return child


def _index(node: list[Any], name: str, path: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ConfigError(f"--set {path}: {name} is not an entry of a list of {len(node)}")
    return int(name)
