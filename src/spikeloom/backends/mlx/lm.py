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
from itertools import pairwise
from pathlib import Path
from typing import Any

from spikeloom.backends import check
from spikeloom.backends.mlx import decoder
from spikeloom.backends.mlx.checkpoint import quantization
from spikeloom.checkpoint import MODEL_TYPE, read_config, read_shapes, require_head, resolve
from spikeloom.config import ModelConfig, expand_neurons
from spikeloom.errors import ConfigError, MissingExtraError, SpikeloomError
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


def check_arguments(words: list[str]) -> None:
    """Refuse what mlx-lm would answer with a traceback.

    Raises:
        ConfigError: no verb, or an architecture that MLX lacks.
        CheckpointError: `--model` is no directory, or not a whole checkpoint of a language model.
    """
    if not words:
        raise ConfigError("give a verb of mlx-lm: generate, lora, fuse, … (--help lists them)")
    given = dict(pairwise(words))
    if "--model" in given:
        path = resolve(given["--model"])
        require_head(path, "SpikeloomForCausalLM")
        check("mlx", read_config(path))
        read_shapes(path)
        quantization(path)
        if path != Path(given["--model"]):
            raise ConfigError(f"{given['--model']} holds an unfinished run: give --model {path}")


def main() -> None:
    """Register, and go on as `mlx_lm`."""
    try:
        register()
        check_arguments(sys.argv[1:])
    except SpikeloomError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    import_module("mlx_lm.cli").main()


if __name__ == "__main__":
    main()
