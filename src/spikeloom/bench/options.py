"""What a benchmark may leave out, and what it does besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spikeloom.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Options:
    """As `spikeloom bench` takes them.

    Attributes:
        quick: fewer sizes, for a look; a figure to keep comes from the whole benchmark.
        slow_peers: those of torch.compile and fla, too: half a minute each until they are ready.
        profile: say which kernels the time goes to (train, on a GPU).
        case: only this one of the benchmark's cases; None runs all.
    """

    quick: bool = False
    slow_peers: bool = False
    case: str | None = None
    profile: bool = False

    def select(self, cases: Sequence[str], quick: int | None = None) -> tuple[str, ...]:
        """The cases to run: the one that was named, the first `quick` if in a hurry, or all.

        Raises:
            ConfigError: there is no such case.
        """
        if self.case is None:
            return tuple(cases[:quick] if self.quick else cases)
        if self.case not in cases:
            near = did_you_mean(self.case, cases)
            known = f"use {', '.join(cases)}" if cases else "this benchmark has none"
            raise ConfigError(f"case '{self.case}' is unknown{near}: {known}")
        return (self.case,)


ALL = Options()
