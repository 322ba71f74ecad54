"""The picture of `spikeloom bench decode`: how much faster than dense, over active shares."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from spikeloom.bench.rows import Row
from spikeloom.evaluation.pictures import BLUE, GREEN, ORANGE

_CASE = re.compile(r"(\w+) (\w+), active share ([\d.]+)")
_COLOURS = {"float32": BLUE, "bfloat16": GREEN, "int8": ORANGE}
_STYLES = {"dense twin in torch": "--", "dense twin in our engine": "-"}
Curve = list[tuple[float, float]]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG: a panel per size, a curve per dtype and twin, and the bound 1 / share."""
    from matplotlib.figure import Figure

    panels = _curves(rows)
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    for axes, (size, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        shares = sorted({share for curve in curves.values() for share, _ in curve})
        axes.plot(shares, [1 / share for share in shares], color="black", lw=1, label="1 / share")
        for (dtype, twin), curve in curves.items():
            label = f"{dtype}, {twin.removeprefix('dense twin ')}"
            colour, style = _COLOURS[dtype], _STYLES[twin]
            axes.plot(*zip(*sorted(curve), strict=True), style, color=colour, marker="o", ms=3,
                      label=label)  # fmt: skip
        axes.set(xscale="log", yscale="log", title=f"spikeloom-{size}, batch 1, one thread")
        axes.set_xticks(shares, [f"{share:g}" for share in shares], minor=False)
        axes.set_yticks(ticks := [1, 2, 5, 10, 20, 50], [f"{tick}x" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.set_xlabel("active share: weights read per token over all weights")
    figure.axes[0].set_ylabel("times as fast as the dense twin")
    figure.axes[-1].legend(fontsize=8, title="dense twin", title_fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _curves(rows: Sequence[Row]) -> dict[str, dict[tuple[str, str], Curve]]:
    """By size, by dtype and twin: pairs of share and ratio."""
    panels: dict[str, dict[tuple[str, str], Curve]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if (found := _CASE.match(row.case)) and row.peer_name in _STYLES:
            size, dtype, share = found.groups()
            panels[size][dtype, row.peer_name].append((float(share), row.ratio))
    return panels
