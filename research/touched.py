"""Loss against the weights that a token touches: `python research/touched.py FILE.png`.

A dense model touches every weight of its products for every token; of a spiking model, a silent
neuron's weights are not read. So a spiking model of active share s and W weights costs what a dense
one of s W costs, and the question is whether it is better than that one. Panels are not to be
compared: each has one recipe, one data set, one token count and one held-out text.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeloom.evaluation import pictures

RUNS = Path(__file__).parent / "runs"
WEIGHTS = {
    "1m": 1_884_160, "6m": 5_767_168, "15m": 15_728_640,
    "50m": 51_773_440, "125m": 102_236_160,  # scaling.yaml
    "1.1": 1_114_112, "1.6": 1_576_960, "3.0": 2_998_272, "4.5": 4_530_176,  # sweeps/touched.yaml
}  # fmt: skip
"""In products, head included (vocabulary 4,096): what `spikeloom eval` reports as `weights`."""

GAP, MUON = RUNS / "2026-11-22-gap-6m", (RUNS / "2026-11-22-muon-6m", RUNS / "2026-11-22-muon-15m")
PANELS: dict[str, tuple[tuple[str, Path], ...]] = {  # size and JSON of each run
    "AdamW 2e-3": tuple(
        (size, RUNS / f"scaling_adamw/{size}-{family}-24000k.json")
        for size, family in (
            ("1m", "dense"), ("6m", "dense"), ("15m", "dense"),
            ("1m", "spiking"), ("6m", "spiking"),
        )
    ),
    "AdamW 2e-3, other held-out rows": (
        *(("6m", GAP / f"{name}.train.json") for name in ("dense", "default", "base25", "base20")),
        ("15m", MUON[1] / "s29-a2.json"),
    ),
    "Muon, the best rate of each": (
        *(
            (size, RUNS / f"2026-11-22-touched/dense-{size}-{rate}.json")
            for size, rate in (("1.1", "m40"), ("1.6", "m20"), ("3.0", "m20"), ("4.5", "m20"))
        ),
        *(("6m", MUON[0] / f"{name}-m20.json") for name in ("dense", "s29", "s20")),
        *(("15m", MUON[1] / f"{name}.json") for name in ("dense-m10", "s29-m10", "s20-m20")),
    ),
    "Muon, smaller batches, one rate each": (
        *(
            (size, RUNS / f"scaling/{size}-{family}-24000k.json")
            for family in ("dense", "spiking")
            for size in ("1m", "6m", "15m", "50m", "125m")
        ),
        ("125m", RUNS / "2026-11-22-125m-24M/s20.json"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """Loss in nats per token; weights touched per token on the held-out text."""

    size: str
    share: float
    loss: float

    @property
    def touched(self) -> float:
        return self.share * WEIGHTS[self.size]

    def is_right_of(self, other: Point) -> bool:
        """Whether the other is so close that a label would cover it."""
        return 0.4 < other.touched / self.touched < 1 and abs(other.loss - self.loss) < 0.05


def point(size: str, file: Path) -> Point:
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    if "family" in found:  # research/scaling.py
        return Point(size, found["active_share"], found["loss"])
    train = found.get("train", found)
    return Point(size, train["eval_active_share"], train["eval_loss"])


def draw(axes: Any, points: list[Point]) -> None:
    """Dense and spiking runs of one panel; a line joins the dense runs."""
    for spiking, style, colour in ((False, "s-", pictures.GREY), (True, "o", pictures.BLUE)):
        some = [p for p in points if (p.share < 1) == spiking]
        label = "spiking" if spiking else "dense"
        axes.plot(
            [p.touched / 1e6 for p in some],
            [p.loss for p in some],
            style,
            color=colour,
            label=label,
        )
    for p in points:
        text = f"{p.size} at {p.share:.2f}" if p.share < 1 else p.size
        place, side = ((-7, -4), "right") if p.share < 1 else ((7, 2), "left")
        if p.share < 1 and any(q.share < 1 and p.is_right_of(q) for q in points):
            place, side = (3, 7), "left"
        where = (p.touched / 1e6, p.loss)
        axes.annotate(text, where, place, textcoords="offset points", fontsize=8, ha=side)
    axes.set_xscale("log")
    axes.set_xlim(0.13, 160)
    axes.margins(y=0.15)
    marks = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("weights touched per token (million)")


def main() -> None:
    file = arguments().file
    figure = pictures.blank_figure(14.0, 4.0, columns=len(PANELS))
    print("| recipe | size | active share | weights touched | loss |\n|---|---|---:|---:|---:|")
    for axes, (recipe, runs) in zip(figure.axes, PANELS.items(), strict=True):
        points = [point(*run) for run in runs]
        draw(axes, points)
        axes.set_title(recipe, fontsize=9)
        for p in points:
            cells = (recipe, p.size, f"{p.share:.3f}", f"{p.touched / 1e6:.2f} M", f"{p.loss:.3f}")
            print(f"| {' | '.join(cells)} |")
    figure.axes[0].set_ylabel("held-out loss (nats per token), 24 M tokens")
    figure.axes[0].legend(frameon=False)
    pictures.save(figure, file)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="the picture to write (.png)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
