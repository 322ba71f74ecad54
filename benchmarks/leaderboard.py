#!/usr/bin/env python3
"""The leaderboard: every row of leaderboard.yaml on the same data and budget, by the same CLI.

    python benchmarks/leaderboard.py run --size 6m --data train.jsonl.xz \\
        --sets tinystories=a.jsonl,books=b.jsonl.xz --max-tokens 20000000 --work runs/leaderboard
    python benchmarks/leaderboard.py render

`run` is prepare (one tokenizer, tokens in shards), then train and eval row by row (one column of
rows per GPU with --gpus N), then decode; each is a verb of its own, too. What a finished row has is
not done again. Everything is done by verbs of `spikeloom`; a row's figures are kept in
research/runs/leaderboard/SIZE/ROW.json, from which render makes docs/leaderboard.md; a README.md
beside them goes onto the page.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
ROWS = Path(__file__).with_suffix(".yaml")
SIZES = ("6m", "15m")
CONTEXT, STRIDE = 512, 256  # of every evaluation, whatever a row was trained on
KEPT = (
    "tokens", "bytes", "loss", "perplexity", "bits_per_byte", "active_share", "channel_rate",
    "mean_count", "synops", "energy_pj", "protocol",
)  # fmt: skip
"""What is kept of `spikeloom eval`: all but the tables by layer."""


@dataclass(frozen=True)
class Row:
    """A row at one size: what `spikeloom train` is told.

    Attributes:
        name, what: of the row; `what` is one line for the page.
        size: one of `SIZES`.
        preset, twin: as of `spikeloom train`.
        settings: its `--set` options.
    """

    name: str
    what: str
    size: str
    preset: str
    twin: str | None
    settings: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`spiking`, `quantised` or `dense`."""
        from spikeloom.config import load_config
        from spikeloom.evaluation.compare import kind
        from spikeloom.training.twin import twin_of

        return kind(twin_of(load_config(self.preset, self.settings), self.twin).model)

    def command(self, data: Path, out: Path, max_tokens: int, extra: Sequence[str]) -> list[str]:
        """The arguments of `spikeloom`; `extra` settings come last and win."""
        twin = [] if self.twin is None else ["--twin", self.twin]
        settings = [part for s in (*self.settings, *extra) for part in ("--set", s)]
        budget = ["--max-tokens", str(max_tokens)]
        return ["train", self.preset, *twin, "--data", str(data), "--out", str(out), *budget,
                *settings]  # fmt: skip


def rows(size: str, only: Sequence[str] = (), file: Path = ROWS) -> list[Row]:
    """The rows of leaderboard.yaml at one size, in order, or only those named.

    Raises:
        SystemExit: there is no row of such a name.
    """
    tree = yaml.safe_load(file.read_text("utf-8"))
    if unknown := set(only) - set(tree["rows"]):
        raise SystemExit(f"error: --only {min(unknown)}: the rows are {', '.join(tree['rows'])}")
    made = []
    for name, row in tree["rows"].items():
        told = {**tree["shared"], **row[size].get("set", {})}
        settings = tuple(f"{key}={json.dumps(value)}" for key, value in told.items())
        made.append(Row(name, row["what"], size, row[size]["preset"], row.get("twin"), settings))
    return [row for row in made if not only or row.name in only]


