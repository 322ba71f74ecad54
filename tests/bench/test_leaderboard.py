"""The leaderboard: rows are whole recipes of one size, and the page says what was measured."""

import json
import sys
from pathlib import Path

import pytest
import torch

from spikeloom.config import load_config
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.training.twin import twin_of

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import leaderboard  # noqa: E402
import leaderboard_page  # noqa: E402

WANTED = {  # the rows that were asked for
    "flow", "quantised", "spikeloom", "spikegpt", "sdsa", "pulse", "real-sam-v4", "psn", "hybrid",
}  # fmt: skip


def run_of(row):
    return twin_of(load_config(row.preset, row.settings), row.twin)


def test_the_rows_asked_for_are_there():
    for size in leaderboard.SIZES:
        assert {row.name for row in leaderboard.rows(size)} >= WANTED
    assert [row.name for row in leaderboard.rows("6m", ["psn"])] == ["psn"]
    with pytest.raises(SystemExit, match="--only spikegtp: the rows are flow, dense"):
        leaderboard.rows("6m", ["spikegtp"])


@pytest.mark.parametrize(("size", "millions"), [("6m", 5.8), ("15m", 15.75)])
def test_rows_of_a_size_have_one_size_and_one_budget(size, millions):
    for row in leaderboard.rows(size):
        run = run_of(row)
        config = {**run.model.__dict__, "vocab_size": 4096}
        with torch.device("meta"):
            model = SpikeloomForCausalLM(SpikeloomConfig(**config))
        assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.05), row.name
        assert run.training.batch_size * run.model.max_position_embeddings == 64 * 512
        assert run.training.optimizer == "adamw"


def test_dense_rows_and_quantised_ones_are_told_from_spiking_ones():
    kinds = {row.name: row.kind for row in leaderboard.rows("6m")}
    others = {name: kind for name, kind in kinds.items() if kind != "spiking"}
    assert others == {"flow": "dense", "dense": "dense", "quantised": "quantised"}


def test_a_command_is_what_train_wants(tmp_path):
    (row,) = leaderboard.rows("6m", ["quantised"])
    command = row.command(tmp_path / "data", tmp_path / "out", 1000, ["training.compile=true"])
    assert command[:4] == ["train", "spikeloom-6m", "--twin", "quantised"]
    assert command[-2:] == ["--set", "training.compile=true"]
    assert command[command.index("--max-tokens") + 1] == "1000"


def test_rows_of_one_folder_share_their_text(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    made_of = {"request": {"source": "there/a.jsonl,there/b.txt"}}
    (folder / "prepared.json").write_text(json.dumps(made_of))
    words = ["prepare", "--work", str(tmp_path), "--data"]
    leaderboard.main([*words, "here/a.jsonl,here/b.txt"])
    with pytest.raises(SystemExit, match=r"was made of a\.jsonl,b\.txt; choose another --work"):
        leaderboard.main([*words, "here/a.jsonl"])


def test_speed_leaves_the_first_half_out():
    history = [{"loss": 1.0, "step": n, "seconds": s} for n, s in ((1, 60), (2, 61), (3, 62))]
    history += [{"loss": 1.0, "step": 4, "seconds": 63}, {"eval_loss": 1.0, "step": 4}]
    assert leaderboard.training_speed(history, 100) == 100.0
    assert leaderboard.training_speed(history[:1], 100) is None


def entry(bits, share, rate):
    return {
        "tokens": 1000,
        "bytes": 3000,
        "loss": 2.0,
        "bits_per_byte": bits,
        "active_share": share,
        "channel_rate": rate,
        "synops": {"acs": 2e6, "macs": 1e6},
        "energy_pj": {"spiking": 5e6, "ratio": 4.0, "label": "estimate: formula"},
        "protocol": {"context": 512, "stride": 256, "max_tokens": None, "source": "valid.jsonl"},
    }


def record(bits, share, rate, event):
    machine = {"cpu": "a CPU", "torch": "2.13"}
    return {
        "train": {
            "tokens": 20e6, "tokens_per_second": 5e5, "machine": {**machine, "gpu": "a GPU"},
            "data": ["train.jsonl"],
        },
        "eval": {
            "tinystories": entry(bits, share, rate),
            "books": entry(bits + 1, share + 0.1, rate),
        },
        "decode": {"torch": 200.0, "event": event, "machine": machine},
        "parameters": 5.8e6,
    }  # fmt: skip


@pytest.fixture
def page(tmp_path):
    """The page of two measured rows, one that failed, and the rest not run."""
    records = leaderboard.Records(tmp_path / "results")
    found = {
        "spikegpt": record(1.2, 0.9, 0.05, None),
        "dense": record(1.0, 0.9, None, 900.0),
        "pulse": {"failed": "train ended with code 2"},
    }
    for row in leaderboard.rows("6m", list(found)):
        records.write(row, found[row.name])
    file = tmp_path / "docs" / "leaderboard.md"
    file.parent.mkdir()
    leaderboard.main(["render", "--results", str(records.directory), "--page", str(file)])
    return file


def test_the_table_is_sorted_and_says_what_is_missing(page):
    text = page.read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0].startswith("| model | parameters | TinyStories | books | active share |")
    assert lines[2] == (
        "| dense | 5.80M | 1.000 (7.4) | 2.000 (7.4) | 0.950 |  | 2.00M | 1.00M | 5,000 (4.0x) | "
        "500,000 | 900 | 200 |"
    )
    assert lines[3].startswith("| spikegpt | 5.80M | 1.200 (7.4) | 2.200 (7.4) | 0.950 | 0.050 |")
    assert lines[3].endswith("| 500,000 |  | 200 |")
    assert "pulse (train ended with code 2)" in text
    assert "flow (not run)" in text
    assert "## 15m" not in text


