"""The leaderboard's picture: quality over active share, and over the speed of decoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeloom.evaluation import pictures
from spikeloom.evaluation.pictures import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from leaderboard_page import Line

COLOURS = {"spiking": BLUE, "quantised": ORANGE, "dense": GREY}
TOP = 0.5  # over dense; a row that is worse would press all others flat


def draw(lines: Sequence[Line], size: str, path: Path) -> None:
    """A point per row; the second panel only where decoding was timed."""
    drawn = [line for line in lines if line.over_dense <= TOP]
    panels = 2 if any(line.fastest for line in drawn) else 1
    figure = pictures.blank_figure(1.0 + 5.0 * panels, 4.6, columns=panels)
    left, *right = figure.axes
    for line in drawn:
        _point(left, line.active_share, line)
        if right and line.fastest is not None:
            _point(right[0], line.fastest, line)
    left.set_xlabel("active share (weights touched per token / all weights)")
    left.set_xlim(0, 1.12)
    left.set_ylabel("bits per byte over the dense twin's (%)")
    for axes in right:
        axes.set_xlabel("decode, tokens/s (batch 1, one CPU thread, the faster engine)")
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.set_ylim(left.get_ylim())
    figure.suptitle(_title(lines, size))
    pictures.save(figure, path)


def _title(lines: Sequence[Line], size: str) -> str:
    above = [f"{n.row.name} (+{n.over_dense:.0%})" for n in lines if n.over_dense > TOP]
    told = f"{size}: lower is better; blue spikes, orange is quantised, grey is dense"
    return f"{told}\nabove the picture: {', '.join(above)}" if above else told


def _point(axes: Any, x: float, line: Line) -> None:
    y = 100 * line.over_dense
    axes.plot([x], [y], "o", color=COLOURS[line.row.kind])
    axes.annotate(line.row.name, (x, y), (4, 4), textcoords="offset points", fontsize=8)
