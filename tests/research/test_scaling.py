"""Scaling runs are shared out whole, finished ones are skipped, and fits find the law."""

import argparse
import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from spikeloom.config import load_config

FILE = Path(__file__).parents[2] / "research/scaling.py"
specification = importlib.util.spec_from_file_location("scaling", FILE)
scaling = importlib.util.module_from_spec(specification)
sys.modules["scaling"] = scaling  # dataclasses ask for it
specification.loader.exec_module(scaling)
PLAN = yaml.safe_load(FILE.with_suffix(".yaml").read_text("utf-8"))


def test_shares_are_the_whole_list_and_about_equal():
    runs = scaling.points(PLAN)
    assert len({run.name for run in runs}) == len(runs)
    shares = [scaling.shard(runs, i, 4) for i in (1, 2, 3, 4)]
    assert Counter(run for share in shares for run in share) == Counter(runs)
    seconds = [sum(run.seconds for run in share) for share in shares]
    assert max(seconds) - min(seconds) < 0.1 * max(seconds)


def test_every_run_of_the_plan_is_a_config_and_sizes_grow():
    options = argparse.Namespace(
        data="d", eval_data="e", runs=Path("r"), tokenizer=None, settings=[], compile="true"
    )
    widths = []
    for run in scaling.points(PLAN):
        line = scaling.command(run, PLAN, options)
        settings = [line[i + 1] for i, word in enumerate(line) if word == "--set"]
        config = load_config(line[4], settings)
        assert (config.model.vocab_size, config.model.max_position_embeddings) == (4096, 512)
        assert config.training.batch_size * config.training.gradient_accumulation == 32
        assert ("dense" in line) == (run.family == "dense")
        assert config.training.compile
        widths.append(config.model.hidden_size)
    assert widths == sorted(widths)
    assert len(set(widths)) == 5


def test_finished_runs_are_skipped_and_so_is_what_takes_too_long(tmp_path, monkeypatch, capsys):
    plan = tmp_path / "plan.yaml"
    sizes = {"s": {"preset": "spikeloom-1m", "speed": 1000, "settings": []}}
    plan.write_text(yaml.safe_dump({"tokens": [1000, 900_000], "sizes": sizes}))
    (tmp_path / "s-dense-1k.json").write_text("{}")
    ran = []
    monkeypatch.setattr(scaling, "command", lambda run, plan, options: [run.name])
    monkeypatch.setattr(scaling, "figures", lambda directory, run, line: {"run": run.name})
    monkeypatch.setattr(
        scaling.subprocess, "run",
        lambda line, check: ran.append(*line) or argparse.Namespace(returncode=0),
    )  # fmt: skip
    words = ["train", "--data", "d", "--eval-data", "e", "--runs", "r", "--seconds-left", "300"]
    given = scaling.parser().parse_args([*words, "--out", str(tmp_path), "--plan", str(plan)])
    given.do(given)
    assert ran == ["s-spiking-1k"]
    assert json.loads((tmp_path / "s-spiking-1k.json").read_text()) == {"run": "s-spiking-1k"}
    assert "skipped s-dense-900k" in capsys.readouterr().out


@pytest.mark.parametrize("share", ["0/4", "5/4", "1", "a/b"])
def test_impossible_shares_are_refused(share):
    with pytest.raises(argparse.ArgumentTypeError, match="i/n"):
        scaling._share(share)


def test_runs_that_do_not_determine_the_law_are_told_from_those_that_do():
    pytest.importorskip("scipy")
    law = np.array([np.log(1.8), np.log(0.9), 0.35, np.log(0.7), 0.3])
    sizes = [(N, D) for N in (1e6, 1e7, 1e8) for D in (8e6, 8e7)]

    def fit(loss_of):
        runs = [
            {"parameters": N, "tokens": D, "loss": float(loss_of(np.array([N]), np.array([D]))[0])}
            for N, D in sizes
        ]
        return scaling.fitted(runs, "parameters")["at_bounds"]

    assert fit(lambda N, D: scaling.predict(law, N, D)) == []
    assert "a" in fit(lambda N, D: 2.0 + 0.5 * (D / 1e7) ** -0.3)  # parameters change nothing


def test_too_few_runs_are_refused(tmp_path):
    for words in (["fit", str(tmp_path)], ["draw", str(tmp_path), str(tmp_path / "a.png")]):
        given = scaling.parser().parse_args(words)
        with pytest.raises(SystemExit, match="0 runs are too few"):
            given.do(given)


def test_fits_find_the_law_that_made_the_losses(tmp_path, capsys):
    pytest.importorskip("scipy")
    laws = {"dense": [1.8, 0.9, 0.35, 0.7, 0.3], "spiking": [1.8, 1.1, 0.3, 0.8, 0.3]}
    for family, (E, A, a, B, b) in laws.items():
        x = np.array([np.log(E), np.log(A), a, np.log(B), b])
        for N in (1e6, 5e6, 1.4e7, 5e7, 1e8):
            for D in (8e6, 2.4e7, 7.2e7):
                loss = float(scaling.predict(x, np.array([N]), np.array([D]))[0])
                run = {"family": family, "size": f"{N:.0f}", "tokens": D, "loss": loss}
                run |= {"parameters": N * 1.1, "parameters_without_embedding": N}
                (tmp_path / f"{N:.0f}-{family}-{D // 1000:.0f}k.json").write_text(json.dumps(run))
    out = tmp_path / "fit.json"
    words = ["fit", str(tmp_path), "--bootstrap", "4", "--json", str(out)]
    given = scaling.parser().parse_args(words)
    given.do(given)
    found = json.loads(out.read_text())["parameters_without_embedding"]
    for family, law in laws.items():
        assert [found[family][n][0] for n in "EAaBb"] == pytest.approx(law, rel=0.02)
        assert found[family]["rms_residual"] < 1e-3
    beyond = [line for line in capsys.readouterr().out.splitlines() if "beyond" in line]
    assert all(" to " in line for line in beyond)
    assert len(beyond) == 2
    picture = tmp_path / "scaling.png"
    given = scaling.parser().parse_args(["draw", str(tmp_path), str(picture)])
    given.do(given)
    assert picture.read_bytes().startswith(b"\x89PNG")
