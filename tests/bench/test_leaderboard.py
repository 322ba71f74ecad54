"""The leaderboard: rows are whole recipes of one size, and one command trains them all."""

import json
import sys
from pathlib import Path

import pytest
import torch

from spikeloom.config import load_config
from spikeloom.model import SpikeloomForCausalLM, active_share, fed_weights
from spikeloom.training.twin import twin_of

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import leaderboard  # noqa: E402
import leaderboard_decode  # noqa: E402
from leaderboard_rows import SIZES, rows, runs  # noqa: E402

WANTED = {  # the rows that were asked for
    "flow", "quantised", "spikeloom", "spikegpt", "sdsa", "pulse", "real-sam-v4", "psn", "hybrid",
}  # fmt: skip


def test_the_rows_asked_for_are_there():
    for size in SIZES:
        assert {row.name for row in rows(size)} >= WANTED
    assert [row.name for row in rows("6m", ["psn"])] == ["psn"]
    with pytest.raises(SystemExit, match="--only spikegtp: the rows are flow, dense"):
        rows("6m", ["spikegtp"])


@pytest.mark.parametrize(("size", "millions"), [("6m", 5.8), ("15m", 15.75)])
def test_rows_of_a_size_have_one_size_and_one_budget(size, millions):
    for row in rows(size):
        run = twin_of(load_config(row.preset, row.settings), row.twin)
        assert row.parameters / 1e6 == pytest.approx(millions, rel=0.05), row.name
        assert run.training.batch_size * run.model.max_position_embeddings == 64 * 512
        assert run.training.optimizer == "muon"
        assert not any("learning_rate" in setting for setting in row.settings)
        assert {0.02, 0.01, 0.005} <= set(row.rates)


def test_dense_rows_and_quantised_ones_are_told_from_spiking_ones():
    kinds = {row.name: row.kind for row in rows("6m")}
    others = {name: kind for name, kind in kinds.items() if kind != "spiking"}
    assert others == {"flow": "dense", "dense": "dense", "quantised": "quantised"}


def test_every_row_has_its_first_rate_before_any_has_its_second():
    told = [str(run) for run in runs(rows("6m", ["dense", "spikegpt"]))]
    assert told == [
        "6m dense at 0.02", "6m spikegpt at 0.02", "6m dense at 0.01", "6m spikegpt at 0.01",
        "6m dense at 0.005", "6m spikegpt at 0.005", "6m spikegpt at 0.002",
    ]  # fmt: skip
    assert [str(run) for run in runs(rows("6m", ["psn"]), [0.04])] == ["6m psn at 0.04"]


def test_a_command_is_what_train_wants(tmp_path):
    (run,) = runs(rows("6m", ["quantised"]), [0.01])
    command = run.command(tmp_path / "data", tmp_path / "out", 1000, ["training.compile=true"])
    assert command[:4] == ["train", "spikeloom-6m", "--twin", "quantised"]
    told = ["--set", "training.compile=true", "--set", "training.learning_rate=0.01"]
    assert command[-4:] == told
    assert command[command.index("--max-tokens") + 1] == "1000"


def test_a_rate_that_the_files_would_not_know_is_refused(capsys):
    with pytest.raises(SystemExit):
        leaderboard.main(["train", "--set", "training.learning_rate=0.1"])
    assert "use --rates" in capsys.readouterr().err


