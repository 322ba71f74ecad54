"""A token beside the one before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeloom.neurons import Wire


def one_back(x: Tensor, last: Tensor | None, starts: Tensor | None) -> Tensor:
    """`x` of the token before, `[B, L, D]`; zero before a document.

    Args:
        x: `[B, L, D]`.
        last: of the last token read before, `[B, D]`, or None.
        starts: where a document starts, `[B, L]`; None if only a fresh row's first token does.
    """
    first = torch.zeros_like(x[:, 0]) if last is None else last
    before = torch.cat([first[:, None], x[:, :-1]], dim=1)
    return before if starts is None else before.masked_fill(starts[..., None], 0.0)


class TokenShift(Wire):
    """A wire that carries `share * x[t] + (1 - share) * x[t-1]` to its products (RWKV).

    Args:
        size: channels D; the share is learned for each.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.share = nn.Parameter(torch.empty(size))

    def reset_parameters(self) -> None:
        """From 0 to 1 over the channels, as RWKV-4 has it halfway up its layers."""
        from transformers import initialization as init

        places = torch.arange(self.size, dtype=torch.float32) / self.size
        init.copy_(self.share, places.sqrt())

    def forward(  # type: ignore[override]
        self, x: Tensor, before: Tensor
    ) -> tuple[Tensor, None, Tensor]:
        """As a wire; `before` is what `one_back` gives."""
        shifted = torch.lerp(before, x, self.share.to(x.dtype))
        return shifted, None, torch.ones((), device=x.device)
