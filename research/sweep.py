"""Many runs of `spikeloom train`, side by side on the GPUs of one machine, each then evaluated.

    python research/sweep.py run research/sweeps/PLAN.yaml --data PREPARED --eval-data A,B \\
        --texts stories=A,books=B --work WORK --out OUT --gpus 4 --per-gpu 5
    python research/sweep.py table OUT

A plan says what all runs share and what each adds (`Run`); a run that starts on another, or learns
from it, waits for it. A run is one JSON in OUT, with its command, its commit, what training said,
and what `spikeloom eval` says of each text; runs that have theirs are not run again. On a machine
without a GPU, runs go one by one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import yaml

CLI = [sys.executable, "-m", "spikeloom.cli"]
WEIGHTS = "model.safetensors"
KEPT = ("tokens", "loss", "perplexity", "bits_per_byte", "active_share", "channel_rate", "synops")


@dataclass(frozen=True)
class Run:
    """What `spikeloom train` is told; in a plan, `runs: {NAME: {...}}` beside what all share.

    Attributes:
        preset, max_tokens, settings: as of `spikeloom train`; a run's settings follow the plan's.
        twin: `dense` or `quantised`.
        start: the run whose weights it starts on.
        teacher: the run that it learns from.
        seed: of `training.seed`.
    """

    name: str
    preset: str
    max_tokens: int
    settings: tuple[str, ...] = ()
    twin: str | None = None
    start: str | None = None
    teacher: str | None = None
    seed: int = 0

    def command(
        self, data: str, eval_data: str, work: Path, extra: list[str], tokens: int | None
    ) -> list[str]:
        settings = [*self.settings, f"training.seed={self.seed}", *extra]
        if self.teacher:
            settings.append(f"training.teacher={work / self.teacher}")
        options = ["--twin", self.twin] if self.twin else []
        options += ["--from", str(work / self.start)] if self.start else []
        options += ["--data", data, "--eval-data", eval_data, "--out", str(work / self.name)]
        options += ["--max-tokens", str(tokens or self.max_tokens)]
        options += [part for setting in settings for part in ("--set", setting)]
        return [*CLI, "train", self.preset, *options]


def read_plan(file: Path) -> list[Run]:
    """The runs of a plan, in its order.

    Raises:
        SystemExit: a run waits for one that does not stand before it.
    """
    plan = yaml.safe_load(file.read_text("utf-8"))
    shared = {key: plan[key] for key in ("preset", "max_tokens") if key in plan}
    runs: list[Run] = []
    for name, own in plan["runs"].items():
        settings = (*plan.get("settings", ()), *(own or {}).get("settings", ()))
        run = Run(name, **{**shared, **(own or {}), "settings": tuple(settings)})
        for needed in {run.start, run.teacher} - {None, *(r.name for r in runs)}:
            raise SystemExit(f"{file}: {name} needs {needed}, which does not stand before it")
        runs.append(run)
    return runs


class Sweep:
    """Runs under way: workers take them in order, each worker on its GPU."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.end = time.monotonic() + options.limit
        self.runs = read_plan(options.plan)
        wanted = options.only or [run.name for run in self.runs]
        self.queue: SimpleQueue[Run] = SimpleQueue()
        if unknown := set(wanted) - {run.name for run in self.runs}:
            raise SystemExit(f"{options.plan} has no run {', '.join(sorted(unknown))}")
        self.over = {run.name: threading.Event() for run in self.runs}
        self.failed: list[str] = []
        for run in self.runs:
            if run.name in wanted and not self._json(run).exists():
                self.queue.put(run)
            else:
                self.over[run.name].set()

    def go(self) -> None:
        gpus = [*range(self.options.gpus)] * self.options.per_gpu or [None]
        threads = [threading.Thread(target=self._work, args=(gpu,)) for gpu in gpus]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, gpu: int | None) -> None:
        while True:
            try:
                run = self.queue.get_nowait()
            except Empty:
                return
            try:
                why = self._waited_in_vain(run) or self._run(run, gpu)
            except Exception as error:  # the other runs go on
                why = repr(error)
            if why:
                self.failed.append(run.name)
                print(f"{run.name}: {why}", flush=True)
            self.over[run.name].set()

    def _waited_in_vain(self, run: Run) -> str | None:
        for needed in {run.start, run.teacher} - {None}:
            self.over[str(needed)].wait()
            if needed in self.failed or not (self.options.work / str(needed) / WEIGHTS).exists():
                return f"needs {needed}, whose weights are not in {self.options.work}"
        return None

    def _run(self, run: Run, gpu: int | None) -> str | None:
        """Train and evaluate; what went wrong, if anything did."""
        options, began = self.options, time.monotonic()
        report = options.work / f"{run.name}.train.json"
        command = run.command(
            options.data, options.eval_data, options.work, options.set, options.max_tokens
        )
        log = options.work / f"{run.name}.log"
        done = report.exists()  # trained before, and cut while it was evaluated
        if not done and not self._call([*command, "--json", str(report)], log, gpu):
            return f"failed or cut, see {log}"
        texts = {name: self._evaluated(run, file, log, gpu) for name, file in options.texts}
        if None in texts.values():
            return f"trained, not evaluated, see {log}"
        found = {
            "name": run.name,
            "command": shlex.join(["spikeloom", *command[3:]]),
            "commit": options.commit,
            "train": json.loads(report.read_text("utf-8")),
            "texts": texts,
        }
        self._json(run).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        loss, share = (found["train"][f"eval_{key}"] for key in ("loss", "active_share"))
        seconds = time.monotonic() - began
        print(f"{run.name}: {loss:.3f} at {share:.3f}, {seconds:.0f} s", flush=True)
        return None

    def _evaluated(self, run: Run, file: str, log: Path, gpu: int | None) -> dict[str, Any] | None:
        out = self.options.work / f"{run.name}.eval.json"
        command = [*CLI, "eval", str(self.options.work / run.name), "--data", file]
        command += ["--max-tokens", str(self.options.eval_tokens), "--batch-size", "32"]
        if not self._call([*command, "--json", str(out)], log, gpu):
            return None
        report = json.loads(out.read_text("utf-8"))
        return {key: report[key] for key in KEPT if key in report}

    def _call(self, command: list[str], log: Path, gpu: int | None) -> bool:
        """Whether it ended well, in time."""
        left = self.end - time.monotonic()
        if left < 10:
            return False
        where = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": visible(gpu)}
        with log.open("ab") as file:
            try:
                done = subprocess.run(
                    command, env={**os.environ, **where}, stdout=file, stderr=file, timeout=left
                )
            except subprocess.TimeoutExpired:
                return False
        return done.returncode == 0

    def _json(self, run: Run) -> Path:
        return Path(self.options.out) / f"{run.name}.json"


