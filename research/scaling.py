"""Loss against parameters and tokens, spiking and dense: train, fit, draw.

    python research/scaling.py train --data D --eval-data E --runs /tmp/scaling --shard 1/4
    python research/scaling.py fit research/runs/scaling --json fit.json
    python research/scaling.py draw research/runs/scaling scaling.png

Every point is a run of its own, with a whole cosine: a loss read in the middle of a longer run is
too high, because its learning rate has not come down yet. Each run leaves one small JSON; what is
there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

HERE = Path(__file__).parent
FAMILIES = ("spiking", "dense")
START_SECONDS = 60.0
"""What a run takes besides its tokens: start, compilation, evaluation."""

BOUNDS = ([-5, -8, 0.01, -8, 0.01], [2, 3, 2, 3, 2])  # of log E, log A, a, log B, b

LAW = "L = E + A (N/1e7)^-a + B (D/1e7)^-b"

Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One run of the list."""

    size: str
    family: str
    tokens: int
    seconds: float  # expected

    @property
    def name(self) -> str:
        return f"{self.size}-{self.family}-{self.tokens // 1000}k"


def points(plan: dict[str, Any]) -> list[Point]:
    """All runs of the plan, smallest first."""
    return [
        Point(name, family, tokens, START_SECONDS + tokens / float(size["speed"]))
        for name, size in plan["sizes"].items()
        for tokens in size.get("tokens", plan["tokens"])
        for family in FAMILIES
    ]


def shard(runs: list[Point], index: int, count: int) -> list[Point]:
    """Share number `index` of `count`: each run goes, longest first, to who has least to do."""
    shares: list[list[Point]] = [[] for _ in range(count)]
    for run in sorted(runs, key=lambda run: -run.seconds):
        min(shares, key=lambda share: sum(r.seconds for r in share)).append(run)
    return sorted(shares[index - 1], key=lambda run: run.seconds)


