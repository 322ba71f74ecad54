"""`spikeloom demo`: the whole way on the text that every Python carries.

Trains a spiking model and its dense twin on the same tokens, measures both on documents that
neither has seen, draws what happened, and lets the spiking model write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from spikeloom.config import RunConfig, load_config
from spikeloom.evaluation.checkpoint import load
from spikeloom.evaluation.compare import compare, to_markdown, to_png
from spikeloom.evaluation.pictures import loss_curves
from spikeloom.evaluation.profile import profile
from spikeloom.inference.generate import Generator, Sampling
from spikeloom.training.train import Result, train
from spikeloom.training.twin import twin_of

PRESET = "spikeloom-1m"
DATA = "python-docs"
SENTENCE = "Return a list of the names of the files in the directory."
PROMPT = "Return a new"


def run_demo(out: Path, minutes: float) -> dict[str, Any]:
    """Run the demo into `out`; a second run into the same folder starts afresh beside it.

    Args:
        out: folder for two checkpoints, the report and the pictures.
        minutes: training time of the spiking model; its twin gets the same tokens.

    Returns:
        the comparison's rows, the paths of the pictures, and the generated text.
    """
    out = _fresh(out)
    spiking, dense = _train_both(out, minutes)
    _say("measuring both on held-out documents")
    rows = compare([spiking.directory, dense.directory], DATA, part="eval", max_tokens=20_000)
    (out / "report.md").write_text(to_markdown(rows), encoding="utf-8")
    _draw(out, rows, spiking, dense)
    text = _write(spiking.directory)
    pictures = sorted(str(path) for path in out.glob("*.png"))
    print_report(rows, spiking, dense)
    print(f"\nreport and pictures: {out}/report.md, {', '.join(Path(p).name for p in pictures)}")
    print(f"\nthe spiking model writes:\n{text}")
    return {"rows": rows, "pictures": pictures, "text": text}


def print_report(rows: list[dict[str, Any]], spiking: Result, dense: Result) -> None:
    """The figures side by side, one per line."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "spiking", "dense twin", title="held-out Python documentation", box=None)
    for title, cells in _lines(rows, spiking, dense):
        table.add_row(title, *cells)
    Console().print(table, highlight=False)


def _lines(
    rows: list[dict[str, Any]], spiking: Result, dense: Result
) -> list[tuple[str, list[str]]]:
    def both(form: Any) -> list[str]:
        return [form(row) for row in rows]

    seconds = [f"{r.metrics['seconds']:.0f} s" for r in (spiking, dense)]
    tokens = [f"{r.metrics['tokens'] / 1e6:.2f} M" for r in (spiking, dense)]
    speeds = [row["tokens_per_second"] for row in rows]
    reference = speeds[1]["torch"]
    lines = [
        ("training tokens", tokens),
        ("training time", seconds),
        ("bits per byte", both(lambda r: f"{r['bits_per_byte']:.3f}")),
        ("perplexity per token", both(lambda r: f"{r['perplexity']:.2f}")),
        ("active share of the weights", both(lambda r: f"{r['active_share']:.3f}")),
        ("accumulates per token", both(lambda r: f"{r['synops']['acs']:,.0f}")),
        ("multiply-accumulates per token", both(lambda r: f"{r['synops']['macs']:,.0f}")),
        ("energy, estimated at 45 nm", both(lambda r: f"{r['energy_pj']['spiking'] / 1e6:.2f} µJ")),
    ]
    for engine in speeds[0]:
        cells = [f"{s[engine] / reference:.1f}x" if s[engine] else "–" for s in speeds]
        lines.append((f"decode speed measured, {engine} form", cells))
    return lines


def _train_both(out: Path, minutes: float) -> tuple[Result, Result]:
    run = load_config(PRESET, [f"training.max_minutes={minutes}", *_demo_settings()])
    spiking = train(run, DATA, out / "spiking", title="spiking")
    tokens = spiking.metrics["tokens"]
    twin: RunConfig = twin_of(
        load_config(PRESET, [f"training.max_tokens={tokens}", *_demo_settings()]), "dense"
    )
    words = str(out / "spiking")
    return spiking, train(twin, DATA, out / "dense", tokenizer=words, title="dense twin")


def _demo_settings() -> list[str]:
    return [
        "training.checkpoint_every=200",
        "training.sample_every=200",
        "training.eval_tokens=16384",
        "training.log_every=20",
    ]


def _draw(out: Path, rows: list[dict[str, Any]], spiking: Result, dense: Result) -> None:
    histories = {
        name: json.loads((result.directory / "trainer_state.json").read_text())["log_history"]
        for name, result in (("spiking", spiking), ("dense twin", dense))
    }
    loss_curves(histories, out / "loss.png")
    to_png(rows, out / "comparison.png")
    profile(*load(spiking.directory), SENTENCE, out)


def _write(directory: Path) -> str:
    generator = Generator.load(directory)
    return PROMPT + "".join(generator.stream(PROMPT, Sampling(max_new_tokens=80)))


def _fresh(out: Path) -> Path:
    """`out`, or the first of `out-2`, `out-3`, … that does not exist yet."""
    candidate, number = out, 2
    while candidate.exists():
        candidate, number = out.with_name(f"{out.name}-{number}"), number + 1
    candidate.mkdir(parents=True)
    return candidate


def _say(text: str) -> None:
    print(text, file=sys.stderr)