def test_rows_of_one_folder_share_their_text(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    made_of = {"request": {"source": "there/a.jsonl,there/b.txt"}}
    (folder / "prepared.json").write_text(json.dumps(made_of))
    words = ["prepare", "--work", str(tmp_path), "--data"]
    leaderboard.main([*words, "here/a.jsonl,here/b.txt"])
    with pytest.raises(SystemExit, match=r"was made of a\.jsonl,b\.txt; choose another --work"):
        leaderboard.main([*words, "here/a.jsonl"])


def test_a_run_that_fails_leaves_the_reason(tmp_path, capfd):
    given = ["train", "--size", "6m", "--only", "dense", "--rates", "0.01", "--commit", "abc"]
    given += ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    leaderboard.main([*given, "--max-tokens", "512"])
    assert "error: " in capfd.readouterr().err
    found = json.loads((tmp_path / "results" / "6m" / "0.01" / "dense.json").read_text())
    assert str(tmp_path / "work" / "data") in found["failed"]  # which does not exist
    assert (found["commit"], found["command"].split()[:2]) == ("abc", ["spikeloom", "train"])


def test_a_row_is_timed_at_the_active_share_of_its_best_run():
    tiny = ["model.num_hidden_layers=1", "model.hidden_size=32", "model.num_attention_heads=2",
            "model.intermediate_size=64"]  # fmt: skip
    (row,) = rows("6m", ["spikeloom"])
    model = SpikeloomForCausalLM(row.config(tiny)).eval()
    text = torch.randint(0, 1000, (64,), generator=torch.Generator().manual_seed(0))
    for share in (0.3, 0.1):
        reached = leaderboard_decode.fire_at(model, share, text)
        rates = model(text[None]).firing_rates
        assert active_share(rates, fed_weights(model)).item() == pytest.approx(reached)
        assert reached == pytest.approx(share, abs=0.01)
    wanted = dict.fromkeys(rows("6m", ["spikeloom", "pulse"]), 0.3)
    found = leaderboard_decode.speeds(wanted, tiny)
    assert min(found["spikeloom"].values()) > 0
    assert found["pulse"]["event"] is None  # spikes behind products skip no weights
    assert found["pulse"]["torch"] > 0
    far = leaderboard_decode.speeds(dict.fromkeys(rows("6m", ["spike-transformer"]), 0.9), tiny)
    assert far["spike-transformer"]["event"] is None  # binary spikes have no step to scale


@pytest.mark.slow  # starts Python four times
def test_one_command_trains_measures_and_packs(tmp_path):
    """All of `run` on one tiny row at two rates; a second call does nothing twice."""
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
    given += ["--rates", "0.01", "0.002", "--commit", "abc", "--shared-gpu"]
    given += ["--data", str(tmp_path / "train.jsonl"), "--eval-tokens", "300"]
    given += ["--sets", f"tinystories={tmp_path / 'valid.txt'}", "--work", str(tmp_path / "work")]
    given += ["--results", str(tmp_path / "results"), "--archive", str(tmp_path / "all.tar.gz")]
    given += [part for key, value in sizes.items() for part in ("--set", f"{key}={value}")]
    leaderboard.main(given)
    files = [tmp_path / "results" / "6m" / rate / "spikegpt.json" for rate in ("0.01", "0.002")]
    first, second = [json.loads(file.read_text()) for file in files]
    assert (first["train"]["steps"], first["train"]["data"]) == (4, ["train.jsonl"])
    assert first["train"]["command"].startswith("spikeloom train spikegpt-6m ")
    assert (first["train"]["learning_rate"], second["train"]["learning_rate"]) == (0.01, 0.002)
    assert (first["train"]["commit"], first["train"]["optimizer"]) == ("abc", "muon")
    assert first["train"]["tokens_per_second"] is None  # --shared-gpu
    assert first["eval"]["tinystories"]["active_share"] == 1.0
    decode = json.loads((tmp_path / "results" / "6m" / "decode.json").read_text())["rows"]
    better = min((first, second), key=lambda record: record["train"]["eval_loss"])
    assert decode["spikegpt"]["rate"] == better["train"]["learning_rate"]
    assert decode["spikegpt"]["event"] is None
    assert decode["spikegpt"]["torch"] > 0
    assert (tmp_path / "all.tar.gz").stat().st_size > 0
    times = [file.stat().st_mtime for file in (tmp_path / "results").rglob("*.json")]
    leaderboard.main(given)
    assert [file.stat().st_mtime for file in (tmp_path / "results").rglob("*.json")] == times


@pytest.mark.parametrize(("given", "names"), [(None, ["0", "1"]), ("3,5", ["3", "5"])])
def test_columns_stay_on_the_gpus_that_were_given(given, names, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert leaderboard._gpus(2) == names


def test_more_columns_than_gpus_given_are_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(SystemExit, match="names 3 and no more"):
        leaderboard.main(["run", "--gpus", "2", "--work", str(tmp_path / "work")])
    assert not (tmp_path / "work").exists()
