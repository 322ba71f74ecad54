"""Plans of research/sweeps are ones that `spikeloom train` takes; pictures find their runs."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from spikeloom.config import load_config
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, products
from spikeloom.training.twin import twin_of

RESEARCH = Path(__file__).parents[2] / "research"
PLANS = sorted((RESEARCH / "sweeps").glob("*.yaml"))


def script(name):
    specification = importlib.util.spec_from_file_location(name, RESEARCH / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses ask for it
    specification.loader.exec_module(module)
    return module


sweep, frontier, touched = (script(name) for name in ("sweep", "frontier", "touched"))


@pytest.mark.parametrize("file", PLANS, ids=lambda file: file.stem)
def test_a_plan_is_made_of_configs_that_load(file):
    for run in sweep.read_plan(file):
        config = twin_of(load_config(run.preset, run.settings), run.twin)
        assert config.model.spiking == (run.twin != "dense")


def test_a_run_waits_only_for_those_before_it(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("preset: spikeloom-1m\nmax_tokens: 8\nruns: {a: {teacher: b}, b: {}}\n")
    with pytest.raises(SystemExit, match="a needs b, which does not stand before it"):
        sweep.read_plan(plan)


PLAN = "preset: spikeloom-1m\nmax_tokens: 8\nruns: {a: {}, b: {teacher: a}, c: {}}\n"


def swept(tmp_path, monkeypatch, *more, fails="a"):
    """The runs that `run` made of PLAN, where training the one that fails ends badly."""

    def call(self, command, log, gpu):
        name = Path(command[command.index("--json") + 1]).name.split(".")[0]
        if name == fails:
            return False
        (tmp_path / "work" / name).mkdir(exist_ok=True)
        (tmp_path / "work" / name / sweep.WEIGHTS).touch()
        report = {"eval_loss": 1.0, "eval_active_share": 0.5, "tokens": 8}
        Path(command[command.index("--json") + 1]).write_text(json.dumps(report))
        return True

    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.setattr(sweep.Sweep, "_call", call)
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    asked = ["sweep.py", "run", str(tmp_path / "plan.yaml"), "--data", "x", "--eval-data", "y"]
    monkeypatch.setattr(sys, "argv", [*asked, *places, *more])
    sweep.main()


def test_what_needs_a_run_that_failed_is_not_begun(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="not done: a, b"):
        swept(tmp_path, monkeypatch)
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["c.json"]
    swept(tmp_path, monkeypatch, fails=None)  # the others are made up for
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_run_that_the_plan_has_not_is_refused(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="has no run d"):
        swept(tmp_path, monkeypatch, "--only", "d")


def test_a_twin_differs_in_one_word():
    rows = dict.fromkeys(("dense-m10", "from-dense-m5", "s20-m10", "from-s20-m5", "f4-s20-m10"))
    twins = {name: sweep.twin_name(name, rows) for name in rows}
    assert twins["s20-m10"] == "dense-m10"
    assert twins["from-s20-m5"] == "from-dense-m5"
    assert twins["f4-s20-m10"] is None


def test_gaps_are_those_of_the_runs():
    series = {s.label: s for s in frontier.SERIES}["125m, 24 M tokens (line), 36 M"]
    (of_scaling, spiking_of_scaling), (dense, spiking) = series.runs.items()
    first, _ = frontier.points(of_scaling, spiking_of_scaling)  # from a JSON of another form
    assert first[1:] == pytest.approx((0.287, 9.99), abs=0.01)
    ((_, share, gap),) = frontier.points(dense, spiking)
    one, other = (
        json.loads((frontier.RUNS / f"{n}.json").read_text())["train"] for n in (*spiking, dense)
    )
    assert share == one["eval_active_share"]
    ratio = one["eval_loss"] - other["eval_loss"]
    assert ratio < gap / 100 < ratio + ratio**2  # exp(x) - 1 of a small x
    for series in frontier.SERIES:
        for runs in series.runs.items():
            assert all(0 < share < 0.5 for _, share, _ in frontier.points(*runs))


def test_weights_touched_are_those_that_eval_reports():
    file = touched.MUON[0] / "s20-m20.json"
    reported = json.loads(file.read_text())["texts"]["tinystories"]
    assert touched.WEIGHTS["6m"] == reported["synops"]["weights"]
    share = reported["synops"]["weights_touched"] / reported["synops"]["weights"]
    assert share == pytest.approx(reported["active_share"], rel=1e-6)
    for runs in touched.PANELS.values():
        points = [touched.point(*run) for run in runs]
        assert {p.share == 1 for p in points} == {True, False}


@pytest.mark.parametrize("drawn", [frontier, touched], ids=lambda module: module.__name__)
def test_scripts_that_draw_say_what_they_take(drawn, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    with pytest.raises(SystemExit) as ended:
        drawn.main()
    assert ended.value.code == 0
    assert "FILE" in capsys.readouterr().out


@pytest.mark.parametrize("size", touched.WEIGHTS)
def test_weights_are_those_of_the_products(size):
    preset, settings = f"spikeloom-{size}", ["model.vocab_size=4096"]
    if size == "50m":
        plan = yaml.safe_load((RESEARCH / "scaling.yaml").read_text("utf-8"))
        preset, settings = plan["sizes"][size]["preset"], plan["sizes"][size]["settings"]
    elif not size.endswith("m"):  # no preset has it
        runs = {run.name: run for run in sweep.read_plan(RESEARCH / "sweeps/touched.yaml")}
        preset, settings = "spikeloom-6m", runs[f"dense-{size}-m20"].settings
    config = load_config(preset, list(settings))
    with torch.device("meta"):
        model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(config.model))
    assert touched.WEIGHTS[size] == sum(product.weights for product in products(model))


def test_a_table_of_one_text(tmp_path, capsys):
    for name, loss in (("dense-a", 2.0), ("s20-a", 2.1)):
        on_text = {"loss": loss, "active_share": 0.5}
        train = {"tokens": 5_000_000, "eval_loss": 7.0, "eval_active_share": 0.9}
        run = {"name": name, "train": train, "texts": {"stories": on_text}}
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
    sweep.table(tmp_path, "stories")
    assert "| s20-a | 5 M | 2.100 | 8.17 | +10.5% | 0.500 |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="dense-a: was evaluated on stories"):
        sweep.table(tmp_path, "books")
