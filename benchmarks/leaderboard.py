#!/usr/bin/env python3
"""The leaderboard: every row of leaderboard.yaml on the same data and budget, by the same CLI.

    python benchmarks/leaderboard.py run --size 6m --data train.jsonl.xz \\
        --sets tinystories=a.jsonl,books=b.jsonl.xz --max-tokens 20000000 --work runs/leaderboard
    python benchmarks/leaderboard.py render

`run` is prepare (one tokenizer, tokens in shards), then train and eval of every row at every one
of its learning rates (one column of runs per GPU with --gpus N), then decode of every row's best
run; each is a verb of its own, too. What a finished run has is not done again. Training and
evaluation are verbs of `spikeloom`; a run's figures are kept in
research/runs/leaderboard/SIZE/RATE/ROW.json, from which render makes docs/leaderboard.md;
SIZE/README.md beside them goes onto the page.
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
from functools import cached_property
from pathlib import Path
from typing import Any

from leaderboard_records import Records, mean_share, trained
from leaderboard_rows import SIZES, Run, rows, runs, shell

ROOT = Path(__file__).parent.parent
CONTEXT, STRIDE = 512, 256  # of every evaluation, whatever a row was trained on
KEPT = (
    "tokens", "bytes", "loss", "perplexity", "bits_per_byte", "active_share", "channel_rate",
    "mean_count", "synops", "energy_pj", "protocol",
)  # fmt: skip
"""What is kept of `spikeloom eval`: all but the tables by layer."""


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
    def sizes(self) -> Sequence[str]:
        return SIZES if self.options.size is None else (self.options.size,)

    @property
    def chosen(self) -> list[Run]:
        """The runs of this call; of those, every n-th with --jobs i/n."""
        wanted = [row for size in self.sizes for row in rows(size, self.options.only)]
        first, step = map(int, self.options.jobs.split("/"))
        return runs(wanted, self.options.rates)[first::step]

    def checkpoint(self, run: Run) -> Path:
        return self.work / run.folder / run.row.name

    def finished(self, run: Run) -> bool:
        return (self.checkpoint(run) / "training.json").exists()

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

    @cached_property
    def commit(self) -> str:
        """Of the code that runs, with `-dirty` where it was changed since."""
        if self.options.commit is not None:
            return str(self.options.commit)
        ask = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
        told = subprocess.run(ask, capture_output=True, text=True)
        if told.returncode:
            raise SystemExit("error: --commit is needed: this folder is no git checkout")
        return told.stdout.strip()

    def train(self) -> None:
        for run in self.chosen:
            self.train_run(run)

    def train_run(self, run: Run) -> None:
        """Train unless it is done; a run that fails is noted, and the next one goes on."""
        out, commit = self.checkpoint(run), self.commit
        given = (self._needed("max_tokens"), self.options.settings)
        command = run.command(self.work / "data", out, *given)
        if not self.finished(run):
            print(f"== {run}", flush=True)
            resume = ["--resume"] if (out / "run.json").exists() else []
            if failed := _failure([*command, *resume]):
                told = {"failed": failed, "command": shell(command), "commit": commit}
                self.records.write(run, told)
                return
        elif "train" in self.records.read(run):
            return
        record = trained(out, command)
        if self.options.shared_gpu:
            record["tokens_per_second"] = None
        where = {"machine": _machine(), "commit": commit, "data": self.data}
        self.records.write(run, {"train": {**record, **where}})

    def eval(self) -> None:
        for run in self.chosen:
            self.eval_run(run)

    def eval_run(self, run: Run) -> None:
        """`spikeloom eval` on every set that this run has no figures of."""
        if not self.finished(run):
            return
        for name, source in self.sets.items():
            record = self.records.read(run)
            if name in record.get("eval", {}):
                continue
            cap = self.options.eval_tokens
            limit = [] if cap is None else ["--max-tokens", str(cap)]
            report = _report(
                ["eval", str(self.checkpoint(run)), "--data", source, "--context", str(CONTEXT),
                 "--stride", str(STRIDE), "--batch-size", "32", *limit], self.work
            )  # fmt: skip
            report["protocol"] |= {"source": Path(source).name, "max_tokens": cap}
            record.setdefault("eval", {})[name] = {key: report[key] for key in KEPT}
            self.records.write(run, record)

    @property
    def sets(self) -> dict[str, str]:
        """Held-out texts by name, in the order of --sets."""
        pairs = [pair.partition("=") for pair in self._needed("sets").split(",")]
        return {name: source for name, _, source in pairs}

    def decode(self) -> None:
        """Decode speed of the rows of a size that have figures, in turns (`leaderboard_decode`)."""
        from leaderboard_decode import speeds

        for size in self.sizes:  # all rows of one: they are timed in turns
            best = {row: run for row in rows(size) if (run := self.records.best(row)) is not None}
            shares = {row: mean_share(self.records.read(run)) for row, run in best.items()}
            wanted = {row: share for row, share in shares.items() if share is not None}
            told: dict[str, dict[str, float | None]] = {
                row.name: {"rate": best[row].rate, "active_share": s} for row, s in wanted.items()
            }
            known = self.records.read_decode(size).get("rows", {})
            if all(known.get(name, {}).items() >= entry.items() for name, entry in told.items()):
                continue
            for name, by_engine in speeds(wanted, self.options.settings).items():
                told[name] |= by_engine
            record = {"machine": _machine(), "commit": self.commit, "rows": told}
            self.records.write_decode(size, record)

    def column(self) -> None:
        """Train and evaluate run by run, as long as there is time for one like the slowest."""
        began, slowest = time.monotonic(), 0.0
        for run in self.chosen:
            start = time.monotonic()
            if start - began + slowest > self.options.limit:
                print(f"== {run}: no time left", flush=True)
                continue
            _tried(self.train_run, run)
            _tried(self.eval_run, run)
            slowest = max(slowest, time.monotonic() - start)

    def run(self) -> None:
        """Everything; with --archive the results also as one .tar.gz."""
        began, gpus = time.monotonic(), _gpus(self.options.gpus)
        self.prepare()
        left = self.options.limit - (time.monotonic() - began)
        columns = max(len(gpus), 1)
        started = [self._start_column(i, columns, left, gpus) for i in range(columns)]
        for process in started:
            process.wait()
        _tried(self.decode)
        if self.options.archive is not None:
            with tarfile.open(self.options.archive, "w:gz") as archive:
                archive.add(self.records.directory, "leaderboard")

    def _start_column(
        self, i: int, columns: int, seconds: float, gpus: Sequence[str]
    ) -> subprocess.Popen[bytes]:
        o = self.options
        given = ["--work", o.work, "--results", o.results, "--sets", o.sets, "--limit", seconds]
        given += ["--data", o.data, "--max-tokens", o.max_tokens, "--jobs", f"{i}/{columns}"]
        given += ["--commit", self.commit, *(["--shared-gpu"] if o.shared_gpu else [])]
        given += [] if o.eval_tokens is None else ["--eval-tokens", o.eval_tokens]
        given += [] if o.size is None else ["--size", o.size]
        given += [part for s in o.settings for part in ("--set", s)]
        given += ["--only", *o.only] if o.only else []
        given += ["--rates", *o.rates] if o.rates else []
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[i]} if gpus else {}
        command = [sys.executable, __file__, "column", *map(str, given)]
        return subprocess.Popen(command, env={**os.environ, **gpu})

    def render(self) -> None:
        """docs/leaderboard.md and its pictures."""
        from leaderboard_page import write_page

        write_page(self.records, self.options.page)

    def _needed(self, option: str) -> Any:
        value = getattr(self.options, option)
        if value is None:
            raise SystemExit(f"error: --{option.replace('_', '-')} is needed")
        return value


def _gpus(count: int) -> list[str]:
    """The first GPUs of those that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(i) for i in range(count)]
    if count > len(names):
        raise SystemExit(f"error: --gpus {count}: CUDA_VISIBLE_DEVICES names {given} and no more")
    return names[:count]


