"""GPU benchmarks and checks, most wanted first, each with its own limit, in one process.

    PYTHONPATH=src python benchmarks/gpu.py OUT_DIR [STEP...] [--limit SECONDS]

Without a STEP, all that fit into 300 seconds; `--help` lists them. One process, because importing
torch and transformers takes ten seconds. Rows are printed as they are measured, and kept in
OUT_DIR/STEP.json (with `"complete": false` where a limit struck).
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spikeloom.bench.options import Options


@dataclass(frozen=True)
class Bench:
    """Rows of `spikeloom bench NAME`."""

    name: str
    options: Options = field(default_factory=Options)

    def run(self, file: Path) -> None:
        from spikeloom.bench import load
        from spikeloom.bench.rows import show

        rows = load(self.name)("cuda", self.options)
        show(rows, lambda report: file.write_text(json.dumps(report, indent=2)))


@dataclass(frozen=True)
class Check:
    """GPU tests, the most telling first; in a process of their own, as pytest wants it."""

    tests: tuple[str, ...]

    def run(self, file: Path) -> None:
        options = ["-q", "-x", "--durations=3", "-p", "no:cacheprovider", "-m", "gpu"]
        _subprocess("-m", "pytest", *options, *self.tests)


@dataclass(frozen=True)
class Script:
    """Another file of this directory."""

    name: str
    arguments: tuple[str, ...] = ()

    def run(self, file: Path) -> None:
        path = Path(__file__).with_name(self.name)
        _subprocess(str(path), *self.arguments)


def _subprocess(*arguments: str) -> None:
    """An alarm ends it, too: `subprocess.run` kills what it is interrupted in."""
    subprocess.run([sys.executable, "-u", *arguments])


def quick(name: str) -> Bench:
    return Bench(name, Options(quick=True))


def preset(name: str, size: str) -> Bench:
    return Bench(name, Options(case=f"spikeloom-{size}"))


def profiled(size: str) -> Bench:
    return Bench("train", Options(quick=True, case=f"spikeloom-{size}", profile=True))


EVENT, SKIP = "tests/ops/event/test_gather.py", "tests/ops/event/test_skip.py"
RECURRENT = "tests/ops/lif/test_recurrent_scan.py"
FLA = Options(quick=True, slow_peers=True, case="B8 H12 K64 L4096")
WANTED: dict[str, tuple[int, Bench | Check | Script]] = {
    "train-15m": (120, profiled("15m")),
    "attention": (30, quick("attention")),
    "event": (25, Bench("event")),
    "lif": (20, quick("lif")),
    "scan": (30, quick("scan")),
    "recurrent": (15, Bench("recurrent")),
    "decode-15m": (200, preset("decode", "15m")),
    "sweep-gather": (90, Script("sweep_gather.py", ("large",))),
    "sweep-decoder": (60, Script("sweep_gather.py", ("decoder",))),
    "sweep-attention": (90, Script("sweep_attention.py")),
    "sweep-recurrent": (60, Script("sweep_recurrent.py")),
    "sweep-token": (45, Script("sweep_lif.py", ("token",))),
    "sweep-step": (45, Script("sweep_lif.py", ("step",))),
    "check-event": (90, Check((f"{EVENT}::test_a_cuda_graph_follows_the_payload", EVENT, SKIP))),
    "check-recurrent": (45, Check((RECURRENT,))),
}
BY_NAME: dict[str, tuple[int, Bench | Check | Script]] = {
    "check-attention": (120, Check(("tests/ops/attention",))),
    "check-neurons": (90, Check(("tests/ops/lif",))),
    "check-decode": (90, Check(("tests/inference",))),
    "attention-full": (90, Bench("attention")),
    "attention-fla": (150, Bench("attention", FLA)),
    "lif-full": (60, Bench("lif")),
    "lif-compiled": (150, Bench("lif", Options(slow_peers=True))),
    "scan-full": (60, Bench("scan")),
    "decode-125m": (400, preset("decode", "125m")),
    "train-125m": (250, profiled("125m")),
    "train-15m-full": (200, preset("train", "15m")),
    "train-125m-full": (500, preset("train", "125m")),
}
STEPS = WANTED | BY_NAME
FINAL = ("event", "recurrent", "lif", "scan")  # 90 s at most, together


class OutOfTimeError(KeyboardInterrupt):
    """Raised by the alarm; no `except Exception` on the way takes it for its own."""


def main() -> None:
    options = _arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    end = time.monotonic() + options.limit
    signal.signal(signal.SIGALRM, _strike)
    for name in _names(options.steps):
        seconds, work = STEPS[name]
        left = end - time.monotonic()
        if left < 5:
            print(f"== {name}: no time left", flush=True)
            continue
        run(name, min(seconds, left), work.run, options.out)


def _names(steps: list[str]) -> list[str]:
    """The steps that were asked for, `final` standing for its own."""
    return [name for step in steps or WANTED for name in (FINAL if step == "final" else (step,))]


def run(name: str, seconds: float, work: Callable[[Path], None], out: Path) -> None:
    """One step, whatever becomes of it."""
    print(f"== {name} (at most {seconds:.0f} s)", flush=True)
    began, ended = time.monotonic(), "done"
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        _tidy()
        work(out / f"{name}.json")
    except OutOfTimeError:
        ended = "out of time"
    except Exception:
        traceback.print_exc(limit=-6)
        ended = "failed"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"== {name}: {ended}, {time.monotonic() - began:.0f} s", flush=True)


def _tidy() -> None:
    """Nothing is left of the step before."""
    import torch

    torch.compiler.reset()
    torch.set_float32_matmul_precision("highest")
    gc.collect()
    torch.cuda.empty_cache()


def _strike(*_: object) -> None:
    raise OutOfTimeError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(["final", *STEPS]))
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS")
    given = parser.parse_args()
    if unknown := set(given.steps) - {"final", *STEPS}:
        parser.error(f"no such step: {', '.join(sorted(unknown))} (--help lists them)")
    return given


if __name__ == "__main__":
    main()
