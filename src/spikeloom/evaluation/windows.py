"""Which tokens a sliding window scores: every token after the first, once.

Window n reads tokens `[b, b + context)` and predicts `[b + 1, b + 1 + context)`. The first scores
all its predictions, each later one only those that no window before it made: `stride` of them,
each with at least `context - stride + 1` tokens before it. The last window is moved back to stay
whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spikeloom.errors import ConfigError


@dataclass(frozen=True)
class Windows:
    """The plan for a stream.

    Args:
        tokens: length of the stream, at least 2.
        context: tokens that a window reads; cut to what the stream can fill.
        stride: tokens from one window to the next, at most `context`.

    Raises:
        ConfigError: impossible context or stride.
    """

    tokens: int
    context: int
    stride: int

    def __post_init__(self) -> None:
        if self.context < 1:
            raise ConfigError(f"context must be at least 1 token, not {self.context}")
        if not 1 <= self.stride <= self.context:
            allowed = f"between 1 and the context ({self.context})"
            raise ConfigError(f"stride must lie {allowed}, not {self.stride}")
        if self.tokens <= self.context:
            object.__setattr__(self, "context", self.tokens - 1)
            object.__setattr__(self, "stride", min(self.stride, self.context))

    @property
    def scored(self) -> int:
        """Tokens scored: all but the first."""
        return self.tokens - 1

    def __len__(self) -> int:
        return 1 + -(-(self.scored - self.context) // self.stride)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(begin, first scored position within the window), in order."""
        done = 0
        for n in range(len(self)):
            begin = min(n * self.stride, self.scored - self.context)
            yield begin, done - begin
            done = begin + self.context

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Up to `size` windows at a time.

        Yields:
            begins, int64 `[B]`, and which positions are scored, boolean `[B, context]`.
        """
        plan = np.array(list(self), dtype=np.int64)
        for i in range(0, len(plan), size):
            begins, firsts = plan[i : i + size].T
            yield begins, np.arange(self.context) >= firsts[:, None]

    def mean_keys(self, window: int | None = None) -> float:
        """Mean number of tokens that a scored position attends to, itself included.

        Args:
            window: sliding window of the attention, or None.
        """
        keys = np.arange(1, self.context + 1)
        if window is not None:
            keys = np.minimum(keys, window)
        after = np.append(np.cumsum(keys[::-1])[::-1], 0)  # after[i] = sum of keys[i:]
        return float(sum(after[first] for _, first in self) / self.scored)
