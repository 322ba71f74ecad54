"""Batch-1 decoding on a GPU: one step of static shape, captured once in a CUDA graph.

Python and launches cost a small model more than its arithmetic. Here a step reads its token, its
position and all states from tensors that stay where they are, writes the states in place, and puts
the likeliest next token where the next step reads it: the GPU goes from token to token alone.
Without a GPU the same step runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spikeloom.errors import ConfigError
from spikeloom.inference.step_products import GIVEN, Shared, with_products
from spikeloom.model import SpikeloomForCausalLM
from spikeloom.model.state import LayerState, TokenView

_OUT_OF_REACH = {"key_stride", "salience", "predictive"}  # which keys count depends on the text
_CACHES = ("keys", "values")  # written at the token's place; all other states are replaced


class OneTokenView(TokenView):
    """Where one token stands among the places of a cache of fixed size."""

    def repeat(self, T: int) -> OneTokenView:
        return self  # one position, whatever the number of rows

    def join(self, kept: Tensor, new: Tensor) -> Tensor:
        """The cache itself, with the new token at its place."""
        return kept.index_copy_(2, self.positions[0], new)

    def mask(self, keys: int, window: int | None, *_: object, **__: object) -> Tensor:
        """`[1, 1, 1, keys]`: places up to this token's, and within the window."""
        distance = self.positions - torch.arange(keys, device=self.positions.device)
        seen = distance >= 0
        if window is not None:
            seen = seen & (distance < window)
        return seen[:, None, None]


class GraphStep:
    """A model with one document under way.

    Args:
        model: on the device it runs on.
        max_length: tokens that there is room for, prompt included.
        compiled: let torch.compile fuse the step.
        products: one of `step_products.FORMS`; but for `given` they hold copies of the weights.

    Attributes:
        token, position: what the next step reads, `[1]`.
        logits: of the last step, `[V]`.
    """

    def __init__(
        self,
        model: SpikeloomForCausalLM,
        max_length: int,
        compiled: bool = False,
        products: str = GIVEN,
    ) -> None:
        for i, layer in enumerate(model.config.architecture.layer_list):
            for name in set(layer.extras) & _OUT_OF_REACH:
                raise ConfigError(f"layers[{i}].{name}: the step of static shape does not have it")
        self.model = model.eval()
        self._stepped = with_products(self.model, products)
        self.max_length = max_length
        device = model.lm_head.weight.device
        self.token = torch.zeros(1, dtype=torch.long, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.written = torch.zeros(max_length, dtype=torch.long, device=device)
        self.logits = model.lm_head.weight.new_zeros(model.config.vocab_size, requires_grad=False)
        self.states = self._empty_states()
        self._step: Callable[[], None] = self._run
        if compiled:
            self._step = torch.compile(self._run, fullgraph=True, dynamic=False)
        if device.type == "cuda":
            self._step = _captured(self._step)
        self.reset()

    def reset(self) -> None:
        """Forget everything; nothing is allocated."""
        for tensor in (self.token, self.position, *(t for s in self.states for t in s.values())):
            tensor.zero_()
        for module in self._stepped.modules():
            if isinstance(module, Shared):  # a step that failed half-way left parts behind
                module.waiting.clear()

    def advance(self, tokens: Sequence[int] | None = None, count: int = 1) -> None:
        """Read `tokens`, or go on alone for `count` tokens: nothing waits for the GPU."""
        if tokens is None:
            for _ in range(count):
                self._step()
            return
        for token in torch.tensor(tokens, device=self.token.device).unsqueeze(1):
            self.token.copy_(token)
            self._step()

    def generate(self, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
        """Greedy continuation of a fresh document.

        Raises:
            ConfigError: there is no prompt, or no room for all tokens.
        """
        length = len(prompt) + max_new_tokens
        if not prompt or max_new_tokens < 1 or length > self.max_length:
            raise ConfigError(
                f"{len(prompt)} tokens of prompt and {max_new_tokens} new ones: "
                f"use at least 1 of each, {self.max_length} together"
            )
        self.reset()
        self.advance(prompt)
        self.advance(count=max_new_tokens - 1)
        found: list[int] = self.written[len(prompt) - 1 : length - 1].tolist()
        return found

    @torch.inference_mode()
    def _empty_states(self) -> list[LayerState]:
        """Zeros of the shapes that a first token leaves behind, caches with room for all."""
        decoder = self.model.model.decoder
        output = self.model(self.token[None], use_cache=True)
        states = [dict(layer) for layer in output.past_key_values.layers]
        with torch.inference_mode(False):
            for layer, config in zip(states, decoder.config.layer_list, strict=False):
                if config.mixer == "attention":
                    B, H, _, K = layer["keys"].shape
                    for name in _CACHES:
                        layer[name] = layer[name].new_empty(B, H, self.max_length, K)
            return [{k: torch.zeros_like(v) for k, v in layer.items()} for layer in states]

    @torch.no_grad()
    def _run(self) -> None:
        decoder = self._stepped.model.decoder
        here = self.position[None]
        view = OneTokenView(here, here, here, here, starts=None, plain=False, rotations={})
        y, new_states, _ = decoder.run(decoder.embed_tokens(self.token[None]), view, self.states)
        for state, new in zip(self.states, new_states, strict=True):
            for name, tensor in new.items():
                if name not in _CACHES:
                    state[name].copy_(tensor)
        self.logits.copy_(self._stepped.lm_head(y)[0, 0])
        self.token.copy_(self.logits.argmax(-1, keepdim=True))
        self.written.index_copy_(0, self.position, self.token)
        self.position.add_(1)


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a graph, to be replayed; what it did while it was warmed up must be reset."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