class Records:
    """The JSON file of every row, `DIR/SIZE/ROW.json`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, row: Row) -> dict[str, Any]:
        """What is known of a row; empty if nothing is."""
        path = self._path(row)
        return json.loads(path.read_text("utf-8")) if path.exists() else {}

    def write(self, row: Row, record: dict[str, Any]) -> None:
        path = self._path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _path(self, row: Row) -> Path:
        return self.directory / row.size / f"{row.name}.json"


class Leaderboard:
    """The verbs, on one working directory.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work
        self.records = Records(options.results)
        os.environ.setdefault("SPIKELOOM_CACHE", str(self.work / "cache"))

    @property
    def chosen(self) -> list[Row]:
        """The rows of this call; of those, every n-th with --jobs i/n."""
        sizes = SIZES if self.options.size is None else (self.options.size,)
        found = [row for size in sizes for row in rows(size, self.options.only)]
        first, step = map(int, self.options.jobs.split("/"))
        return found[first::step]

    def checkpoint(self, row: Row) -> Path:
        return self.work / row.size / row.name

    def finished(self, row: Row) -> bool:
        return (self.checkpoint(row) / "training.json").exists()

    def prepare(self) -> None:
        """One tokenizer and one stream of tokens for all rows; never a second one beside it."""
        folder, asked = self.work / "data", self._needed("data")
        if not (folder / "prepared.json").exists():
            where = ["--preset", "spikeloom-6m", "--out", str(folder)]
            _spikeloom(["data", "prepare", asked, *where])
        elif _names(asked) != self.data:
            told = ",".join(self.data)
            raise SystemExit(f"error: --data: {folder} was made of {told}; choose another --work")

    @property
    def data(self) -> list[str]:
        """Names of the files that the rows are trained on."""
        prepared = json.loads((self.work / "data" / "prepared.json").read_text("utf-8"))
        return _names(prepared["request"]["source"])

    def train(self) -> None:
        for row in self.chosen:
            self.train_row(row)

    def train_row(self, row: Row) -> None:
        """Train unless it is done; a row that fails is noted, and the next one goes on."""
        out = self.checkpoint(row)
        command = row.command(
            self.work / "data", out, self._needed("max_tokens"), self.options.settings
        )
        if self.finished(row) and "train" in self.records.read(row):
            return
        if not self.finished(row):
            print(f"== {row.size} {row.name}", flush=True)
            resume = ["--resume"] if (out / "run.json").exists() else []
            ended = subprocess.run([sys.executable, "-m", "spikeloom.cli", *command, *resume])
            if ended.returncode:
                self.records.write(
                    row, {"failed": f"spikeloom train ended with {ended.returncode}"}
                )
                return
        self.records.write(row, {"train": {**trained(out, command), "data": self.data}})

    def eval(self) -> None:
        for row in self.chosen:
            self.eval_row(row)

    def eval_row(self, row: Row) -> None:
        """`spikeloom eval` on every set that this row has no figures of."""
        if not self.finished(row):
            return
        for name, source in self.sets.items():
            record = self.records.read(row)
            if name in record.get("eval", {}):
                continue
            cap = self.options.eval_tokens
            limit = [] if cap is None else ["--max-tokens", str(cap)]
            report = _report(
                ["eval", str(self.checkpoint(row)), "--data", source, "--context", str(CONTEXT),
                 "--stride", str(STRIDE), "--batch-size", "32", *limit], self.work
            )  # fmt: skip
            report["protocol"] |= {"source": Path(source).name, "max_tokens": cap}
            record.setdefault("eval", {})[name] = {key: report[key] for key in KEPT}
            self.records.write(row, record)

    @property
    def sets(self) -> dict[str, str]:
        """Held-out texts by name, in the order of --sets."""
        pairs = [pair.partition("=") for pair in self._needed("sets").split(",")]
        return {name: source for name, _, source in pairs}

    def decode(self) -> None:
        """`spikeloom compare` of all finished rows of a size: decode speed, in turns."""
        text = next(iter(self.sets.values()))
        for size in sorted({row.size for row in self.chosen}):
            ready = [row for row in self.chosen if row.size == size and self.finished(row)]
            if all("decode" in self.records.read(row) for row in ready):
                continue
            where = [str(self.checkpoint(row)) for row in ready]
            out = ["--max-tokens", "1024", "--out", str(self.work / size / "decode")]
            compared = _report(["compare", *where, "--data", text, *out], self.work)["rows"]
            for row, found in zip(ready, compared, strict=True):
                record = self.records.read(row)
                record["decode"] = {**found["tokens_per_second"], "machine": _machine()}
                record["parameters"] = found["parameters"]
                self.records.write(row, record)

    def column(self) -> None:
        """Train and evaluate row by row, as long as there is time for one like the slowest."""
        began, slowest = time.monotonic(), 0.0
        for row in self.chosen:
            start = time.monotonic()
            if start - began + slowest > self.options.limit:
                print(f"== {row.size} {row.name}: no time left", flush=True)
                continue
            _tried(self.train_row, row)
            _tried(self.eval_row, row)
            slowest = max(slowest, time.monotonic() - start)

    def run(self) -> None:
        """Everything; with --archive the results also as one .tar.gz."""
        began = time.monotonic()
        self.prepare()
        left = self.options.limit - (time.monotonic() - began)
        columns = max(self.options.gpus, 1)
        started = [self._start_column(i, columns, left) for i in range(columns)]
        for process in started:
            process.wait()
        _tried(self.decode)
        if self.options.archive is not None:
            with tarfile.open(self.options.archive, "w:gz") as archive:
                archive.add(self.records.directory, "leaderboard")

    def _start_column(self, i: int, columns: int, seconds: float) -> subprocess.Popen[bytes]:
        o = self.options
        given = ["--work", o.work, "--results", o.results, "--sets", o.sets, "--limit", seconds]
        given += ["--data", o.data, "--max-tokens", o.max_tokens, "--jobs", f"{i}/{columns}"]
        given += [] if o.eval_tokens is None else ["--eval-tokens", o.eval_tokens]
        given += [] if o.size is None else ["--size", o.size]
        given += [part for s in o.settings for part in ("--set", s)]
        given += ["--only", *o.only] if o.only else []
        gpu = {"CUDA_VISIBLE_DEVICES": str(i)} if o.gpus else {}
        command = [sys.executable, __file__, "column", *map(str, given)]
        return subprocess.Popen(command, env={**os.environ, **gpu})

    def render(self) -> None:
        """docs/leaderboard.md and its pictures."""
        from leaderboard_page import write_page

        found = {size: [(r, self.records.read(r)) for r in rows(size)] for size in SIZES}
        notes = {file.parent.name: file for file in self.records.directory.glob("*/README.md")}
        told = {size: file.read_text("utf-8").strip() for size, file in notes.items()}
        write_page(found, told, self.options.page)

    def _needed(self, option: str) -> Any:
        value = getattr(self.options, option)
        if value is None:
            raise SystemExit(f"error: --{option.replace('_', '-')} is needed")
        return value


