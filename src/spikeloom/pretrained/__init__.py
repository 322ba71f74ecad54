"""The model that travels with the package: its checkpoint lies in this folder.

`spikeloom slim` and `spikeloom card` write it; a package may be built without it.
"""

from __future__ import annotations

from pathlib import Path

from spikeloom.errors import CheckpointError

FOLDER = Path(__file__).parent


def pretrained_path() -> Path:
    """The checkpoint directory of the shipped model.

    Raises:
        CheckpointError: the package was built without one.
    """
    if not (FOLDER / "model.safetensors").is_file():
        raise CheckpointError(
            "this spikeloom was built without its model: give a checkpoint directory, or make one "
            "with `spikeloom train`"
        )
    return FOLDER
