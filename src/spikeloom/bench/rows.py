"""What a benchmark says: one row per comparison, and how rows are printed and kept."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LOWER_IS_BETTER = ("us", "ms", "s", "bytes", "MB")
HIGHER_IS_BETTER = ("tokens/s", "TB/s", "samples/s")


@dataclass(frozen=True)
class Row:
    """One comparison, measured side by side in one process.

    Attributes:
        case: what was done, with its sizes.
        device: the machine's own name for it.
        ours, peer: medians, in `unit`.
        peer_name: what we are compared with, with its version.
        unit: one of `LOWER_IS_BETTER` or `HIGHER_IS_BETTER`.
        target: the ratio that was asked for, None where none was.
        spread: relative distance between the quartiles of our own timings.
    """

    case: str
    device: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    target: float | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in LOWER_IS_BETTER + HIGHER_IS_BETTER:
            raise ValueError(f"unit {self.unit!r} is not one that says which way is better")

    @property
    def ratio(self) -> float:
        """More than 1 means that ours is better."""
        if self.unit in LOWER_IS_BETTER:
            return self.peer / self.ours
        return self.ours / self.peer

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


HEAD = (
    "| case | ours | peer | unit | peer is | ratio | target | spread |\n"
    "|---|---:|---:|---|---|---:|---:|---:|"
)


def to_markdown(rows: Sequence[Row]) -> str:
    """A table of rows."""
    return "\n".join([HEAD, *map(markdown_line, rows)])


def markdown_line(row: Row) -> str:
    """One line of the table: a ratio below its target is marked."""
    target = "" if row.target is None else f"{row.target:g}"
    missed = row.target is not None and row.ratio < row.target
    ratio = f"{row.ratio:.2f}" + (" (missed)" if missed else "")
    spread = "" if row.spread is None else f"{row.spread:.0%}"
    cells = (row.case, f"{row.ours:.4g}", f"{row.peer:.4g}", row.unit, row.peer_name)
    return f"| {' | '.join((*cells, ratio, target, spread))} |"


def show(rows: Iterable[Row], keep: Callable[[dict[str, Any]], None]) -> list[Row]:
    """Print each row as it comes, and hand the report so far to `keep`: a run may be cut short."""
    shown: list[Row] = []
    report: dict[str, Any] = {"results": [], "machine": machine(), "complete": False}
    for row in rows:
        if not shown:
            print(HEAD)
        print(markdown_line(row), flush=True)
        shown.append(row)
        report["results"].append(row.as_json())
        keep(report)
    keep({**report, "complete": True})
    return shown


def machine() -> dict[str, Any]:
    """What it ran on: versions and processors."""
    import torch

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "command": " ".join(sys.argv[1:]),
    }
    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    try:
        import triton
    except ImportError:
        return found
    return {**found, "triton": triton.__version__}


def device_name(device: str) -> str:
    """The machine's own name of `cpu` or `cuda`."""
    import torch

    return _cpu_name() if device == "cpu" else torch.cuda.get_device_name()


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