def _names(source: str) -> list[str]:
    return [Path(part).name for part in source.split(",")]


def trained(out: Path, command: Sequence[str]) -> dict[str, Any]:
    """What the directory of a finished run says of its training."""
    metrics = json.loads((out / "training.json").read_text("utf-8"))
    history = json.loads((out / "trainer_state.json").read_text("utf-8"))["log_history"]
    speed = training_speed(history, metrics["tokens"] / metrics["steps"])
    recipe = json.loads((out / "run.json").read_text("utf-8"))["training"]
    return {
        **metrics,
        "tokens_per_second": speed,
        "command": f"spikeloom {shlex.join(command)}",
        **{key: recipe[key] for key in ("optimizer", "learning_rate")},  # presets move
        "machine": _machine(),
    }


def training_speed(history: Sequence[dict[str, float]], tokens_per_step: float) -> float | None:
    """Tokens per second over the second half of a run: compilation and start-up left out."""
    logs = [entry for entry in history if "loss" in entry]
    if len(logs) < 2:
        return None
    first, last = logs[len(logs) // 2 - 1], logs[-1]
    return (last["step"] - first["step"]) * tokens_per_step / (last["seconds"] - first["seconds"])


def _tried(work: Callable[..., None], *arguments: Row) -> None:
    """What fails is shown, and costs no other row its figures."""
    try:
        work(*arguments)
    except Exception:
        traceback.print_exc()


def _report(arguments: list[str], work: Path) -> Any:
    """What a verb of spikeloom writes with --json; in this process, which has torch at hand."""
    file = work / f"report-{os.getpid()}.json"
    _spikeloom([*arguments, "--json", str(file)])
    report = json.loads(file.read_text("utf-8"))
    file.unlink()
    return report


def _spikeloom(arguments: list[str]) -> None:
    from spikeloom.cli import app

    print(f"spikeloom {shlex.join(arguments)}", flush=True)
    app(arguments, standalone_mode=False)


def _machine() -> dict[str, Any]:
    from spikeloom.bench.rows import machine

    return {key: value for key, value in machine().items() if key != "command"}


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = ("run", "prepare", "train", "eval", "decode", "render", "column")
    add: Callable[..., Any] = parser.add_argument
    add("verb", choices=verbs, help="column: train and eval row by row; what run starts per GPU")
    add("--size", choices=SIZES, help="both by default")
    add("--only", nargs="+", default=[], metavar="ROW", help="these rows")
    add("--jobs", default="0/1", metavar="I/N", help="every N-th row, from the I-th")
    add("--data", metavar="SOURCE", help="training text, as of `spikeloom data prepare`")
    add("--sets", metavar="NAME=FILE,...", help="held-out texts; decoding reads the first")
    add("--max-tokens", type=int, metavar="N", help="training tokens of every row")
    add("--eval-tokens", type=int, metavar="N", help="score at most so many of each held-out text")
    add("--set", action="append", default=[], dest="settings", metavar="a.b=c", help="every row")
    add("--gpus", type=int, default=0, metavar="N", help="run: one column of rows per GPU")
    add("--limit", type=float, default=1e9, metavar="SECONDS", help="start no row that ends later")
    add("--work", type=Path, default=ROOT / "runs" / "leaderboard", metavar="DIR")
    add("--results", type=Path, default=ROOT / "research/runs/leaderboard", metavar="DIR")
    add("--archive", type=Path, metavar="FILE.tar.gz", help="run: all results in one file")
    add("--page", type=Path, default=ROOT / "docs" / "leaderboard.md", help="render: what to write")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    options = _arguments(given)
    getattr(Leaderboard(options), options.verb)()


if __name__ == "__main__":
    main()
