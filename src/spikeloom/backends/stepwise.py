"""Decoding with the PyTorch model itself: for what has no event-driven form.

The state is the model's own `DecoderState`, O(1) per token where all mixers are. Nothing is
skipped, so that this is correct, not fast; the share of weights that spikes touch is still counted.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch

from spikeloom.backends.weights import Array
from spikeloom.config import ModelConfig
from spikeloom.inference.decoding import Decodes, Reading
from spikeloom.model import DecoderState, SpikeloomForCausalLM, active_share, fed_weights


class State(Reading):
    """Everything that depends on the tokens read so far.

    Attributes:
        decoder: what the model carries.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.decoder = DecoderState(config)

    def copy(self) -> State:
        """An independent state at the same point of the text."""
        return copy.deepcopy(self)


class Engine(Decodes):
    """Reads and continues text with a `SpikeloomForCausalLM`."""

    def __init__(self, model: SpikeloomForCausalLM) -> None:
        self.model = model.eval()
        self.config = model.config.architecture
        self._fed = fed_weights(model)

    @classmethod
    def load(cls, directory: str | Path) -> Engine:
        """Read a checkpoint directory, or the newest checkpoint of an unfinished run.

        Raises:
            CheckpointError: it is not one, or is damaged.
        """
        from spikeloom.evaluation.checkpoint import load

        return cls(load(directory)[0])

    def new_state(self) -> State:
        """A state that has read nothing."""
        return State(self.config)

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int], state: State) -> Array:
        """Read tokens all at once; the logits after the last, `[V]`."""
        ids = torch.tensor([list(tokens)], device=self.model.device)
        output = self.model(ids, past_key_values=state.decoder, logits_to_keep=1)
        state.count(float(active_share(output.firing_rates, self._fed)), len(tokens))
        logits: Array = output.logits[0, -1].float().cpu().numpy()
        return logits
