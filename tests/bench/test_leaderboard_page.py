"""The leaderboard's page: the best run of a row is shown, and the page says what was measured."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import leaderboard  # noqa: E402
import leaderboard_page  # noqa: E402
from leaderboard_records import Records, at_an_end, best_rate, training_speed  # noqa: E402
from leaderboard_rows import Run, rows  # noqa: E402


def test_speed_leaves_the_first_half_out():
    history = [{"loss": 1.0, "step": n, "seconds": s} for n, s in ((1, 60), (2, 61), (3, 62))]
    history += [{"loss": 1.0, "step": 4, "seconds": 63}, {"eval_loss": 1.0, "step": 4}]
    assert training_speed(history, 100) == 100.0
    assert training_speed(history[:1], 100) is None


def test_the_best_rate_is_that_of_the_lowest_loss_in_training():
    tried = {0.02: {"failed": "nan"}, 0.01: {"train": {"eval_loss": 3.5}, "eval": {"b": 2}}}
    assert best_rate(tried) == 0.01
    tried[0.005] = {"train": {"eval_loss": 3.4}}  # better, though no text has been read with it
    assert best_rate(tried) == 0.005
    assert best_rate({0.02: {"failed": "nan"}}) is None


def test_a_best_rate_between_others_is_no_end():
    tried = {rate: {"train": {"eval_loss": abs(rate - 0.01)}} for rate in (0.02, 0.01)}
    assert at_an_end(tried)
    assert not at_an_end({**tried, 0.005: {"failed": "the loss became nan at step 4"}})
    assert at_an_end({**tried, 0.005: {"failed": "spikeloom train ended with 1"}})  # no answer


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


def record(loss, bits, share, rate):
    return {
        "train": {
            "tokens": 20e6, "tokens_per_second": 5e5, "data": ["train.jsonl"], "eval_loss": loss,
            "machine": {"cpu": "a CPU", "gpu": "a GPU", "torch": "2.13"},
            "optimizer": "muon", "commit": "abc",
        },
        "eval": {
            "tinystories": entry(bits, share, rate),
            "books": entry(bits + 1, share + 0.1, rate),
        },
    }  # fmt: skip


def keep(records, name, rate, told):
    (row,) = rows("6m", [name])
    records.write(Run(row, rate), told)


@pytest.fixture
def records(tmp_path):
    """Two measured rows, one of them at two rates, one that failed, and the rest not run."""
    records = Records(tmp_path / "results")
    keep(records, "spikegpt", 0.02, record(3.9, 1.1, 0.9, 0.05))
    keep(records, "spikegpt", 0.01, record(3.8, 1.2, 0.9, 0.05))
    keep(records, "dense", 0.02, record(3.5, 1.0, 0.9, None))
    keep(records, "pulse", 0.02, {"failed": "the loss became nan at step 4; lower it"})
    speeds = {
        "dense": {"rate": 0.02, "active_share": 0.95, "torch": 300.0, "event": 900.0},
        "spikegpt": {"rate": 0.005, "active_share": 0.5, "torch": 200.0, "event": None},
    }
    machine = {"cpu": "a CPU", "torch": "2.13"}
    records.write_decode("6m", {"machine": machine, "rows": speeds})
    return records


@pytest.fixture
def page(records, tmp_path):
    file = tmp_path / "docs" / "leaderboard.md"
    file.parent.mkdir()
    leaderboard.main(["render", "--results", str(records.directory), "--page", str(file)])
    return file


def test_the_table_shows_best_runs_against_dense(page):
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("|")]
    assert lines[0].startswith("| model | parameters | rate | over dense | TinyStories | books |")
    assert lines[2] == (
        "| dense | 5.77M | 0.02 | +0.0% | 1.000 (7.4) | 2.000 (7.4) | 0.950 |  | 2.00M | 1.00M | "
        "5,000 (4.0x) | 500,000 | 900 | 300 |"
    )
    # (1.2 / 1.0 + 2.2 / 2.0) / 2: each text counts alike
    assert lines[3].startswith("| spikegpt | 5.78M | 0.01 | +15.0% | 1.200 (7.4) | 2.200 (7.4) |")
    assert lines[3].endswith("| 500,000 |  | 200 |")


def test_the_page_shows_all_rates_and_failures(page):
    text = page.read_text("utf-8")
    for said in (
        "| model | 0.02 | 0.01 |\n",
        "| spikegpt | 3.900 | **3.800** |\n",
        "| dense | **3.500** |  |\n",
        "| pulse | failed |  |\n",
        "Failed: pulse at 0.02 (the loss became nan at step 4).",
        "Best at an end of what was tried: dense (0.02), spikegpt (0.01).",
        "Not measured: flow, ",
    ):
        assert said in text
    assert "## 15m" not in text


def test_the_page_names_machines_texts_and_budget(page):
    text = page.read_text("utf-8")
    for said in (
        "20.0 M tokens of train.jsonl; muon; commit abc.",
        "compilation left out, on\n  a GPU, torch 2.13.",
        "on a CPU, torch 2.13.",
        "TinyStories (valid.jsonl, 1,000 tokens scored); books (valid.jsonl",
        "Windows of\n  512 tokens, 256 apart",
    ):
        assert said in text
    assert "was timed with other runs" not in text  # of spikegpt, but it has no event form
    picture = page.parent / "pictures" / "leaderboard-6m.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"(pictures/{picture.name})" in text


def test_speeds_of_other_runs_are_told(records):
    decode = records.read_decode("6m")
    decode["rows"]["dense"]["active_share"] = 0.7
    lines = leaderboard_page.measured(records, "6m")
    told = leaderboard_page.legend([(line, decode) for line in lines])
    assert "other runs" not in told
    records.write_decode("6m", decode)
    lines = leaderboard_page.measured(records, "6m")
    told = leaderboard_page.legend([(line, decode) for line in lines])
    assert "other runs than the table's, of these active shares: dense 0.700." in told


def test_what_was_not_measured_has_no_column(tmp_path):
    records, told = Records(tmp_path), record(3.0, 1.0, 0.9, None)
    del told["train"]["tokens_per_second"]
    keep(records, "dense", 0.02, told)
    lines = leaderboard_page.measured(records, "6m")
    head = leaderboard_page.section(lines).splitlines()[4]
    assert head == (
        "| model | parameters | rate | over dense | TinyStories | books | active share | ACs | MACs"
        " | energy (nJ) |"
    )
    legend = leaderboard_page.legend([(lines[0], {})])
    assert "**Energy**" in legend
    assert "**Training**" not in legend
    assert "**Event" not in legend


def test_a_row_that_read_fewer_texts_is_not_in_the_table(records):
    told = record(3.0, 0.9, 0.5, 0.1)
    del told["eval"]["books"]
    keep(records, "flow", 0.02, told)
    lines = leaderboard_page.measured(records, "6m")
    said = leaderboard_page.rates(records, lines)
    assert "Not evaluated on all texts: flow." in said
    assert "flow" not in said.partition("Not measured: ")[2]
    assert [line.row.name for line in lines] == [
        "dense",
        "spikegpt",
    ]


def test_the_faster_engine_is_drawn(records):
    dense, spikegpt = leaderboard_page.measured(records, "6m")
    assert (dense.fastest, spikegpt.fastest) == (900.0, 200.0)


def test_nothing_measured_is_no_page(tmp_path):
    given = ["render", "--results", str(tmp_path), "--page", str(tmp_path / "page.md")]
    with pytest.raises(SystemExit, match="no row has figures"):
        leaderboard.main(given)


def test_rows_without_the_dense_one_are_no_page(tmp_path):
    keep(Records(tmp_path), "flow", 0.02, record(3.0, 1.0, 1.0, None))
    given = ["render", "--results", str(tmp_path), "--page", str(tmp_path / "page.md")]
    with pytest.raises(SystemExit, match="6m: the row dense, which all are compared with"):
        leaderboard.main(given)