def test_the_page_names_machines_texts_and_budget(page):
    text = page.read_text("utf-8")
    for said in (
        "20.0 M tokens of train.jsonl.",
        "compilation left out, on\n  a GPU, torch 2.13.",
        "on a CPU, torch 2.13.",
        "TinyStories (valid.jsonl, 1,000 tokens scored); books (valid.jsonl",
        "Windows of\n  512 tokens, 256 apart",
    ):
        assert said in text
    picture = page.parent / "pictures" / "leaderboard-6m.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"(pictures/{picture.name})" in text


def test_what_was_not_measured_has_no_column():
    found = record(1.2, 0.9, 0.05, None)
    del found["decode"], found["parameters"], found["train"]["tokens_per_second"]
    (row,) = leaderboard.rows("6m", ["spikegpt"])
    head = leaderboard_page.section("6m", [(row, found)], []).splitlines()[4]
    assert head == (
        "| model | TinyStories | books | active share | firing | ACs | MACs | energy (nJ) |"
    )
    told = leaderboard_page.legend([found])
    assert "**Energy**" in told
    assert "**Training**" not in told
    assert "**Event" not in told


def test_the_faster_engine_is_drawn():
    assert leaderboard_page.fastest(record(1, 1, None, 900.0)) == 900.0
    assert leaderboard_page.fastest(record(1, 1, 0.1, None)) == 200.0
    assert leaderboard_page.fastest({}) is None


def test_nothing_measured_is_no_page(tmp_path):
    with pytest.raises(SystemExit, match="no row has figures"):
        leaderboard.main(
            ["render", "--results", str(tmp_path), "--page", str(tmp_path / "page.md")]
        )


@pytest.mark.slow  # starts Python three times
def test_one_command_trains_measures_and_packs(tmp_path):
    """All of `run` on one tiny row; a second call does nothing twice."""
    text = " ".join(f"The {n} cats sat on the {n + 1} mats." for n in range(3000))
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({"text": text[i : i + 600]}) + "\n" for i in range(0, len(text), 600))
    )
    (tmp_path / "valid.txt").write_text(text[:3000])
    sizes = {
        "model.num_hidden_layers": 1, "model.hidden_size": 32, "model.intermediate_size": 32,
        "model.num_attention_heads": 2, "training.batch_size": 2, "training.num_workers": 0,
        "training.context": 64, "training.dtype": "float32",
    }  # fmt: skip
    given = ["run", "--size", "6m", "--only", "spikegpt", "--max-tokens", "512"]
    given += ["--data", str(tmp_path / "train.jsonl"), "--eval-tokens", "300"]
    given += ["--sets", f"tinystories={tmp_path / 'valid.txt'}", "--work", str(tmp_path / "work")]
    given += ["--results", str(tmp_path / "results"), "--archive", str(tmp_path / "all.tar.gz")]
    given += [part for key, value in sizes.items() for part in ("--set", f"{key}={value}")]
    leaderboard.main(given)
    file = tmp_path / "results" / "6m" / "spikegpt.json"
    found = json.loads(file.read_text())
    assert (found["train"]["steps"], found["train"]["data"]) == (4, ["train.jsonl"])
    assert found["train"]["command"].startswith("spikeloom train spikegpt-6m ")
    assert found["eval"]["tinystories"]["active_share"] == 1.0
    assert found["decode"]["event"] is None
    assert found["decode"]["torch"] > 0
    assert (tmp_path / "all.tar.gz").stat().st_size > 0
    trained = (tmp_path / "work" / "6m" / "spikegpt" / "training.json").stat().st_mtime
    leaderboard.main(given)
    again = json.loads(file.read_text())
    assert (again["train"], again["eval"]) == (found["train"], found["eval"])
    assert (tmp_path / "work" / "6m" / "spikegpt" / "training.json").stat().st_mtime == trained
