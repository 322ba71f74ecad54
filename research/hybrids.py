"""The hybrids and their pure forms on equal tokens: one experiment, one JSON, one page of tables.

    spikeloom data prepare SOURCE --preset minimal-transformer --out WORK/data
    python research/hybrids.py run WORK --text NAME=SOURCE [--text ...] [--shard I/N] [--set a.b=c]
    python research/hybrids.py report WORK --out DIR

`run` trains what `hybrids.yaml` lists (of N shards the I-th, from 0: one process for each GPU) on
WORK/data, and measures every model on every text at the context that it was trained on, twice and
four times that. `report` writes DIR/hybrids.json and DIR/hybrids.md from what is there.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

RUNS = Path(__file__).with_suffix(".yaml")
CONTROL = "control"

Row = dict[str, Any]


def run(
    work: Path, names: Sequence[str], texts: dict[str, str], settings: Sequence[str], most: int
) -> None:
    """Train and measure; a run that fails is told of and left out."""
    import torch

    listed = yaml.safe_load(RUNS.read_text())
    (work / "rows").mkdir(parents=True, exist_ok=True)
    for name in names:
        print(f"== {name}", flush=True)
        try:
            torch.compiler.reset()
            rows = one(work, name, listed[name], texts, settings, most)
        except Exception:
            traceback.print_exc(limit=-6)
            continue
        (work / "rows" / f"{name}.json").write_text(json.dumps(rows))


def one(
    work: Path, name: str, listed: Row, texts: dict[str, str], settings: Sequence[str], most: int
) -> Row:
    """One run: how it was trained, and its figures by text and context."""
    import torch

    from spikeloom.config import load_config
    from spikeloom.evaluation.compare import compare
    from spikeloom.training.train import train

    changed = listed.get("set", [])
    config = load_config(listed["preset"], [*changed, *settings])
    result = train(config, str(work / "data"), work / "runs" / name, title=name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained_on = config.model.max_position_embeddings
    measured = []
    for text, source in texts.items():
        for context in (trained_on, 2 * trained_on, 4 * trained_on):
            (row,) = compare(
                [result.directory],
                source,
                context=context,
                max_tokens=most,
                device=device,
                speed=False,
            )
            measured.append({"text": text, "context": context, **figures(row)})
            print(f"{name} on {text}, {context}: {row['bits_per_byte']:.3f} bits/byte", flush=True)
    trained = {"steps": result.metrics["steps"], "tokens": result.metrics["tokens"]}
    trained |= {"seconds": result.metrics["seconds"], "held_out": result.metrics["eval_loss"]}
    return {"preset": listed["preset"], "set": changed, "trained": trained, "rows": measured}


def figures(row: Row) -> Row:
    """What the tables need of a row of `spikeloom compare`, and firing by role."""
    kept = "kind parameters tokens loss perplexity bits_per_byte active_share channel_rate synops"
    rates: dict[str, list[float]] = {}
    for neuron in row["per_layer"]:
        rates.setdefault(neuron["role"], []).append(neuron["channel_rate"])
    return {**{key: row[key] for key in kept.split()}, "rates_by_layer": rates}


def report(work: Path, out: Path) -> None:
    """One JSON and one page of tables."""
    listed = yaml.safe_load(RUNS.read_text())
    files = {name: work / "rows" / f"{name}.json" for name in listed}
    found = {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "hybrids.json").write_text(json.dumps(found, indent=1))
    page = "\n\n".join([training_table(found), *text_tables(found)])
    missing = [name for name in listed if name not in found]
    page += f"\n\nMissing: {', '.join(missing)}.\n" if missing else "\n"
    (out / "hybrids.md").write_text(page)
    print(page)


def training_table(found: dict[str, Row]) -> str:
    lines = []
    for name, entry in found.items():
        trained, size = entry["trained"], entry["rows"][0]["parameters"]
        cells = [name, f"{size / 1e6:.2f} M", f"{trained['tokens'] / 1e6:.2f} M"]
        cells += [f"{trained['seconds']:.0f} s", f"{trained['held_out']:.3f}"]
        lines.append(cells)
    return table(["run", "parameters", "tokens", "seconds", "held-out loss"], lines)


def text_tables(found: dict[str, Row]) -> list[str]:
    """For every text: bits per byte at each context, the gap to the control, firing and cost."""
    first = next(iter(found.values()))["rows"]
    texts = list(dict.fromkeys(row["text"] for row in first))
    contexts = sorted({row["context"] for row in first})
    titles = ["run", *(f"bits/byte at {c}" for c in contexts), "gap", "active share", "kept"]
    titles += ["mixer MACs/token", "of reading every key", "rate at MLP inputs"]
    tables = []
    for text in texts:
        own = {name: rows_of(entry, text) for name, entry in found.items()}
        control = own[CONTROL][0]["perplexity"] if CONTROL in own else None
        lines = [[name, *cells(rows, control)] for name, rows in own.items()]
        tokens = next(row["tokens"] for row in first if row["text"] == text)
        tables.append(f"**{text}**, {tokens} tokens\n\n{table(titles, lines)}")
    return tables


def rows_of(entry: Row, text: str) -> list[Row]:
    """By rising context."""
    return sorted((r for r in entry["rows"] if r["text"] == text), key=lambda r: r["context"])


def cells(rows: list[Row], control: float | None) -> list[str]:
    """Gap (of perplexity), firing and cost are those of the context that was trained on."""
    row = rows[0]
    gap = "" if control is None else f"{100 * (row['perplexity'] / control - 1):+.1f}%"
    rates, cost = row["rates_by_layer"], row["synops"]
    kept = ", ".join(f"{rate:.2f}" for rate in rates.get("salience", []))
    attended = cost["mixer_macs"] / cost["dense_mixer_macs"]
    inputs = rates.get("mlp_input", [])
    return [
        *(f"{r['bits_per_byte']:.3f}" for r in rows),
        gap,
        f"{row['active_share']:.3f}",
        kept,
        f"{cost['mixer_macs'] / 1e3:.0f} k",
        f"{attended:.2f}",
        f"{sum(inputs) / len(inputs):.3f}" if inputs else "",
    ]


def table(titles: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, rule, *lines])


def shard(given: str, names: list[str]) -> list[str]:
    part, _, parts = given.partition("/")
    return names[int(part) :: int(parts)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run")
    verb.add_argument("work", type=Path)
    verb.add_argument("--text", action="append", required=True, metavar="NAME=SOURCE")
    verb.add_argument("--shard", default="0/1", metavar="I/N")
    verb.add_argument("--only", nargs="*", metavar="RUN")
    verb.add_argument("--most", type=int, default=60_000, help="tokens measured of each text")
    verb.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="settings")
    verb = verbs.add_parser("report")
    verb.add_argument("work", type=Path)
    verb.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.verb == "run":
        names = given.only or shard(given.shard, list(yaml.safe_load(RUNS.read_text())))
        texts = dict(text.split("=", 1) for text in given.text)
        run(given.work, names, texts, given.settings, given.most)
    else:
        report(given.work, given.out)


if __name__ == "__main__":
    main()
