"""docs/leaderboard.md and its pictures, from the JSON files that leaderboard.py keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboard_picture import draw
from leaderboard_records import Record, Records, at_an_end, best_rate
from leaderboard_rows import SIZES, Row, rows

TITLES = {
    "tinystories": "TinyStories",
    "books": "books",
    "wikipedia": "Wikipedia",
    "wikitext-2": "WikiText-2 test",
}

HEAD = """# Leaderboard

Spiking language models and their dense twins, each trained here on the same tokens of the same
text with one tokenizer and one optimizer, each at the best of the learning rates tried, then
measured by the same verbs of `spikeloom`. Rows are sorted by how many more bits per byte they need
than the row `dense`, the mean over the held-out texts. This page is made by
`python benchmarks/leaderboard.py render` from research/runs/leaderboard; the rows are
benchmarks/leaderboard.yaml."""

RATES = """Learning rates tried, with the loss in nats per token at the end of training on documents
that were set aside from the training text. **Bold** is the run shown above: it is chosen by this
loss, not by the texts of the table. Compare along a line, not down a column: each model is read in
windows of the length that it is trained on."""

LEGEND = """## How to read it

- **Over dense**: bits per byte over those of the row `dense`, averaged over the held-out texts, so
  that each text counts alike; a plain mean of bits per byte would mostly be that of the text that
  is hardest for all, WikiText-2.
- **Bits per byte**, and in brackets perplexity per token (one tokenizer for all rows). Windows of
  {context} tokens, {stride} apart, every token scored once (`spikeloom eval`); the same for a
  model that was trained on shorter rows (real-sam-v4: 64 tokens). WikiText-2 is the
  standard word-tokenised test file with its `<unk>`, read as any text by models that were trained
  on other text: bits per byte of that file, not the word perplexity of the literature.
- **Active share**: weights touched per token over all weights in products and gains, head included;
  a product without a neuron in front counts as 1. What stands behind a product (SpikeGPT, Pulse)
  makes spikes, but skips no weight. Where a token takes several steps (spike-transformer: 4), it
  is the share of one step, and a token touches that many times more.
- **Firing**: share of all neurons' channels that spike, per token (per step where a token takes
  several). Active share, firing, operations and energy are means over the held-out texts.
- **ACs, MACs**: accumulates of the spike-fed products, unrolled to binary slots;
  multiply-accumulates of the others and of the mixers. Per token.
- **Energy**: {label}; arithmetic only, and how many times less than the same model dense.{speeds}

Held-out texts: {texts}.

One seed and one budget: small differences mean nothing. Every command and commit is in the `train`
of the run's JSON file."""

TRAINED = """
- **Training**: tokens per second of the second half of the run, compilation left out, on
  {machines}."""

DECODED = """
- **Event, step**: decoding measured in tokens per second, batch 1, one thread, fp32, rounds in
  turn, median, on {machines}. Weights are random; *event* is the event-driven engine, which reads
  only the weights of channels that fired, with payload steps scaled until the model has the active
  share of the table. It is empty where the engine cannot run a model, or a model of binary spikes
  fires otherwise at random weights (spike-transformer). *Step* is the PyTorch model, token by
  token."""


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        row, rate, record: the run that the row is shown by.
        dense: record of the row that it is measured against.
        speeds: of decoding; empty where it was not timed.
    """

    row: Row
    rate: float
    record: Record
    dense: Record
    speeds: Record

    def mean(self, figure: Callable[[Any], float]) -> float:
        """Of a figure over the held-out texts."""
        values = [figure(entry) for entry in self.record["eval"].values()]
        return sum(values) / len(values)

    @property
    def active_share(self) -> float:
        return self.mean(lambda entry: entry["active_share"])

    @property
    def over_dense(self) -> float:
        """Bits per byte over the dense row's, less 1; mean over its texts."""
        ours = self.record["eval"]
        ratios = [
            ours[name]["bits_per_byte"] / entry["bits_per_byte"]
            for name, entry in self.dense["eval"].items()
        ]
        return sum(ratios) / len(ratios) - 1

    @property
    def fastest(self) -> float | None:
        """Decode speed of the engine that is faster with this model."""
        found = (self.speeds.get("event"), self.speeds.get("torch"))
        return max((speed for speed in found if speed), default=None)


