"""What a decoder carries from token to token, and where tokens stand in their documents.

`DecoderState` is the only thing that `generate`, `chat` and a server keep. Everything in it is
batch-first, so beam search, batch expansion and selection are one line each. Its size is constant
unless a layer has softmax attention without a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from spikeloom.config import ModelConfig

LayerState = dict[str, Tensor]


class DecoderState(Cache):
    """Membranes, attention memories and key/value windows of all layers.

    Attributes:
        layers: one dict per layer and one for the head; tensors `[B, ...]` (`[B * T, ...]` on the
            step clock).
        tokens: where the kept tokens stand: `positions` and `segments`, `[B, n]`.
        seen: number of tokens read so far.
        plain: whether every row is one document without padding, so that no mask is needed.
    """

    is_compileable = False

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.horizon = _horizon(config)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        # The base class keeps layer objects here; ours are plain dicts of tensors.
        self.layers: list[LayerState] = [  # type: ignore[assignment]
            {} for _ in range(self.config.num_hidden_layers + 1)
        ]
        self.tokens: LayerState = {}
        self.seen = 0
        self.plain = True

    def advance(self, positions: Tensor, segments: Tensor, plain: bool) -> None:
        """Note the tokens just read; keep as many as some layer may still look at."""
        new = {"positions": positions, "segments": segments}
        if self.tokens:
            new = {k: torch.cat([self.tokens[k], v], dim=1) for k, v in new.items()}
        if self.horizon is not None:
            new = {k: v[:, -max(self.horizon, 1) :] for k, v in new.items()}
        self.tokens = new
        self.seen += positions.shape[1]
        self.plain = self.plain and plain

    @property
    def nbytes(self) -> int:
        """Memory of all tensors kept, in bytes."""
        tensors = [t for layer in [*self.layers, self.tokens] for t in layer.values()]
        return sum(t.numel() * t.element_size() for t in tensors)

    def _map(self, change: Callable[[Tensor, int], Tensor]) -> None:
        T = self.config.num_steps
        self.layers = [{k: change(v, T) for k, v in layer.items()} for layer in self.layers]
        self.tokens = {k: change(v, 1) for k, v in self.tokens.items()}

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows as beam search wants them; `beam_idx` `[B]`."""
        self._map(lambda x, T: x.unflatten(0, (-1, T))[beam_idx.to(x.device)].flatten(0, 1))

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(
            lambda x, T: x.unflatten(0, (-1, T)).repeat_interleave(repeats, dim=0).flatten(0, 1)
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def has_previous_state(
        self, layer_idx: int | None = None, state_idx: int | None = None
    ) -> bool:
        return self.seen > 0

    def crop(self, tokens_to_remove: int) -> None:
        raise ValueError("a recurrent state cannot be cropped; keep a copy.deepcopy of it instead")

    @property
    def is_initialized(self) -> bool:
        return self.seen > 0

    @property
    def is_croppable(self) -> bool:
        return False

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * self.config.num_hidden_layers

    def __len__(self) -> int:
        return self.config.num_hidden_layers

    def __repr__(self) -> str:
        return f"DecoderState({self.seen} tokens seen, {self.nbytes} bytes)"


def _horizon(config: ModelConfig) -> int | None:
    """How many past tokens the widest attention window needs; None without bound."""
    windows = [c.sliding_window for c in config.layer_list if c.mixer == "attention"]
    if any(w is None for w in windows):
        return None
    return max((w - 1 for w in windows if w is not None), default=1)


@dataclass(frozen=True)
class TokenView:
    """Where the tokens of one forward pass stand, shared by all layers.

    Attributes:
        positions: position of each token in its document, `[B, L]`.
        segments: running number of its document within the row, `[B, L]`.
        key_positions, key_segments: the same for the tokens kept and the new ones, `[B, n + L]`.
        starts: where a document starts, `[B, L]`; None if only a fresh row's first token does.
        plain: no padding, no packing: causal order and windows are all there is to mask.
        rotations: of these positions, by base (`spikeloom.model.rotary`); the decoder fills it.
    """

    positions: Tensor
    segments: Tensor
    key_positions: Tensor
    key_segments: Tensor
    starts: Tensor | None
    plain: bool
    rotations: dict[float, Tensor]

    def repeat(self, T: int) -> TokenView:
        """The view of `[B * T, L]` rows on the step clock."""
        if T == 1:
            return self
        return TokenView(
            self.positions.repeat_interleave(T, 0),
            self.segments.repeat_interleave(T, 0),
            self.key_positions.repeat_interleave(T, 0),
            self.key_segments.repeat_interleave(T, 0),
            None if self.starts is None else self.starts.repeat_interleave(T, 0),
            self.plain,
            rotations={},
        )

    def join(self, kept: Tensor, new: Tensor) -> Tensor:
        """Keys or values of the tokens kept and of the new ones, `[B, H, n + L, K]`."""
        return torch.cat([kept, new], dim=2)

    @property
    def ends_reversed(self) -> Tensor | None:
        """Where a document starts for one who reads the row from its end, `[B, L]`."""
        if self.starts is None:
            return None
        last = torch.ones_like(self.starts[:, :1])
        return torch.cat([self.starts[:, 1:], last], dim=1).flip(1)

    def mask(
        self,
        keys: int,
        window: int | None,
        stride: int = 1,
        chosen: Tensor | None = None,
        *,
        causal: bool = True,
    ) -> Tensor | None:
        """Which keys each query may see, `[B or 1, 1, L, keys]`; None if the order says it all.

        Args:
            keys: number of keys at hand, the newest last.
            window: sliding window in tokens, or None.
            stride: only every so many-th token of a document is seen by those after it.
            chosen: the only tokens that are seen by those after them, `[B, keys or more]`.
            causal: whether later tokens are hidden.
        """
        L = self.positions.shape[1]
        everyone = stride == 1 and chosen is None
        if everyone and self.plain and (L == 1 or (keys == L and (window is None or window >= L))):
            return None
        # The order is that of the row: positions may repeat, on the padding to the right.
        order = torch.ones(L, keys, dtype=torch.bool, device=self.positions.device)
        order = order.tril(keys - L) if causal else order
        rows = slice(1) if self.plain else slice(None)  # if plain, all rows are alike
        positions, key_positions = self.positions[rows], self.key_positions[rows, -keys:]
        segments, key_segments = self.segments[rows], self.key_segments[rows, -keys:]
        seen = order & (segments[:, :, None] == key_segments[:, None])
        if window is not None:
            seen = seen & ((positions[:, :, None] - key_positions[:, None]).abs() < window)
        if not everyone:
            offered = (key_positions[:, None] + 1) % stride == 0
            if chosen is not None:
                offered = offered & chosen[:, None, -keys:]
            itself = torch.eye(L, keys, dtype=torch.bool, device=seen.device).roll(keys - L, dims=1)
            seen = seen & (offered | itself)
        return seen[:, None]


def view_tokens(
    shape: Sequence[int],
    device: torch.device,
    position_ids: Tensor | None,
    attention_mask: Tensor | None,
    state: DecoderState | None,
) -> TokenView:
    """Work out positions and document borders from what Hugging Face passes.

    A token at position 0 starts a document: nothing flows into it from before. Left padding needs
    nothing else, because the first real token stands at position 0. Without positions and mask,
    the documents that are open go on.

    Args:
        shape: `(B, L)`.
        device: of the model's inputs.
        position_ids: `[B, L]` or `[1, L]`, or None.
        attention_mask: `[B, past + L]`, 0 for padding, or None.
        state: what was read before, or None.

    Raises:
        ValueError: the mask does not cover what the state has read and the new tokens.
    """
    B, L = shape
    seen = 0 if state is None else state.seen
    plain_ids = torch.arange(seen, seen + L, device=device).expand(B, L)
    if position_ids is None and attention_mask is not None:
        if attention_mask.shape[-1] != seen + L:
            raise ValueError(
                f"attention_mask: {attention_mask.shape[-1]} columns, expected {seen + L} "
                f"({seen} tokens read before and {L} new ones)"
            )
        position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -L:]
    if position_ids is None and state is not None and state.tokens:
        position_ids = state.tokens["positions"][:, -1:] + 1 + torch.arange(L, device=device)
        plain = True  # as plain as the state is
    elif position_ids is None:
        position_ids, plain = plain_ids, True
    else:
        position_ids = position_ids.expand(B, L)
        plain = not torch.compiler.is_compiling() and torch.equal(position_ids, plain_ids)
    starts = position_ids == 0
    segments = starts.long().cumsum(-1)
    keys = {"positions": position_ids, "segments": segments}
    if state is not None and state.tokens:
        segments = segments + state.tokens["segments"][:, -1:]
        keys = {"positions": position_ids, "segments": segments}
        keys = {k: torch.cat([state.tokens[k], v], dim=1) for k, v in keys.items()}
        plain = plain and state.plain
    return TokenView(
        position_ids,
        segments,
        keys["positions"],
        keys["segments"],
        None if plain else starts,
        plain,
        rotations={},
    )