def command(run: Point, plan: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """The `spikeloom train` of a run."""
    size = plan["sizes"][run.size]
    settings = [*plan["common"], *size["settings"], f"training.compile={options.compile}"]
    words = [sys.executable, "-m", "spikeloom.cli", "train", size["preset"]]
    words += ["--data", options.data, "--eval-data", options.eval_data]
    words += ["--out", str(options.runs / run.name), "--max-tokens", str(run.tokens)]
    words += ["--twin", "dense"] if run.family == "dense" else []
    words += ["--tokenizer", str(options.tokenizer)] if options.tokenizer else []
    return words + [w for s in [*settings, *options.settings] for w in ("--set", s)]


def train(options: argparse.Namespace) -> None:
    """Train this share's runs that have no JSON yet, as long as there is time for the next.

    The shares are of what is missing when it starts: start all of them together.
    """
    plan = yaml.safe_load(options.plan.read_text())
    began = time.monotonic()
    out: Path = options.out or HERE / "runs" / options.plan.stem
    out.mkdir(parents=True, exist_ok=True)
    left = [run for run in points(plan) if not (out / f"{run.name}.json").exists()]
    for run in shard(left, *options.shard):
        used = time.monotonic() - began
        if used + run.seconds > options.seconds_left:
            print(f"skipped {run.name}: {used:.0f} s used, it needs {run.seconds:.0f}", flush=True)
            continue
        print(f"== {run.name} at {used:.0f} s", flush=True)
        line = command(run, plan, options)
        if subprocess.run(line, check=False).returncode != 0:
            print(f"FAILED {run.name}", flush=True)
            continue
        report = figures(options.runs / run.name, run, line)
        (out / f"{run.name}.json").write_text(json.dumps(report, indent=1) + "\n")


def figures(directory: Path, run: Point, line: list[str]) -> dict[str, Any]:
    """What a finished run says of itself: its size, and the last held-out loss of its own log."""
    from spikeloom.evaluation.checkpoint import load

    history = json.loads((directory / "trainer_state.json").read_text())["log_history"]
    last = [entry for entry in history if "eval_loss" in entry][-1]
    model, _ = load(directory)
    total = sum(parameter.numel() for parameter in model.parameters())
    final = json.loads((directory / "training.json").read_text())
    return {
        "size": run.size,
        "family": run.family,
        "tokens": final["tokens"],
        "parameters": total,
        "parameters_without_embedding": total - model.get_input_embeddings().weight.numel(),
        "loss": last["eval_loss"],
        "bits_per_byte": last["eval_bits_per_byte"],
        "active_share": last["eval_active_share"],
        "steps": final["steps"],
        "seconds": final["seconds"],
        "command": line[1:],
    }


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The JSONs of a folder, by family."""
    runs = [json.loads(file.read_text()) for file in folder.glob("*-*-*k.json")]
    runs.sort(key=lambda run: (run["parameters"], run["tokens"]))
    return {family: [r for r in runs if r["family"] == family] for family in FAMILIES}


def predict(x: Losses, N: Losses, D: Losses) -> Losses:
    """L = E + A (N / 1e7)^-a + B (D / 1e7)^-b for `x = log E, log A, a, log B, b`."""
    E, A, a, B, b = np.exp(x[0]), np.exp(x[1]), x[2], np.exp(x[3]), x[4]
    return E + A * (N / 1e7) ** -a + B * (D / 1e7) ** -b


def solve(N: Losses, D: Losses, loss: Losses) -> Losses:
    """Least squares on log L with Huber's loss (Hoffmann et al. 2022, approach 3), best of many
    starts."""
    try:
        from scipy.optimize import least_squares
    except ModuleNotFoundError:
        sys.exit("error: fits need SciPy: pip install 'spikeloom[research]'")
    starts = [
        np.array([e, -0.5, a, -0.5, b])
        for e in (0.0, 0.5, 1.0)
        for a in (0.2, 0.5)
        for b in (0.2, 0.5)
    ]
    found = [
        least_squares(
            lambda x: np.log(predict(x, N, D)) - np.log(loss),
            start,
            bounds=BOUNDS,
            loss="huber",
            f_scale=0.01,
        )
        for start in starts
    ]
    return min(found, key=lambda result: result.cost).x


def columns(runs: list[dict[str, Any]], which: str) -> tuple[Losses, Losses, Losses]:
    """N (`which` of the parameters), D and loss of the runs."""
    if len(runs) < 6:
        sys.exit(f"error: {len(runs)} runs are too few for five numbers: train more")
    N, D, loss = (np.array([float(r[key]) for r in runs]) for key in (which, "tokens", "loss"))
    return N, D, loss


def resampled(runs: list[dict[str, Any]], which: str, samples: int) -> list[Losses | None]:
    """Fits to runs drawn with replacement, the same draws for as many runs; None for draws of one
    size or one number of tokens."""
    N, D, loss = columns(runs, which)
    rng, found = np.random.default_rng(0), list[Losses | None]()
    for _ in range(samples):
        pick = rng.integers(0, len(runs), len(runs))
        enough = len(set(N[pick])) > 1 and len(set(D[pick])) > 1
        found.append(solve(N[pick], D[pick], loss[pick]) if enough else None)
    return found


def fitted(
    runs: list[dict[str, Any]], which: str, draws: Sequence[Losses | None] = ()
) -> dict[str, Any]:
    """The five numbers with 80% of `draws` (`resampled`), and how far the runs are off."""
    N, D, loss = columns(runs, which)
    best = solve(N, D, loss)
    drawn = [x for x in draws if x is not None]
    names, logs = ("E", "A", "a", "B", "b"), np.array([True, True, False, True, False])
    value = np.where(logs, np.exp(best), best)
    spread = np.where(logs, np.exp(drawn), drawn) if drawn else np.array([value])
    low, high = np.quantile(spread, [0.1, 0.9], axis=0)
    off = predict(best, N, D) - loss
    low_end, high_end = map(np.array, BOUNDS)
    close = 0.02 * (high_end - low_end)
    stuck = (best < low_end + close) | (best > high_end - close)
    return {
        "runs": len(runs),
        "x": best.tolist(),
        "at_bounds": [name for name, is_stuck in zip(names, stuck, strict=True) if is_stuck],
        **{n: [value[i], low[i], high[i]] for i, n in enumerate(names)},
        "largest_residual": float(np.abs(off).max()),
        "rms_residual": float(np.sqrt((off**2).mean())),
    }


def fit(options: argparse.Namespace) -> None:
    """Fit both families, with parameters counted both ways; say where the curves go."""
    families, report, draws = read(options.folder), {}, {}
    for which in ("parameters_without_embedding", "parameters"):
        draws[which] = {
            f: resampled(runs, which, options.bootstrap) for f, runs in families.items()
        }
        report[which] = {f: fitted(runs, which, draws[which][f]) for f, runs in families.items()}
        print(
            f"\nN = {which.replace('_', ' ')}; L = E + A (N/1e7)^-a + B (D/1e7)^-b, nats per token"
        )
        print("| family | E | A | a | B | b | rms residual |\n|---|---|---|---|---|---|---|")
        for family, result in report[which].items():
            cells = ["{:.3f} ({:.3f} to {:.3f})".format(*result[n]) for n in "EAaBb"]
            print(f"| {family} | {' | '.join(cells)} | {result['rms_residual']:.4f} |")
        for family, result in report[which].items():
            if stuck := result["at_bounds"]:
                print(
                    f"{family}: {', '.join(stuck)} at a bound: these runs do not determine the law"
                )
    which = "parameters_without_embedding"
    print("\n" + direction(report[which], families, draws[which]))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def direction(
    fits: dict[str, Any],
    families: dict[str, list[dict[str, Any]]],
    draws: dict[str, list[Losses | None]],
) -> str:
    """The gap in nats where it was measured and where the fits put it beyond, with 80% of what
    resampled fits say."""
    best = [np.array(fits[f]["x"]) for f in FAMILIES]
    drawn = [
        (one, other)
        for one, other in zip(*(draws[f] for f in FAMILIES), strict=True)
        if one is not None and other is not None
    ]

    def row(N: float, D: float, measured: str) -> str:
        def gap(spiking: Losses, dense: Losses) -> float:
            at = np.array([N]), np.array([D])
            return float(predict(spiking, *at)[0] - predict(dense, *at)[0])

        told = f"{gap(*best):.3f}"
        if drawn:
            spread = np.quantile([gap(*pair) for pair in drawn], [0.1, 0.9])
            told += " ({:.3f} to {:.3f})".format(*spread)
        return f"| {N / 1e6:,.1f} M | {D / 1e6:,.0f} M | {measured} | {told} |"

    pairs = {(r["size"], r["tokens"]): r for r in families["dense"]}
    lines = ["| N | D | gap, measured | gap, fitted |", "|---:|---:|---:|---:|"]
    for run in families["spiking"]:
        twin = pairs.get((run["size"], run["tokens"]))
        measured = "" if twin is None else f"{run['loss'] - twin['loss']:.3f}"
        lines.append(row(run["parameters_without_embedding"], run["tokens"], measured))
    for N, D in ((1e8, 2e9), (1e9, 2e10)):  # 20 tokens a parameter
        lines.append(row(N, D, "beyond"))
    return "\n".join(lines)


def draw(options: argparse.Namespace) -> None:
    """Loss over parameters, a line per number of tokens; and over tokens, a line per size."""
    from spikeloom.evaluation import pictures

    families = read(options.folder)
    figure = pictures.blank_figure(11.0, 4.4, columns=2)
    for axes, x, other in zip(
        figure.axes,
        ("parameters_without_embedding", "tokens"),
        ("tokens", "parameters_without_embedding"),
        strict=True,
    ):
        for family, style in zip(FAMILIES, ("-", "--"), strict=True):
            _lines(axes, families[family], x, other, style, pictures.COLOURS)
        axes.set_xscale("log")
        axes.set_xlabel("parameters without embedding" if other == "tokens" else "training tokens")
        axes.set_ylabel("held-out loss (nats per token)")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=7)
    figure.suptitle("Loss against parameters and tokens: spiking (solid), dense twin (dashed)")
    pictures.save(figure, options.picture)


def _lines(
    axes: Any, runs: list[dict[str, Any]], x: str, other: str, style: str, colours: Any
) -> None:
    """Runs as marks, one colour for each value of `other`, and the fit through them as lines; where
    the runs do not determine it, from mark to mark."""
    result = fitted(runs, "parameters_without_embedding")
    for i, value in enumerate(sorted({r[other] for r in runs})):
        group = sorted((r for r in runs if r[other] == value), key=lambda r: r[x])
        label = f"{value / 1e6:,.1f} M {'tokens' if other == 'tokens' else 'parameters'}"
        colour = colours[i % len(colours)]
        axes.plot(
            [r[x] for r in group], [r["loss"] for r in group], color=colour, lw=1,
            ls=style if result["at_bounds"] else "none",
            marker="o" if style == "-" else "s", ms=4, label=label if style == "-" else None,
        )  # fmt: skip
        if not result["at_bounds"]:
            _law(axes, np.array(result["x"]), runs, x, float(value), style, colour)


def _law(
    axes: Any,
    law: Losses,
    runs: list[dict[str, Any]],
    x: str,
    value: float,
    style: str,
    colour: str,
) -> None:
    grid = np.geomspace(min(r[x] for r in runs), max(r[x] for r in runs), 50)
    held = np.full_like(grid, value)
    N, D = (held, grid) if x == "tokens" else (grid, held)
    axes.plot(grid, predict(law, N, D), ls=style, color=colour, lw=1)


def _share(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text}: give i/n with i from 1 to n")
    return int(index), int(count)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = top.add_subparsers(required=True)
    one = verbs.add_parser("train", help="run what is missing of the list")
    one.add_argument("--data", required=True, help="SOURCE or prepared directory")
    one.add_argument("--eval-data", required=True, help="SOURCE of held-out text")
    one.add_argument("--tokenizer", type=Path, help="for all runs; a prepared directory has one")
    one.add_argument("--runs", type=Path, required=True, help="where checkpoints go")
    one.add_argument("--out", type=Path, help="where JSONs go; by default runs/NAME of the plan")
    one.add_argument("--plan", type=Path, default=HERE / "scaling.yaml")
    one.add_argument("--shard", type=_share, default=(1, 1), metavar="i/n")
    one.add_argument("--seconds-left", type=float, default=1e9)
    one.add_argument("--compile", default="true", choices=["true", "false"])
    one.add_argument("--set", dest="settings", action="append", default=[], metavar="a.b=c")
    one.set_defaults(do=train)
    two = verbs.add_parser("fit", help="both laws as tables")
    two.add_argument("--bootstrap", type=int, default=200, help="resamples of the runs")
    two.add_argument("--json", type=Path)
    two.set_defaults(do=fit)
    three = verbs.add_parser("draw", help="a PNG")
    three.set_defaults(do=draw)
    for verb in (two, three):
        verb.add_argument("folder", type=Path)
    three.add_argument("picture", type=Path)
    return top


if __name__ == "__main__":
    given = parser().parse_args()
    given.do(given)