def write_page(records: Records, page: Path) -> None:
    """The page, and a picture per size beside it, in `pictures`.

    Raises:
        SystemExit: nothing has been measured, or a size lacks its dense row.
    """
    parts, everything = [HEAD], []
    for size in SIZES:
        lines = measured(records, size)
        if not lines:
            continue
        name = f"leaderboard-{size}.png"
        (page.parent / "pictures").mkdir(parents=True, exist_ok=True)
        draw(lines, size, page.parent / "pictures" / name)
        note = records.directory / size / "README.md"
        notes = [note.read_text("utf-8").strip()] if note.exists() else []
        parts += [section(lines), f"![{size}](pictures/{name})", rates(records, lines), *notes]
        everything += [(line, records.read_decode(size)) for line in lines]
    if not everything:
        raise SystemExit("error: no row has figures: run benchmarks/leaderboard.py run first")
    page.write_text("\n\n".join([*parts, legend(everything)]) + "\n", encoding="utf-8")


def measured(records: Records, size: str) -> list[Line]:
    """The rows whose best run has been read on all the texts of the dense row, best first."""
    best = {run.row: run for row in rows(size) if (run := records.best(row)) is not None}
    found = {row: records.read(run) for row, run in best.items()}
    found = {row: record for row, record in found.items() if record.get("eval")}
    dense = next((record for row, record in found.items() if row.name == "dense"), None)
    if found and dense is None:
        raise SystemExit(f"error: {size}: the row dense, which all are compared with, is missing")
    speeds = records.read_decode(size).get("rows", {})
    lines = [
        Line(row, best[row].rate, record, dense, speeds.get(row.name, {}))
        for row, record in found.items()
        if dense is not None and record["eval"].keys() >= dense["eval"].keys()
    ]
    return sorted(lines, key=lambda line: line.over_dense)


def section(lines: Sequence[Line]) -> str:
    """Heading, budget, table, and what the rows are."""
    trains = [line.record["train"] for line in lines]
    texts = list(lines[0].dense["eval"])
    titles = ["model", "parameters", "rate", "over dense"]
    titles += [TITLES.get(name, name) for name in texts]
    titles += ["active share", "firing", "ACs", "MACs", "energy (nJ)", "training", "event", "step"]
    budget = " or ".join(
        f"{tokens / 1e6:.1f} M" for tokens in sorted({t["tokens"] for t in trains})
    )
    optimizer, commit = (
        " or ".join(sorted({t[k] for t in trains})) for k in ("optimizer", "commit")
    )
    data = ", ".join(trains[0]["data"])
    return "\n\n".join(
        [
            f"## {lines[0].row.size}",
            f"{budget} tokens of {data}; {optimizer}; commit {commit}.",
            _table(titles, [cells(line, texts) for line in lines]),
            "\n".join(f"- **{line.row.name}**: {line.row.what}." for line in lines),
        ]
    )


def cells(line: Line, texts: Sequence[str]) -> list[str]:
    """One line of the table; empty where a figure is not there."""
    mean, entries = line.mean, line.record["eval"]
    return [
        line.row.name,
        _millions(line.row.parameters),
        f"{line.rate:g}",
        f"{line.over_dense:+.1%}",
        *(_score(entries[name]) for name in texts),
        f"{line.active_share:.3f}",
        _rate(line),
        _millions(mean(lambda e: e["synops"]["acs"])),
        _millions(mean(lambda e: e["synops"]["macs"])),
        f"{mean(lambda e: e['energy_pj']['spiking']) / 1e3:,.0f}"
        f" ({mean(lambda e: e['energy_pj']['ratio']):.1f}x)",
        _count(line.record["train"].get("tokens_per_second")),
        _count(line.speeds.get("event")),
        _count(line.speeds.get("torch")),
    ]


