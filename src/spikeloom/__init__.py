"""spikeloom: spiking language models, from raw text to a checkpoint whose sparsity is real.

Importing this package is light; torch and transformers are loaded when a name that needs them is
first used. Using any model class also registers it with transformers' `AutoConfig` and
`AutoModelForCausalLM`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "SpikeloomConfig": "spikeloom.model",
    "SpikeloomForCausalLM": "spikeloom.model",
    "dense_twin": "spikeloom.model.twins",
    "quantised_twin": "spikeloom.model.twins",
    "load_config": "spikeloom.config",
    "pretrained_path": "spikeloom.pretrained",
    "SpikeloomError": "spikeloom.errors",
}

__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'spikeloom' has no attribute '{name}'")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
