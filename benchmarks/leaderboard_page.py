"""docs/leaderboard.md and its pictures, from the JSON files that leaderboard.py keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spikeloom.evaluation import pictures
from spikeloom.evaluation.pictures import BLUE, GREY, ORANGE

TITLES = {
    "tinystories": "TinyStories",
    "books": "books",
    "wikipedia": "Wikipedia",
    "wikitext-2": "WikiText-2 test",
}
COLOURS = {"spiking": BLUE, "quantised": ORANGE, "dense": GREY}
Record = Mapping[str, Any]

HEAD = """# Leaderboard

Spiking language models and their dense twins, each trained here on the same tokens of the same
text with one tokenizer, then measured by the same verbs of `spikeloom`. Rows are sorted by bits per
byte, the mean of the held-out texts. This page is made by
`python benchmarks/leaderboard.py render` from research/runs/leaderboard; the rows are
benchmarks/leaderboard.yaml."""

COLUMNS = """## How to read it

- **Bits per byte**, and in brackets perplexity per token (one tokenizer for all rows). Windows of
  {context} tokens, {stride} apart, every token scored once (`spikeloom eval`); the same for a
  model that was trained on shorter rows (real-sam-v4: 64 tokens). WikiText-2 is the
  standard word-tokenised test file with its `<unk>`, read as any text by models that were trained
  on other text: bits per byte of that file, not the word perplexity of the literature.
- **Active share**: weights touched per token over all weights in products, head included; a
  product without a neuron in front counts as 1. What stands behind a product (SpikeGPT, Pulse)
  makes spikes, but skips no weight. Where a token takes several steps (spike-transformer: 4), it
  is the share of one step, and a token touches that many times more.
- **Firing**: share of all neurons' channels that spike, per token (per step where a token takes
  several). Active share, firing, operations and energy are means over the held-out texts.
- **ACs, MACs**: accumulates of the spike-fed products, unrolled to binary slots;
  multiply-accumulates of the others and of the mixers. Per token.
- **Energy**: {label}; arithmetic only, and how many times less than the same model dense.{speeds}

Held-out texts: {texts}.

One seed and one budget: small differences mean nothing. Every command, learning rate included, is
in the `train.command` of the row's JSON file."""

TRAINED = """
- **Training**: tokens per second of the second half of the run, compilation left out, on
  {machines}."""

DECODED = """
- **Event, step**: decoding measured in tokens per second, batch 1, one thread, fp32, rounds in
  turn, median (`spikeloom compare`), on {machines}. *Event* is the event-driven engine, which
  reads only the weights of channels that fired; empty where it has no such form. *Step* is the
  PyTorch model, token by token."""


def write_page(
    found: Mapping[str, Sequence[tuple[Any, Record]]], notes: Mapping[str, str], page: Path
) -> None:
    """The page, and a picture per size beside it.

    Args:
        found: rows and their records by size.
        notes: what is to be known of the runs of a size.
        page: the Markdown file; pictures go to `pictures` in its folder.

    Raises:
        SystemExit: no row has been measured.
    """
    parts, everything = [HEAD], []
    for size, pairs in found.items():
        ready = [(row, record) for row, record in pairs if record.get("eval")]
        if not ready:
            continue
        ready.sort(key=lambda pair: mean_bits(pair[1]))
        name = f"leaderboard-{size}.png"
        (page.parent / "pictures").mkdir(parents=True, exist_ok=True)
        draw(ready, size, page.parent / "pictures" / name)
        absent = [(row, record) for row, record in pairs if not record.get("eval")]
        parts += [section(size, ready, absent), notes.get(size, ""), f"![{size}](pictures/{name})"]
        everything += [record for _, record in ready]
    if not everything:
        raise SystemExit("error: no row has figures: run benchmarks/leaderboard.py run first")
    told = [part for part in [*parts, legend(everything)] if part]
    page.write_text("\n\n".join(told) + "\n", encoding="utf-8")


def section(
    size: str, ready: Sequence[tuple[Any, Record]], absent: Sequence[tuple[Any, Record]]
) -> str:
    """Heading, budget, table, what the rows are, and which ones are missing."""
    texts = list(ready[0][1]["eval"])
    titles = ["model", "parameters", *(TITLES.get(name, name) for name in texts)]
    titles += ["active share", "firing", "ACs", "MACs", "energy (nJ)", "training", "event", "step"]
    lines = [cells(row, record, texts) for row, record in ready]
    table = _table(titles, lines)
    rows = "\n".join(f"- **{row.name}**: {row.what}." for row, _ in ready)
    budgets = sorted({record["train"]["tokens"] for _, record in ready})
    budget = " or ".join(f"{tokens / 1e6:.1f} M" for tokens in budgets)
    data = ", ".join(ready[0][1]["train"]["data"])
    parts = [f"## {size}", f"{budget} tokens of {data}.", table, rows]
    if absent:
        parts.append("Not measured: " + "; ".join(map(_absence, absent)) + ".")
    return "\n\n".join(parts)


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """In Markdown, without the columns of which no row has a figure."""
    columns = [(title, *cells) for title, *cells in zip(titles, *lines, strict=True) if any(cells)]
    head, *body = zip(*columns, strict=True)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *body])