def rates(records: Records, lines: Sequence[Line]) -> str:
    """All runs of all rows, those that failed too, and which rows may want another rate."""
    shown = [line.row for line in lines]
    others = [row for row in rows(shown[0].size) if row not in shown]
    tried = {row: found for row in [*shown, *others] if (found := records.tried(row))}
    columns = sorted({rate for found in tried.values() for rate in found}, reverse=True)
    body = [[row.name, *_losses(found, columns)] for row, found in tried.items()]
    parts = [RATES, _table(["model", *(f"{rate:g}" for rate in columns)], body)]
    failed = [
        f"{row.name} at {rate:g} ({record['failed'].partition(';')[0]})"
        for row, found in tried.items()
        for rate, record in found.items()
        if "failed" in record
    ]
    ends = [f"{row.name} ({best_rate(tried[row]):g})" for row in shown if at_an_end(tried[row])]
    trained = {row: best_rate(tried.get(row, {})) is not None for row in others}
    told = {
        "Failed": failed,
        "Best at an end of what was tried": ends,
        "Not evaluated on all texts": [row.name for row in others if trained[row]],
        "Not measured": [row.name for row in others if not trained[row]],
    }
    parts += [f"{what}: {', '.join(names)}." for what, names in told.items() if names]
    return "\n\n".join(parts)


def _losses(found: Mapping[float, Record], columns: Sequence[float]) -> list[str]:
    best, texts = best_rate(found), []
    for rate in columns:
        record = found.get(rate, {})
        loss = f"{record['train']['eval_loss']:.3f}" if "train" in record else ""
        texts.append(f"**{loss}**" if rate == best else "failed" if "failed" in record else loss)
    return texts


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """In Markdown, without the columns of which no row has a figure."""
    columns = [(title, *cells) for title, *cells in zip(titles, *lines, strict=True) if any(cells)]
    head, *body = zip(*columns, strict=True)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *body])


def legend(everything: Sequence[tuple[Line, Record]]) -> str:
    """What the columns mean, with what they were measured on.

    Args:
        everything: all lines of the page, each with what is known of its size's decoding.
    """
    first = everything[0][0].record["eval"]
    entry = next(iter(first.values()))
    return LEGEND.format(
        context=entry["protocol"]["context"],
        stride=entry["protocol"]["stride"],
        label=entry["energy_pj"]["label"],
        speeds=_speeds(everything),
        texts="; ".join(_text(name, entry) for name, entry in first.items()),
    )


def _speeds(everything: Sequence[tuple[Line, Record]]) -> str:
    trains = [line.record["train"] for line, _ in everything]
    trained = [train["machine"] for train in trains if train.get("tokens_per_second")]
    decoded = [decode["machine"] for line, decode in everything if line.speeds]
    told = TRAINED.format(machines=_machines(trained)) if trained else ""
    if not decoded:
        return told
    others = [
        f"{line.row.name} {line.speeds['active_share']:.3f}"
        for line, _ in everything
        if line.speeds.get("event")
        and f"{line.speeds['active_share']:.3f}" != f"{line.active_share:.3f}"
    ]
    told += DECODED.format(machines=_machines(decoded, gpu=False))
    said = "\n  *Event* was timed with other runs than the table's, of these active shares: "
    return f"{told}{said}{', '.join(others)}." if others else told


def _rate(line: Line) -> str:
    if any(entry["channel_rate"] is None for entry in line.record["eval"].values()):
        return ""  # no neurons
    return f"{line.mean(lambda entry: entry['channel_rate']):.3f}"


def _score(entry: Record) -> str:
    return f"{entry['bits_per_byte']:.3f} ({_short(math.exp(min(entry['loss'], 50.0)))})"


def _short(perplexity: float) -> str:
    return f"{perplexity:.1f}" if perplexity < 1000 else f"{perplexity:.3g}"


def _text(name: str, entry: Record) -> str:
    protocol = entry["protocol"]
    cap = "" if protocol["max_tokens"] is None else f", at most {protocol['max_tokens']:,}"
    title = TITLES.get(name, name)
    return f"{title} ({protocol['source']}, {entry['tokens']:,} tokens scored{cap})"


def _machines(machines: Sequence[Record], gpu: bool = True) -> str:
    names = {m["gpu"] if gpu and "gpu" in m else m["cpu"] for m in machines}
    torch = {f"torch {m['torch']}" for m in machines}
    return ", ".join([*sorted(names), *sorted(torch)])


def _millions(number: float) -> str:
    return f"{number / 1e6:.2f}M" if number else "0"


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"
