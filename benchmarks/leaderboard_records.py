"""What the leaderboard keeps: a JSON file per run, one per size for decoding, and who is best."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leaderboard_rows import Row, Run, shell

Record = Mapping[str, Any]


class Records:
    """`DIR/SIZE/RATE/ROW.json` of every run, and `DIR/SIZE/decode.json`.

    A run's file has `train` (see `trained`) or why it `failed`, then `eval` by held-out text.
    Decoding is timed with all rows of a size in turns, so it has one file: `machine`, `commit`,
    and in `rows` by name the speeds, with the rate of the row's best run and its active share.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, run: Run) -> dict[str, Any]:
        """What is known of a run; empty if nothing is."""
        return _read(self._path(run))

    def write(self, run: Run, record: Record) -> None:
        _write(self._path(run), record)

    def tried(self, row: Row) -> dict[float, Record]:
        """All runs of a row by learning rate, highest first."""
        files = (self.directory / row.size).glob(f"*/{row.name}.json")
        found = {float(file.parent.name): _read(file) for file in files}
        return dict(sorted(found.items(), reverse=True))

    def best(self, row: Row) -> Run | None:
        """The run that the row is shown by; None if none was trained to its end."""
        rate = best_rate(self.tried(row))
        return None if rate is None else Run(row, rate)

    def read_decode(self, size: str) -> dict[str, Any]:
        return _read(self.directory / size / "decode.json")

    def write_decode(self, size: str, record: Record) -> None:
        _write(self.directory / size / "decode.json", record)

    def _path(self, run: Run) -> Path:
        return self.directory / run.folder / f"{run.row.name}.json"


def best_rate(tried: Mapping[float, Record]) -> float | None:
    """The rate with the lowest held-out loss of training itself.

    The texts of the table have no say: a run chosen by them would look better than it is.
    """
    losses = {rate: r["train"]["eval_loss"] for rate, r in tried.items() if "train" in r}
    return min(losses, key=lambda rate: losses[rate], default=None)


def mean_share(record: Record) -> float | None:
    """The active share that the page shows of a run; None if it was not evaluated."""
    shares = [entry["active_share"] for entry in record.get("eval", {}).values()]
    return sum(shares) / len(shares) if shares else None


def at_an_end(tried: Mapping[float, Record]) -> bool:
    """Whether the best rate is the highest or lowest of those tried: one beyond may be better.

    A rate at which the loss became NaN was tried; one at which the run was cut or crashed was not.
    """
    told = [rate for rate, r in tried.items() if "train" in r or "the loss became" in r["failed"]]
    return best_rate(tried) in (max(told), min(told))


def trained(out: Path, command: Sequence[str]) -> dict[str, Any]:
    """What the directory of a finished run says of its training."""
    metrics = json.loads((out / "training.json").read_text("utf-8"))
    history = json.loads((out / "trainer_state.json").read_text("utf-8"))["log_history"]
    speed = training_speed(history, metrics["tokens"] / metrics["steps"])
    recipe = json.loads((out / "run.json").read_text("utf-8"))["training"]
    return {
        **metrics,
        "tokens_per_second": speed,
        "command": shell(command),
        **{key: recipe[key] for key in ("optimizer", "learning_rate")},  # presets move
    }


def training_speed(history: Sequence[Mapping[str, float]], tokens_per_step: float) -> float | None:
    """Tokens per second over the second half of a run: compilation and start-up left out."""
    logs = [entry for entry in history if "loss" in entry]
    if len(logs) < 2:
        return None
    first, last = logs[len(logs) // 2 - 1], logs[-1]
    return (last["step"] - first["step"]) * tokens_per_step / (last["seconds"] - first["seconds"])


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _write(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