def visible(gpu: int) -> str:
    """The name of the n-th GPU that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[gpu] if given else str(gpu)


def table(folder: Path, text: str | None = None) -> None:
    """Every run of a folder beside its dense twin (`twin_name`), by its held-out loss, or by that
    of one of the texts that it was evaluated on."""
    reports = {f: json.loads(f.read_text("utf-8")) for f in sorted(folder.glob("*.json"))}
    rows = {  # runs from before there was a sweep.py have training's report alone
        f.stem.removesuffix(".train"): report.get("train", report)
        for f, report in reports.items()
        if "eval_loss" in report.get("train", report)
    }
    if not rows:
        raise SystemExit(f"{folder}: no runs")
    if text is not None:
        rows = {name: _on_text(reports[folder / f"{name}.json"], text) for name in rows}
    print("| run | tokens | held-out loss | perplexity | gap | active share |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, train in rows.items():
        loss, twin = train["eval_loss"], rows.get(twin_name(name, rows) or "")
        gap = ""
        if twin is not None and twin is not train:
            gap = f"{100 * (math.exp(loss - twin['eval_loss']) - 1):+.1f}%"
        cells = (name, f"{train['tokens'] / 1e6:.0f} M", f"{loss:.3f}", f"{math.exp(loss):.2f}")
        print(f"| {' | '.join(cells)} | {gap} | {train['eval_active_share']:.3f} |")


def _on_text(report: dict[str, Any], text: str) -> dict[str, Any]:
    """A run's row with what `spikeloom eval` says of a text in place of its own held-out one."""
    texts = report.get("texts", {})
    if text not in texts:
        raise SystemExit(f"{report.get('name')}: was evaluated on {', '.join(texts) or 'no text'}")
    read = {f"eval_{key}": texts[text][key] for key in ("loss", "active_share")}
    return {"tokens": report["train"]["tokens"], **read}


def twin_name(name: str, rows: dict[str, Any]) -> str | None:
    """The dense run that differs from a run in one word of its name only, if there is one."""
    words = name.split("-")
    found = ["-".join([*words[:i], "dense", *words[i + 1 :]]) for i in range(len(words))]
    return next((other for other in found if other in rows), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    run = verbs.add_parser("run", help="train and evaluate the runs of a plan")
    run.add_argument("plan", type=Path)
    run.add_argument("--data", required=True, help="prepared directory (one tokenizer for all)")
    run.add_argument("--eval-data", required=True, help="held-out text, as of `spikeloom train`")
    run.add_argument("--texts", type=_texts, default=[], metavar="NAME=FILE,...")
    run.add_argument("--eval-tokens", type=int, default=60_000, help="scored of each text")
    run.add_argument("--work", type=Path, required=True, help="checkpoints and logs")
    run.add_argument("--out", type=Path, required=True, help="one JSON per run")
    run.add_argument("--only", nargs="*", metavar="RUN")
    run.add_argument("--set", action="append", default=[], metavar="a.b=c", help="of every run")
    run.add_argument("--max-tokens", type=int, help="in place of the plan's, to try it out")
    run.add_argument("--gpus", type=int, default=0)
    run.add_argument("--per-gpu", type=int, default=1)
    run.add_argument("--limit", type=float, default=1e9, metavar="SECONDS")
    run.add_argument("--commit", default=_commit(), help="recorded; git's by default")
    run.set_defaults(act=_run)
    show = verbs.add_parser("table", help="a Markdown table of a folder")
    show.add_argument("folder", type=Path)
    show.add_argument(
        "--text", metavar="NAME", help="by the loss on this text of the run's --texts"
    )
    show.set_defaults(act=lambda options: table(options.folder, options.text))
    options = parser.parse_args()
    options.act(options)


def _run(options: argparse.Namespace) -> None:
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(options)
    sweep.go()
    if sweep.failed:
        raise SystemExit(f"not done: {', '.join(sweep.failed)}")


def _texts(given: str) -> list[list[str]]:
    return [pair.split("=", 1) for pair in given.split(",")]


def _commit() -> str | None:
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    asked += ["--exclude", "*"]
    found = subprocess.run(asked, capture_output=True, text=True)
    return found.stdout.strip() or None


if __name__ == "__main__":
    main()
