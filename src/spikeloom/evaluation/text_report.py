"""What `eval`, `verify` and `profile` print on a terminal: the JSON's main figures, readable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SILENT = 0.005
"""Channel rate below which a neuron hardly takes part: the products behind it hardly read."""


def print_evaluation(report: dict[str, Any]) -> None:
    """Quality, sparsity, operations and energy of `perplexity.evaluate`."""
    ops, energy = report["synops"], report["energy_pj"]
    rows = [
        ("tokens / bytes scored", f"{report['tokens']:,} / {report['bytes']:,}"),
        ("loss", f"{report['loss']:.4f} nats per token"),
        ("perplexity", f"{report['perplexity']:.2f} per token"),
        ("bits per byte", f"{report['bits_per_byte']:.4f}"),
        ("active share", f"{report['active_share']:.3f} of the weights are read per token"),
        ("channel rate / mean count", _firing(report)),
        *_silent(report["per_layer"]),
        ("dense equivalent", f"{ops['dense_macs']:,.0f} multiply-accumulates per token"),
        ("unrolled to binary slots", f"{ops['acs']:,.0f} accumulates + {ops['macs']:,.0f} MACs"),
        ("energy estimate, 45 nm fp32", _energy(energy)),
    ]
    _print(rows)
    Console().print(f"[dim]{report['protocol']['text']}[/]", highlight=False)


def print_positions(models: Sequence[dict[str, Any]]) -> None:
    """One line per bucket and one column per model of `positions.evaluate_by_position`."""
    table = Table("positions", "tokens", "bytes", *(m["name"] for m in models), box=None)
    for i, bucket in enumerate(models[0]["buckets"]):
        span = f"{bucket['from']:,} to {bucket['to']:,}"
        bits = [f"{m['buckets'][i]['bits_per_byte']:.4f}" for m in models]
        table.add_row(span, f"{bucket['tokens']:,}", f"{bucket['bytes']:,}", *bits)
    for name, cell in {
        "bits per byte": lambda m: f"{m['bits_per_byte']:.4f}",
        "active share": lambda m: f"{m['active_share']:.3f}",
        "state, kB": lambda m: f"{m['state_bytes'] / 1e3:,.0f}",
        "trained context": lambda m: f"{m['protocol']['trained_context']:,}",
    }.items():
        table.add_row(name, "", "", *(cell(m) for m in models))
    console, first = Console(), models[0]
    console.print(table)
    console.print(f"{first['documents']} documents, {first['left_out']} too short")
    console.print(f"[dim]{first['protocol']['text']}[/]", highlight=False)


def print_verification(report: dict[str, Any]) -> None:
    """One line per form and precision of `verify.verify`."""
    columns = ("precision", "form", "mismatches", "ties", "events", "logits differ", "greedy", "")
    table = Table(*columns, box=None)
    for precision in ("exact", "fp32"):
        for form, result in report[precision].items():
            table.add_row(
                {"exact": "float64"}.get(precision, precision),
                form.replace("unrolled_", ""),
                _cell(result, "spike_count_mismatches", "{}"),
                _cell(result, "rounding_ties", "{}"),
                _cell(result, "events", "{:,}"),
                _cell(result, "max_abs_logit_difference", "{:.1e}"),
                _cell(result, "greedy_match", "{:.0%}"),
                _verdict(result["passed"]),
            )
    console = Console()
    console.print(table)
    for check in ("causality", "left_padding"):
        console.print(f"{check.replace('_', ' ')}: {_verdict(report[check]['passed'])}")
    for note in report["notes"]:
        console.print(f"note: {note}", highlight=False)
    console.print(f"[bold]{'all forms agree' if report['passed'] else 'THE FORMS DISAGREE'}[/]")


def print_profile(report: dict[str, Any], out: Path) -> None:
    """Channel rates and alarms of `profile.profile`, and where the pictures are."""
    table = Table("neuron", "channel rate", "mean count", "dead", "saturated", box=None)
    for row in report["per_layer"]:
        dead, saturated = (len(row.get(k) or []) for k in ("dead_channels", "saturated_channels"))
        rate, count = f"{row['channel_rate']:.3f}", f"{row['mean_count']:.2f}"
        table.add_row(row["neuron"], rate, count, str(dead), str(saturated))
    console = Console()
    console.print(table)
    names = ", ".join(sorted(path.name for path in out.iterdir()))
    console.print(f"active share {report['active_share']:.3f}; {out}: {names}", highlight=False)


def _firing(report: dict[str, Any]) -> str:
    if report["channel_rate"] is None:
        return "no neurons: every product is dense"
    return f"{report['channel_rate']:.3f} / {report['mean_count']:.2f}"


def _silent(per_layer: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Neurons that a model has trained to hardly ever fire; no row where there are none."""
    silent = [row["neuron"] for row in per_layer if row["channel_rate"] < SILENT]
    names = [name.removeprefix("model.decoder.") for name in silent]
    if not names:
        return []
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [("silent", f"{len(names)} of {len(per_layer)} neurons (below {SILENT}): {some}")]


def _energy(energy: dict[str, Any]) -> str:
    return (
        f"{energy['spiking'] / 1e6:.2f} of {energy['dense'] / 1e6:.2f} µJ per token "
        f"({energy['ratio']:.1f}x less; arithmetic only, not measured)"
    )


def _cell(result: dict[str, Any], key: str, form: str) -> str:
    value = result.get(key)
    return "–" if value is None else form.format(value)


def _verdict(passed: bool) -> str:
    return "[green]ok[/]" if passed else "[red]FAILED[/]"


def _print(rows: list[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table, highlight=False)
