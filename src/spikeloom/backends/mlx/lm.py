"""mlx-lm on our checkpoint directories: `python -m spikeloom.backends.mlx.lm VERB …`.

mlx-lm looks for the module `mlx_lm.models.<model_type>`; `register` puts this one there, and the
launcher then hands over to mlx-lm's own command line:

    python -m spikeloom.backends.mlx.lm generate --model CKPT --prompt "Once" --ignore-chat-template
    python -m spikeloom.backends.mlx.lm lora --model CKPT --train --data DIR --adapter-path OUT

`Model` and `ModelArgs` are the names that mlx-lm asks for.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from spikeloom.backends.mlx import decoder
from spikeloom.checkpoint import MODEL_TYPE
from spikeloom.config import ModelConfig, expand_neurons
from spikeloom.errors import MissingExtraError
from spikeloom.strict import build

NAME = f"mlx_lm.models.{MODEL_TYPE}"


@dataclass(frozen=True)
class ModelArgs:
    """`config.json`, as mlx-lm hands it over."""

    config: ModelConfig
    model_type: str = MODEL_TYPE

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> ModelArgs:
        """The architecture; keys of other libraries are left aside.

        Raises:
            ConfigError: an impossible architecture.
        """
        ours = {f.name: tree[f.name] for f in fields(ModelConfig) if f.name in tree}
        return cls(build(ModelConfig, expand_neurons(ours), "model"))


class Model(decoder.Model):
    """The decoder, made as mlx-lm makes models."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__(args.config)
        self.args, self.model_type = args, args.model_type


def register() -> None:
    """Let mlx-lm find this module.

    Raises:
        MissingExtraError: mlx-lm is not installed.
    """
    try:
        import_module("mlx_lm.models")
    except ModuleNotFoundError:
        raise MissingExtraError("mlx-lm", "mlx-lm") from None
    sys.modules[NAME] = import_module("spikeloom.backends.mlx.lm")


def main() -> None:
    """Register, and go on as `mlx_lm`."""
    try:
        register()
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    import_module("mlx_lm.cli").main()


if __name__ == "__main__":
    main()