def _names(source: str) -> list[str]:
    return [Path(part).name for part in source.split(",")]


def _tried(work: Callable[..., None], *arguments: Run) -> None:
    """What fails is shown, and costs no other run its figures."""
    try:
        work(*arguments)
    except Exception:
        traceback.print_exc()


def _failure(arguments: Sequence[str]) -> str | None:
    """Run a verb in a process of its own; why it failed, in its own words if it left any."""
    command = [sys.executable, "-m", "spikeloom.cli", *arguments]
    error = None
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if line.startswith("error: "):
                error = line.removeprefix("error: ").strip()
    ended = process.returncode
    return (error or f"spikeloom {arguments[0]} ended with {ended}") if ended else None


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
    add("verb", choices=verbs, help="column: train and eval run by run; what run starts per GPU")
    add("--size", choices=SIZES, help="both by default")
    add("--only", nargs="+", default=[], metavar="ROW", help="these rows; decode times all")
    add("--rates", nargs="+", type=float, default=[], metavar="R", help="not the rows' own ones")
    add("--jobs", default="0/1", metavar="I/N", help="every N-th run, from the I-th")
    add("--data", metavar="SOURCE", help="training text, as of `spikeloom data prepare`")
    add("--sets", metavar="NAME=FILE,...", help="held-out texts")
    add("--max-tokens", type=int, metavar="N", help="training tokens of every run")
    add("--eval-tokens", type=int, metavar="N", help="score at most so many of each held-out text")
    add("--set", action="append", default=[], dest="settings", metavar="a.b=c", help="every row")
    add("--gpus", type=int, default=0, metavar="N", help="run: one column of runs per GPU")
    add("--shared-gpu", action="store_true", help="other work beside: keep no training speed")
    add("--limit", type=float, default=1e9, metavar="SECONDS", help="start no run that ends later")
    add("--commit", metavar="NAME", help="of this code; by default what git says")
    add("--work", type=Path, default=ROOT / "runs" / "leaderboard", metavar="DIR")
    add("--results", type=Path, default=ROOT / "research/runs/leaderboard", metavar="DIR")
    add("--archive", type=Path, metavar="FILE.tar.gz", help="run: all results in one file")
    add("--page", type=Path, default=ROOT / "docs" / "leaderboard.md", help="render: what to write")
    options = parser.parse_args(given)
    if any(setting.startswith("training.learning_rate=") for setting in options.settings):
        parser.error("--set training.learning_rate: results are kept by rate; use --rates")
    return options


def main(given: Sequence[str] | None = None) -> None:
    options = _arguments(given)
    getattr(Leaderboard(options), options.verb)()


if __name__ == "__main__":
    main()
