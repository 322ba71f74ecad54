"""Real processes: killed at random moments, and two at a time."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import yaml
from tiny_runs import MODEL, TRAINING, losses_of, state_of, weights_of

from spikeloom.checkpoint import step_of, steps
from spikeloom.errors import CheckpointError
from spikeloom.evaluation.checkpoint import load

pytestmark = pytest.mark.slow

EVERY = 5  # steps between checkpoints


def config_file(tmp_path, **training):
    file = tmp_path / "tiny.yaml"
    tokenizer = {"kind": "char", "vocab_size": 300}
    tree = {"model": MODEL, "tokenizer": tokenizer, "training": {**TRAINING, **training}}
    file.write_text(yaml.safe_dump(tree))
    return str(file)


def command(config, text, out, steps, *options):
    verb = ["train", config, "--data", text, "--out", str(out), "--max-steps", str(steps)]
    return ["-m", "spikeloom.cli", *verb, *options]


def start(arguments, log):
    with log.open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stderr=stderr,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def newest(out):
    return max((step_of(p) for p in steps(out)), default=0)


def logged(log):
    """The highest step that was seen in a log: what a kill may take away is less than this."""
    return max((int(n) for n in re.findall(rb"step (\d+):", log.read_bytes())), default=0)


def test_twenty_kills(text, tmp_path):
    chance, out, log = random.Random(0), tmp_path / "run", tmp_path / "log"
    config = config_file(tmp_path, checkpoint_every=EVERY, batch_size=2, log_every=EVERY)
    total = 100_000  # never reached while there are kills to come
    saved, moments = 0, []
    for kill in range(20):
        process = start(command(config, text, out, total, "--resume"), log)
        # Some kills come while it starts, the others at any moment of training.
        deadline, target = time.monotonic() + 300, saved
        if kill % 4:
            while newest(out) == target and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 1.5))
        else:
            time.sleep(chance.uniform(0, 12))
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert newest(out) >= saved, "a checkpoint was lost"
        # A line about a step is written before its checkpoint: one interval may be lost, no more.
        assert logged(log) - newest(out) <= EVERY
        saved = newest(out)
        moments.append(saved)
        try:
            load(out)
        except CheckpointError:
            assert saved == 0
    process = start(command(config, text, out, saved + 20, "--resume"), log)
    assert process.wait(300) == 0, log.read_text()
    print(f"newest checkpoint after each kill: {moments}; finished at {saved + 20}")
    assert state_of(out)["global_step"] == saved + 20
    assert all(w.isfinite().all() for w in weights_of(out).values())
    # No step is logged twice: every sitting took up exactly where a checkpoint was.
    losses = [s for name, s in losses_of(out) if name == "loss"]
    assert losses == sorted(set(losses)) == list(range(EVERY, saved + 21, EVERY))


def torchrun(arguments, log):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    return start([*launcher, *arguments], log).wait(300)


@pytest.mark.parametrize("budget", ["steps", "minutes"])
def test_two_processes(budget, text, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    config = config_file(tmp_path, batch_size=2, target_active_share=0.1)
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE.format(folder=str(tmp_path)))
    options = command(config, text, out, 4)[2:]
    if budget == "minutes":
        options[options.index("--max-steps") :] = ["--max-minutes", "0.02"]
    assert torchrun([str(probe), *options], log) == 0, log.read_text()
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert first["steps"] == second["steps"] == state_of(out)["global_step"]
    assert all(torch.equal(first["weights"][n], second["weights"][n]) for n in first["weights"])
    if budget == "steps":
        assert first["steps"] == 4
        assert {p.name for p in out.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
        assert {p.name for p in (out / "checkpoint-4").glob("rng*")} == {
            "rng_state_0.pth",
            "rng_state_1.pth",
        }
        more = command(config, text, out, 6, "--resume")[2:]
        assert torchrun([str(probe), *more], log) == 0, log.read_text()
        assert state_of(out)["global_step"] == 6
    assert not (out / ".saving").exists()
    load(out)
    said = log.read_text()
    assert said.count("resuming") == (1 if budget == "steps" else 0)  # one process speaks


# `spikeloom` with a look at what each process holds in the end.
PROBE = """
import os
import torch
from spikeloom import cli
from spikeloom.training import train

finish = train._finish

def look(trainer, out, tokens):
    result = finish(trainer, out, tokens)
    file = "{folder}/rank" + os.environ["RANK"] + ".pt"
    torch.save({{"weights": trainer.model.state_dict(), "steps": trainer.state.global_step}}, file)
    return result

train._finish = look
cli.main()
"""
