"""The pictures: spike raster, rates, operations, loss curves, comparison.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; payloads are drawn
from blue (negative) over white (silent) to red (positive).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#9A9A9A",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
_ROLE_COLOURS = {
    "encoder": RED,
    "mixer_input": BLUE,
    "mixer_output": SKY,
    "mlp_input": GREEN,
    "mlp_hidden": ORANGE,
    "head": PURPLE,
}
_KIND_COLOURS = {"spiking": BLUE, "quantised": ORANGE, "dense": GREY}


def raster(
    words: Sequence[str], panels: Sequence[tuple[str, Tensor, bool]], path: str | Path
) -> None:
    """Payloads of some neurons while a text is read.

    Args:
        words: text of each token, `[L]`.
        panels: name, payloads `[T, L, D]` (T = 1 on the token clock), and whether they are signed.
        path: PNG to write.
    """
    width = max(6.0, 0.32 * len(words) + 2.0)
    figure = blank_figure(width, 2.6 * len(panels) + 1.0, rows=len(panels))
    for axes, (name, payloads, signed) in zip(figure.axes, panels, strict=True):
        grid = payloads.float().transpose(0, 1).flatten(0, 1).T.cpu().numpy()  # [D, L * T]
        limit, rate = max(1.0, float(abs(grid).max())), float((grid != 0).mean())
        image = axes.imshow(
            np.ma.masked_equal(grid, 0),  # silence stays white
            aspect="auto",
            interpolation="nearest",
            cmap="RdBu_r" if signed else "Reds",
            vmin=-limit if signed else 0.0,
            vmax=limit,
            extent=(-0.5, len(words) - 0.5, len(grid) - 0.5, -0.5),
        )
        axes.set_title(f"{name}: {100 * rate:.0f}% of channels send", loc="left")
        axes.set_ylabel("channel")
        axes.set_xticks([])
        figure.colorbar(image, ax=axes, label="payload s", pad=0.01, fraction=0.03)
    axes.set_xticks(range(len(words)), [_visible(word) for word in words], rotation=60, ha="right")
    axes.set_xlabel("token")
    save(figure, path)


def rates(per_layer: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Channel rate of every neuron by layer, and the share of channels that never fired."""
    figure = blank_figure(max(7.0, 0.24 * len(per_layer) + 3.5), 3.6)
    axes = figure.axes[0]
    for role, colour in _ROLE_COLOURS.items():
        bars = [(i, e["channel_rate"]) for i, e in enumerate(per_layer) if e["role"] == role]
        if bars:
            axes.bar(*zip(*bars, strict=True), color=colour, label=role.replace("_", " "))
    dead = [(i, e["dead"] / e["channels"]) for i, e in enumerate(per_layer) if e["dead"]]
    if dead:
        axes.plot(*zip(*dead, strict=True), "kx", markersize=5, label="share silent throughout")
    firsts: dict[int | str, int] = {}
    for i, entry in enumerate(per_layer):
        firsts.setdefault("head" if entry["layer"] is None else entry["layer"], i)
    axes.set_xticks(list(firsts.values()), [str(name) for name in firsts])
    axes.set_xlabel("layer")
    axes.set_ylabel("channel rate (share of channels sent)")
    axes.set_ylim(0, 1)
    axes.set_title("How many channels fire, per neuron", loc="left")
    if per_layer:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    save(figure, path)


