"""Choosing a backend: the same verbs, the same directory, and refusals that say who can."""

import io
import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_text import write_text

from spikeloom import backends, presets
from spikeloom.backends import BACKENDS, Backend, check
from spikeloom.backends.numpy.decoder import Decoder
from spikeloom.checkpoint import resolve
from spikeloom.cli import main
from spikeloom.config import MIXERS, load_config
from spikeloom.errors import CheckpointError, ConfigError
from spikeloom.inference import plan
from spikeloom.inference.decoding import sample

TINY = [
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.num_key_value_heads=1",
    "model.intermediate_size=48",
    "tokenizer.vocab_size=261",
    "training.context=16",
    "training.batch_size=4",
    "training.checkpoint_every=4",
    "training.eval_tokens=128",
    "training.learning_rate=1e-2",
    "training.dead_zone_warmup=0",
]


INSTALLED = [name for name in BACKENDS if name != "mlx" or find_spec("mlx")]
LEARNERS = [
    "numpy",
    pytest.param("mlx", marks=[pytest.mark.mlx, pytest.mark.skipif(
        "mlx" not in INSTALLED, reason="needs `pip install 'spikeloom[mlx]'`"
    )]),
]  # fmt: skip


@pytest.fixture(params=LEARNERS)
def learner(request):
    """A backend that trains without PyTorch."""
    return request.param


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path / "cache"))
    return write_text(tmp_path / "text.jsonl")