def cells(row: Any, record: Record, texts: Sequence[str]) -> list[str]:
    """One line of the table; empty where a figure is not there."""
    decode, train = record.get("decode", {}), record["train"]
    scores = [_score(record["eval"].get(name)) for name in texts]
    return [
        row.name,
        _millions(record.get("parameters")),
        *scores,
        f"{mean(record, lambda e: e['active_share']):.3f}",
        _rate(record),
        _millions(mean(record, lambda e: e["synops"]["acs"])),
        _millions(mean(record, lambda e: e["synops"]["macs"])),
        f"{mean(record, lambda e: e['energy_pj']['spiking']) / 1e3:,.0f}"
        f" ({mean(record, lambda e: e['energy_pj']['ratio']):.1f}x)",
        _count(train.get("tokens_per_second")),
        _count(decode.get("event")),
        _count(decode.get("torch")),
    ]


def mean(record: Record, figure: Callable[[Any], float]) -> float:
    """Of a figure over the held-out texts."""
    values = [figure(entry) for entry in record["eval"].values()]
    return sum(values) / len(values)


def mean_bits(record: Record) -> float:
    return mean(record, lambda entry: entry["bits_per_byte"])


def legend(records: Sequence[Record]) -> str:
    """What the columns mean, with what they were measured on."""
    first = records[0]["eval"]
    protocol = next(iter(first.values()))["protocol"]
    return COLUMNS.format(
        context=protocol["context"],
        stride=protocol["stride"],
        label=next(iter(first.values()))["energy_pj"]["label"],
        speeds=_speeds(records),
        texts="; ".join(_text(name, entry) for name, entry in first.items()),
    )


def _speeds(records: Sequence[Record]) -> str:
    trained = [r["train"] for r in records if r["train"].get("tokens_per_second")]
    decoded = [r["decode"] for r in records if "decode" in r]
    told = TRAINED.format(machines=_machines(trained)) if trained else ""
    return told + (DECODED.format(machines=_machines(decoded, gpu=False)) if decoded else "")


def draw(ready: Sequence[tuple[Any, Record]], size: str, path: Path) -> None:
    """Quality over active share and, where it was measured, over the faster way to decode."""
    speeds = [fastest(record) for _, record in ready]
    panels = 2 if any(speeds) else 1
    figure = pictures.blank_figure(1.0 + 5.0 * panels, 4.6, columns=panels)
    left, *right = figure.axes
    for (row, record), speed in zip(ready, speeds, strict=True):
        bits, colour = mean_bits(record), COLOURS[row.kind]
        share = mean(record, lambda entry: entry["active_share"])
        _point(left, share, bits, row.name, colour)
        if speed is not None:
            _point(right[0], speed, bits, row.name, colour)
    left.set_xlabel("active share (weights touched per token / all weights)")
    left.set_xlim(0, 1.12)
    left.set_ylabel("bits per byte, mean of the held-out texts")
    for axes in right:
        axes.set_xlabel("decode, tokens/s (batch 1, one CPU thread, the faster engine)")
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.set_ylim(left.get_ylim())
    figure.suptitle(f"{size}: lower is better; blue spikes, orange is quantised, grey is dense")
    pictures.save(figure, path)


def fastest(record: Record) -> float | None:
    """Decode speed of the engine that is faster with this model."""
    decode = record.get("decode", {})
    return max((v for v in (decode.get("event"), decode.get("torch")) if v), default=None)


def _point(axes: Any, x: float, y: float, name: str, colour: str) -> None:
    axes.plot([x], [y], "o", color=colour)
    axes.annotate(name, (x, y), (4, 4), textcoords="offset points", fontsize=8)


def _rate(record: Record) -> str:
    if any(entry["channel_rate"] is None for entry in record["eval"].values()):
        return ""  # no neurons
    return f"{mean(record, lambda entry: entry['channel_rate']):.3f}"


def _score(entry: Record | None) -> str:
    if entry is None:
        return ""
    return f"{entry['bits_per_byte']:.3f} ({_short(math.exp(min(entry['loss'], 50.0)))})"


def _short(perplexity: float) -> str:
    return f"{perplexity:.1f}" if perplexity < 1000 else f"{perplexity:.3g}"


def _text(name: str, entry: Record) -> str:
    protocol = entry["protocol"]
    cap = "" if protocol["max_tokens"] is None else f", at most {protocol['max_tokens']:,}"
    title = TITLES.get(name, name)
    return f"{title} ({protocol['source']}, {entry['tokens']:,} tokens scored{cap})"


def _absence(pair: tuple[Any, Record]) -> str:
    row, record = pair
    return f"{row.name} ({record.get('failed', 'not run')})"


def _machines(records: Sequence[Record], gpu: bool = True) -> str:
    machines = [record["machine"] for record in records]
    names = {m["gpu"] if gpu and "gpu" in m else m["cpu"] for m in machines}
    torch = {f"torch {m['torch']}" for m in machines}
    return ", ".join([*sorted(names), *sorted(torch)])


def _millions(number: float | None) -> str:
    return "" if number is None else f"{number / 1e6:.2f}M" if number else "0"


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"
