"""Draw the gap over the active share: `python research/frontier.py FILE.png`.

Gap: perplexity above that of the dense twin on the same tokens, with the learning rate that suited
each best where several were tried. Points
that a line joins differ in the target of the active share alone.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

from spikeloom.evaluation import pictures

RUNS = Path(__file__).parent / "runs"
DAY = "2026-11-22"


@dataclass(frozen=True)
class Series:
    """Dense runs, each with the spiking runs that are measured against it; files under `runs`,
    without `.json`."""

    label: str
    runs: dict[str, tuple[str, ...]]
    style: str = "o-"


def _both(folder: str, name: str) -> tuple[str, ...]:
    return tuple(f"{DAY}-{folder}/{target}-{name}" for target in ("s29", "s20"))


SEEDS = {  # of 15m, batches of 16: the dense run of each, and what is measured against it
    f"{DAY}-batch-15m/dense-b16-m10": (f"{DAY}-gain-15m/s29", f"{DAY}-gain-15m/s20"),
    f"{DAY}-gain-15m/dense-seed1": _both("seeds-15m", "seed1"),
    f"{DAY}-seeds-15m/dense-seed2": _both("seeds-15m", "seed2"),
}
SERIES = (
    Series(
        "6m, 24 M tokens",
        {f"{DAY}-muon-6m/dense-m20": _both("muon-6m", "m20")},
    ),
    Series(
        "batches of 16: 6m (upper), and 15m with three seeds",
        {
            f"{DAY}-batch-6m/dense-b16-m10": (f"{DAY}-gain-6m/s29", f"{DAY}-gain-6m/s20"),
            **SEEDS,
        },
        "v-",
    ),
    Series(
        "the same with a context gain",
        {
            f"{DAY}-batch-{size}/dense-b16-m10": tuple(
                f"{DAY}-gain-{size}/gain8-{target}" for target in ("s29", "s20")
            )
            for size in ("6m", "15m")
        },
        "^-",
    ),
    Series(
        "15m, 72 M tokens, two seeds",
        {
            f"{DAY}-15m-72M/dense-{i}": (f"{DAY}-15m-72M/s29-{i}", f"{DAY}-15m-72M/s20-{i}")
            for i in (0, 1)
        },
    ),
    Series(
        "125m, 24 M tokens (line), 36 M",
        {
            "scaling/125m-dense-24000k": ("scaling/125m-spiking-24000k", f"{DAY}-125m-24M/s20"),
            f"{DAY}-125m-36M/dense": (f"{DAY}-125m-36M/s29",),
        },
        "D-",
    ),
    Series(
        "15m with a state of constant size, batches of 16",
        {
            f"{DAY}-batch-15m/dense-b16-m10": tuple(
                f"{DAY}-seeds-15m/hybrid-{target}" for target in ("s29", "s20")
            )
        },
        "s--",
    ),
)


def report(run: str) -> dict[str, float]:
    """What training said of a run, whichever script kept it."""
    found = json.loads((RUNS / f"{run}.json").read_text("utf-8"))
    if "family" in found:  # research/scaling.py
        return {f"eval_{key}": found[key] for key in ("loss", "active_share")}
    return found.get("train", found)


def points(dense: str, spiking: tuple[str, ...]) -> list[tuple[str, float, float]]:
    """Name, active share and gap in percent of the spiking runs."""
    twin, rows = report(dense)["eval_loss"], {run: report(run) for run in spiking}
    return [
        (run, row["eval_active_share"], 100 * math.expm1(row["eval_loss"] - twin))
        for run, row in rows.items()
    ]


def main() -> None:
    file = arguments().file
    figure = pictures.blank_figure(8.0, 4.6)
    (axes,) = figure.axes
    print("| series | run | active share | gap in perplexity |\n|---|---|---:|---:|")
    for series, colour in zip(SERIES, pictures.COLOURS, strict=True):
        label: str | None = series.label
        for dense, spiking in series.runs.items():
            found = points(dense, spiking)
            shares, gaps = [share for _, share, _ in found], [gap for _, _, gap in found]
            axes.plot(shares, gaps, series.style, color=colour, label=label, ms=5, lw=1)
            label = None  # once in the legend
            for run, share, gap in found:
                print(f"| {series.label} | {run} | {share:.3f} | {gap:+.1f}% |")
    axes.plot([0.2], [3], "*", color="grey", ms=11, ls="none", label="goal: 3% at 0.20")
    axes.set_xlim(0.18, 0.34)
    axes.set_ylim(0, 32)
    axes.set_xlabel("active share (head included)")
    axes.set_ylabel("perplexity above the dense twin's (%)")
    axes.legend(frameon=False, loc="upper right", fontsize=8)
    pictures.save(figure, file)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="the picture to write (.png)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