def spikeloom(monkeypatch, capsys, *words):
    """What the command printed, and its exit code."""
    monkeypatch.setattr(sys, "argv", ["spikeloom", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    return left.value.code, said.out, said.err


def train(monkeypatch, capsys, text, out, *more, preset="spikeloom-1m", backend="numpy"):
    settings = [word for setting in TINY for word in ("--set", setting)]
    fixed = ["train", preset, "--data", text, "--out", out, "--backend", backend]
    return spikeloom(monkeypatch, capsys, *fixed, *settings, *more)


@pytest.mark.parametrize(
    ("preset", "optimizer"),
    [
        ("spikeloom-1m", "adamw"),
        ("spikeloom-1m", "muon"),
        ("spike-transformer", "adamw"),
        ("flow-15m", "adamw"),
    ],
)
def test_they_train_a_directory_that_every_backend_generates_from(
    preset, optimizer, learner, text, tmp_path, monkeypatch, capsys
):
    report = tmp_path / "report.json"
    more = ["--max-steps", 12, "--json", report, "--set", f"training.optimizer={optimizer}"]
    given = {"preset": preset, "backend": learner}
    code, _, said = train(monkeypatch, capsys, text, tmp_path / "run", *more, **given)
    assert code == 0, said
    found = json.loads(report.read_text())
    assert found["steps"] == 12
    assert found["tokens"] == 12 * 4 * 16
    assert found["eval_loss"] < 5.3  # it begins at ln(261) = 5.56
    assert 0 < found["eval_active_share"] <= 1
    texts = {}
    for backend in INSTALLED:
        asked = ["--prompt", "the c", "--max-new-tokens", 8, "--temperature", 0]
        words = ["generate", tmp_path / "run", *asked, "--backend", backend]
        code, texts[backend], said = spikeloom(monkeypatch, capsys, *words)
        assert code == 0, said
    assert len(set(texts.values())) == 1
    assert texts["numpy"].startswith("the c")


def test_the_best_weights_stay_and_are_measured_alike(learner, text, tmp_path, monkeypatch, capsys):
    from spikeloom.evaluation.checkpoint import load

    run = tmp_path / "run"
    code, *_ = train(monkeypatch, capsys, text, run, "--max-steps", 8, backend=learner)
    assert code == 0
    model, words = load(run)
    assert model.config.vocab_size == len(words)
    kept = json.loads((run / "training.json").read_text())
    assert kept["steps"] in (4, 8)
    from spikeloom.data.packing import TokenRows, pack

    rows = TokenRows(pack(text, words, part="eval"), 16, limit=8)
    ids = torch.stack([rows[i]["input_ids"] for i in range(len(rows))])
    with torch.no_grad():
        assert model(ids, labels=ids).loss.item() == pytest.approx(kept["eval_loss"], abs=1e-4)


def test_a_finished_run_is_not_overwritten(text, tmp_path, monkeypatch, capsys):
    for expected in (0, 2):
        code, _, said = train(monkeypatch, capsys, text, tmp_path / "run", "--max-steps", 1)
        assert code == expected
    assert "already holds a run" in said


def test_a_loss_that_is_no_number_ends_the_run(text, tmp_path, monkeypatch, capsys):
    broken = ["--max-steps", 30, "--set", "training.learning_rate=1e30"]
    with pytest.warns(RuntimeWarning):
        code, _, said = train(monkeypatch, capsys, text, tmp_path / "run", *broken)
    assert code == 2
    assert "the loss became nan" in said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--resume"], "--resume: the numpy backend cannot run it, use --backend torch"),
        (
            ["--set", "training.dtype=bfloat16"],
            "training.dtype=bfloat16: the numpy backend cannot run it, use --backend torch or mlx",
        ),
        (["--set", "training.compile=true"], "training.compile=True: the numpy backend"),
        (["--backend", "nunpy"], "--backend nunpy: unknown (did you mean 'numpy'?)"),
    ],
)
def test_what_is_missing_is_refused_in_one_line(more, says, tmp_path, monkeypatch, capsys):
    given = ["--max-steps", 1, *more]
    code, _, said = train(monkeypatch, capsys, "python-docs", tmp_path / "run", *given)
    assert code == 2
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_the_engine_lacks_the_model_decodes(text, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    hadamard = ["--set", "model.layers.0.mixer=sdsa_hadamard", "--max-steps", 1]
    code, _, said = train(monkeypatch, capsys, text, run, *hadamard)
    assert code == 0, said
    words = ["generate", run, "--prompt", "the", "--max-new-tokens", 3, "--temperature", 0]
    outs = []
    for backend, lines in (("torch", 1), ("numpy", 0)):
        code, out, said = spikeloom(monkeypatch, capsys, *words, "--backend", backend)
        assert code == 0
        assert said.count("no event-driven form of model.layers[0].mixer=sdsa_hadamard") == lines
        outs.append(out)
    assert outs[0] == outs[1]
    assert outs[0].startswith("the")


def widen_gains(checkpoint):
    """After a few steps gains are still about 1: of any size, so that leaving them out shows."""
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    for name in [name for name in weights if name.endswith("gain.widen")]:
        weights[name] = torch.randn(weights[name].shape, generator=torch.manual_seed(len(name)))
    save_file(weights, file, metadata={"format": "pt"})


def test_gains_are_trained_and_decoded_by_all(learner, text, tmp_path, monkeypatch, capsys):
    gains = ["--set", "model.neurons.default.gain_rank=4", "--max-steps", 4]
    code, _, said = train(monkeypatch, capsys, text, tmp_path / "run", *gains, backend=learner)
    assert code == 0, said
    widen_gains(resolve(tmp_path / "run"))
    asked = ["--prompt", "the c", "--max-new-tokens", 8, "--temperature", 0]
    words = ["generate", tmp_path / "run", *asked]
    texts = set()
    for backend in INSTALLED:
        code, out, said = spikeloom(monkeypatch, capsys, *words, "--backend", backend)
        assert code == 0, said
        assert "event-driven form" not in said
        texts.add(out)
    assert len(texts) == 1


def test_chat_keeps_the_state_between_turns_and_samples_alike(
    learner, text, tmp_path, monkeypatch, capsys
):
    run, report = tmp_path / "run", tmp_path / "turns.json"
    assert train(monkeypatch, capsys, text, run, "--max-steps", 2)[0] == 0
    said = {}
    for backend in ("torch", learner):
        monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\non the\n/reset\nmat\n/quit\n"))
        asked = ["--max-new-tokens", 5, "--temperature", 0.9, "--seed", 3, "--json", report]
        code, _, error = spikeloom(monkeypatch, capsys, "chat", run, *asked, "--backend", backend)
        assert code == 0, error
        turns = json.loads(report.read_text())["turns"]
        said[backend] = [(turn["user"], turn["answer"]) for turn in turns]
    assert [user for user, _ in said[learner]] == ["the cat", "on the", "mat"]
    assert said[learner] == said["torch"]


def test_a_package_that_is_missing_is_named_with_its_extra(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    for module in [name for name in sys.modules if name.startswith("spikeloom.backends.mlx")]:
        monkeypatch.delitem(sys.modules, module)
    given = ["--max-steps", 1]
    code, _, said = train(monkeypatch, capsys, text, tmp_path / "run", *given, backend="mlx")
    assert code == 2
    assert "mlx is not installed: pip install 'spikeloom[mlx]'" in said
    assert not (tmp_path / "run").exists()


def test_the_table_knows_what_the_engine_has():
    assert set(BACKENDS["torch"].decodes) == set(plan.MIXERS)
    assert BACKENDS["torch"].decodes_extras == plan.EXTRAS


def test_a_mixer_that_nobody_else_has_names_who_can(monkeypatch):
    monkeypatch.setitem(BACKENDS, "poor", Backend(None, "", mixers=("attention",)))
    run = load_config("spike-transformer")
    model = run.model
    with pytest.raises(ConfigError) as error:
        check("poor", model, run.training)
    assert str(error.value) == (
        "model.layers[0].mixer=sdsa: the poor backend cannot run it, "
        "use --backend torch or numpy or mlx"
    )
    for name in ("torch", "numpy", "mlx"):
        check(name, model)


def test_what_no_backend_has_is_said_so(monkeypatch):
    monkeypatch.setattr(backends, "BACKENDS", {"poor": Backend(None, "", mixers=MIXERS[:1])})
    run = load_config("spike-transformer")
    with pytest.raises(ConfigError, match="no backend has all that it needs"):
        check("poor", run.model, run.training)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_runs_or_is_refused_with_who_can(name):
    run = load_config(name)
    kinds = {neuron.kind for neuron in vars(run.model.neurons).values()}
    plain = "psn" not in kinds and not any(layer.extras for layer in run.model.layers)
    check("torch", run.model, run.training)
    for backend in ("numpy", "mlx"):
        if plain and not run.training.gradient_checkpointing:
            check(backend, run.model, run.training)
            continue
        says = f"the {backend} backend cannot run it, use --backend torch$"
        with pytest.raises(ConfigError, match=says):
            check(backend, run.model, run.training)


def test_a_rate_code_is_refused_and_not_left_out():
    """By whoever makes the model, too: not every way leads through the command line."""
    config = load_config("pulse-15m").model
    says = r"layers\[0\].mixer_rate: the numpy backend cannot run it, use --backend torch"
    with pytest.raises(ConfigError, match=says):
        Decoder(config, {})
    says = r"layers\[4\].spiking=False: the numpy"
    with pytest.raises(ConfigError, match=says):
        Decoder(load_config("hybrid-hierarchical").model, {})


def test_logits_that_are_no_numbers_choose_nothing():
    rng = np.random.default_rng(0)
    for temperature in (0.0, 1.0):
        with pytest.raises(CheckpointError, match="logits are NaN"):
            sample(np.array([1.0, np.nan]), temperature, 1.0, rng)