def operations(products: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Weights of each product, and how many of them a token touches."""
    figure = blank_figure(8.0, 0.2 * len(products) + 1.6)
    axes = figure.axes[0]
    sizes = [p["d_in"] * p["d_out"] / 1e3 for p in products]
    touched = [p["weights_touched"] / 1e3 for p in products]
    places = range(len(products))
    axes.barh(places, sizes, color="#D9D9D9", label="all weights (dense)")
    axes.barh(places, touched, color=BLUE, height=0.55, label="touched per token")
    for place, size, part in zip(places, sizes, touched, strict=True):
        axes.annotate(
            f"{100 * part / size:.0f}%", (max(size, part), place), (3, 0),
            textcoords="offset points", va="center", fontsize=7,
        )  # fmt: skip
    axes.set_yticks(places, [_short(p["name"]) for p in products], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel("weights (thousands)")
    share = sum(touched) / sum(sizes)
    axes.set_title(f"Where the operations are: {100 * share:.0f}% of all weights", loc="left")
    axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    save(figure, path)


def loss_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], path: str | Path) -> None:
    """Training loss (thin) and held-out loss (marked) of several runs.

    Args:
        runs: `log_history` of each run's `trainer_state.json`, by name.
        path: PNG to write.
    """
    figure = blank_figure(7.0, 4.2)
    axes = figure.axes[0]
    for i, (name, history) in enumerate(runs.items()):
        colour = COLOURS[i % len(COLOURS)]
        train = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
        held_out = [
            (entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry
        ]
        if train:
            label = None if held_out else name
            axes.plot(*zip(*train, strict=True), color=colour, lw=0.8, alpha=0.5, label=label)
        if held_out:
            last = f"{name} ({held_out[-1][1]:.3f} held out)"
            axes.plot(*zip(*held_out, strict=True), color=colour, marker="o", ms=4, label=last)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("cross-entropy (nats per token)")
    axes.set_title("Loss: training (thin), held out (marked)", loc="left")
    axes.grid(alpha=0.25)
    if runs:
        axes.legend(frameon=False)
    save(figure, path)


def by_position(models: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Bits per byte over the position in a text, a line per model; those that read all weights
    (dense ones) are dashed, and begin the colours anew.

    Args:
        models: reports of `spikeloom.evaluation.positions`, each with a `name`. A line that
            rises far above what all have within their trained context leaves the picture.
        path: PNG to write.
    """
    figure = blank_figure(7.5, 4.2)
    axes = figure.axes[0]
    drawn: Counter[str] = Counter()
    for model in models:
        style = "--" if model["active_share"] == 1 else "-"
        colour = COLOURS[drawn[style] % len(COLOURS)]
        drawn[style] += 1
        ends = [bucket["to"] for bucket in model["buckets"]]
        bits = [bucket["bits_per_byte"] for bucket in model["buckets"]]
        label = f"{model['name']} ({model['state_bytes'] / 1e3:,.0f} kB of state at the end)"
        axes.plot(ends, bits, style, color=colour, marker="o", ms=4, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ends, [f"{end:,}" for end in ends], fontsize=8)
    for context in sorted({model["protocol"]["trained_context"] for model in models}):
        axes.axvline(context, color=GREY, lw=0.8, ls=":")
        axes.annotate(
            "trained up to here", (context, 1.0), (3, -8), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=7, color=GREY,
        )  # fmt: skip
    within = [
        bucket["bits_per_byte"]
        for model in models
        for bucket in model["buckets"]
        if bucket["from"] < model["protocol"]["trained_context"]
    ]
    if within and axes.get_ylim()[1] > 1.1 * max(within):
        axes.set_ylim(top=1.1 * max(within))
    axes.set_xlabel("position in the text (tokens; end of each bucket)")
    axes.set_ylabel("bits per byte")
    axes.set_title("What a longer context is worth", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="upper center")
    save(figure, path)


def comparison(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Rows of `spikeloom.evaluation.compare.compare` as one panel of bars per figure."""
    panels: list[tuple[str, Callable[[Mapping[str, Any]], float | None], str]] = [
        ("bits per byte", lambda row: row["bits_per_byte"], "{:.3f}"),
        ("active share of weights", lambda row: row["active_share"], "{:.2f}"),
        ("energy, nJ/token (estimate)", lambda row: row["energy_pj"]["spiking"] / 1e3, "{:,.0f}"),
    ]
    for name in rows[0]["tokens_per_second"]:
        title = f"decode, tokens/s ({name}, 1 thread)"
        panels.append((title, partial(_speed, name), "{:.0f}"))
    figure = blank_figure(2.5 * len(panels) + 1.0, 0.5 * len(rows) + 1.3, columns=len(panels))
    for axes, (title, value, form) in zip(figure.axes, panels, strict=True):
        values = [value(row) for row in rows]
        colours = [_KIND_COLOURS[row["kind"]] for row in rows]
        bars = axes.barh(range(len(rows)), [v or 0.0 for v in values], color=colours)
        labels = ["no such form" if v is None else form.format(v) for v in values]
        axes.bar_label(bars, labels, padding=3, fontsize=8)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_yticks([])
        axes.margins(x=0.3)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.invert_yaxis()
    names = [f"{row['name']} ({row['kind']})" for row in rows]
    figure.axes[0].set_yticks(range(len(rows)), names)
    save(figure, path)


def blank_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Figure:
    """A figure of its own, without pyplot's global state or a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    figure.savefig(path, dpi=150)


def _visible(word: str) -> str:
    """A token as a tick label: its spaces and line ends shown, `$` not read as mathematics."""
    shown = word.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·").replace("$", r"\$")
    printable = "".join(c if c.isprintable() else "□" for c in shown)
    return printable[:14] or "∅"


def _speed(engine: str, row: Mapping[str, Any]) -> float | None:
    return row["tokens_per_second"][engine]


def _short(name: str) -> str:
    """`0.mixer.q_proj` of `model.decoder.layers.0.blocks.0.mixer.q_proj`."""
    dropped = {"model", "decoder", "layers", "blocks", "mlp", "mixer"}
    parts = name.split(".")
    kept = [p for i, p in enumerate(parts) if p not in dropped and parts[i - 1] != "blocks"]
    return " ".join(kept)
