"""Draw the gap over the active share: `python research/frontier.py FILE.png`.

Gap: perplexity above that of the dense twin on the same tokens. Every run of the folders below that
fired for less than 0.5 is a point; the runs of a folder share tokens, data and recipe, and a folder
without a dense run of its own is measured against that of another. `taught` runs learned from the
dense twin, which would itself gain by that: they have a second point, against a twin that was
taught, too.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from spikeloom.evaluation import pictures

RUNS = Path(__file__).parent / "runs"
SERIES = {  # label: folders, the one with the dense twin first
    "15m, 100 M tokens": ("2026-11-22-15m", "2026-11-21-15m", "2026-11-22-fine"),
    "6m, 24 M tokens": ("2026-11-22-gap-6m",),
}


def points(folders: tuple[str, ...]) -> list[tuple[str, float, float]]:
    """Name, active share and gap in percent of the spiking runs."""
    reports = {
        file.name.removesuffix(".train.json"): json.loads(file.read_text())
        for folder in reversed(folders)
        for file in sorted((RUNS / folder).glob("*.train.json"))
    }
    found = []
    for name, report in reports.items():
        share = report["eval_active_share"]
        if share > 0.5:
            continue
        found.append((name, share, gap(report, reports["dense"])))
        if name.startswith("taught"):
            found.append((f"{name}, twin taught too", share, gap(report, reports["dense-taught"])))
    return sorted(found, key=lambda point: point[1])


def gap(report: dict[str, float], twin: dict[str, float]) -> float:
    return 100 * (math.exp(report["eval_loss"] - twin["eval_loss"]) - 1)


def main() -> None:
    figure = pictures.blank_figure(8.0, 4.6)
    (axes,) = figure.axes
    print("| series | run | active share | gap in perplexity |\n|---|---|---:|---:|")
    for (label, folders), colour in zip(SERIES.items(), pictures.COLOURS, strict=False):
        found = points(folders)
        axes.plot(
            [s for _, s, _ in found], [g for _, _, g in found], "o", color=colour, label=label
        )
        for name, share, percent in found:
            axes.annotate(name, (share, percent), (5, 3), textcoords="offset points", fontsize=7)
            print(f"| {label} | {name} | {share:.3f} | {percent:+.1f}% |")
    axes.axhline(3, color="grey", lw=0.8, ls=":")
    axes.axvline(0.2, color="grey", lw=0.8, ls=":")
    axes.set_xlim(0.17, 0.34)
    axes.set_ylim(0)
    axes.set_xlabel("active share (head included)")
    axes.set_ylabel("perplexity above the dense twin's (%)")
    axes.legend(frameon=False, loc="upper right")
    pictures.save(figure, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
