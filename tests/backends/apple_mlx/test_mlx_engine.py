"""One token at a time, checkpoints both ways, and 4 or 8 bits."""

import json
import sys

import numpy as np
import pytest
import torch

mx = pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")

from mlx.utils import tree_flatten  # noqa: E402
from parity import NAMES, small_model, tokens_of, weights_of  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from spikeloom.backends.mlx import checkpoint, quantize  # noqa: E402
from spikeloom.backends.mlx.engine import Engine, State  # noqa: E402
from spikeloom.backends.numpy.recurrent import Engine as NumpyEngine  # noqa: E402
from spikeloom.errors import CheckpointError, ConfigError  # noqa: E402

pytestmark = pytest.mark.mlx


@pytest.fixture(params=NAMES)
def model(request):
    return small_model(request.param, torch.float32).eval()


def engine_of(model):
    return Engine(checkpoint.from_numpy(model.config.architecture, weights_of(model)))


def test_token_by_token_says_what_all_at_once_says(model):
    engine, tokens = engine_of(model), tokens_of(model, 1, 14)
    whole = np.array(engine.model(mx.array(tokens)))[0]
    one, chunks = engine.new_state(), engine.new_state()
    logits = [engine.step(int(token), one) for token in tokens[0]]
    np.testing.assert_allclose(np.stack(logits), whole, atol=1e-4)
    engine.prefill(tokens[0, :6].tolist(), chunks)  # what came before, in pieces
    engine.prefill(tokens[0, 6:13].tolist(), chunks)
    np.testing.assert_allclose(engine.step(int(tokens[0, 13]), chunks), whole[-1], atol=1e-4)
    assert one.position == chunks.position == 14
    assert one.active_share == pytest.approx(chunks.active_share, abs=1e-6)
    theirs = NumpyEngine(engine.config, weights_of(model))
    state = theirs.new_state()
    for token in tokens[0]:
        theirs.step(int(token), state)
    assert one.active_share == pytest.approx(state.active_share, abs=1e-6)


def test_a_long_prompt_is_read_in_pieces(monkeypatch):
    engine = engine_of(small_model("gated sdsa", torch.float32))
    prompt = list(range(20))
    expected = list(engine.generate(prompt, 6))
    monkeypatch.setattr("spikeloom.backends.mlx.engine.PREFILL", 4)
    assert list(engine.generate(prompt, 6)) == expected


@pytest.mark.slow
def test_a_compiled_step_is_the_same_step(compiled):
    engine = engine_of(small_model("sdsa", torch.float32))
    plain, state = engine.new_state(), engine.new_state()
    compiled_engine = engine_of(small_model("sdsa", torch.float32))
    compiled_engine._step = mx.compile(compiled_engine._forward)
    for token in (5, 6, 7, 8):
        np.testing.assert_allclose(
            compiled_engine.step(token, state), engine.step(token, plain), atol=1e-5
        )


@pytest.mark.parametrize("name", ["gated sdsa", "hadamard", "spike-transformer"])
def test_the_state_stays_of_one_size(name):
    engine = engine_of(small_model(name, torch.float32))
    state, sizes = engine.new_state(), set()
    for token in (5, 6, 7, 8):
        engine.step(token, state)
        sizes.add(state.nbytes)
    assert len(sizes) == 1
    assert sizes.pop() > 0


def test_a_window_keeps_no_more_than_it_reads():
    engine = engine_of(small_model("membrane, soft reset", torch.float32))
    state = engine.new_state()
    engine.prefill(list(range(8)), state)
    assert state.cache[0].arrays["keys"].shape[-2] == 3


def test_a_copied_state_goes_its_own_way():
    engine = engine_of(small_model("membrane, soft reset", torch.float32))
    state = engine.new_state()
    engine.prefill([5, 6, 7], state)
    twin: State = state.copy()
    engine.prefill([9, 9], twin)
    other = engine.new_state()
    engine.prefill([5, 6, 7], other)
    np.testing.assert_array_equal(engine.step(8, state), engine.step(8, other))
    assert (state.position, twin.position) == (4, 5)


def test_checkpoints_go_both_ways(model, tmp_path):
    model.save_pretrained(tmp_path / "torch")
    ours = checkpoint.load(tmp_path / "torch")
    (tmp_path / "mlx").mkdir()
    checkpoint.save(tmp_path / "mlx", ours)
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "mlx")
    assert back.config.architecture == model.config.architecture
    assert back.dtype == torch.float32
    for name, expected in weights_of(model).items():
        np.testing.assert_array_equal(back.state_dict()[name].numpy(), expected, err_msg=name)


def test_bfloat16_weights_are_read_and_written_as_they_are(tmp_path):
    model = small_model("spikeloom-1m", torch.bfloat16).eval()
    model.save_pretrained(tmp_path / "torch")
    ours = checkpoint.load(tmp_path / "torch")
    assert {w.dtype for _, w in tree_flatten(ours.parameters())} == {mx.bfloat16}
    (tmp_path / "mlx").mkdir()
    checkpoint.save(tmp_path / "mlx", ours)
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "mlx")
    assert back.dtype == torch.bfloat16
    for name, p in model.named_parameters():
        assert torch.equal(back.state_dict()[name], p), name
    assert mx.isfinite(ours(mx.array(tokens_of(model, 1, 9)))).all()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.decoder.norm.weight", "model.decoder.norm.weight is missing"),
        ("foreign", "foreign is (3,), config.json asks for nothing of that name"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name, says, tmp_path):
    model = small_model("spikeloom-1m", torch.float32)
    model.save_pretrained(tmp_path)
    weights = checkpoint.read_weights(tmp_path)
    weights = weights | {name: mx.zeros(3)} if name == "foreign" else weights
    weights = {k: v for k, v in weights.items() if name == "foreign" or k != name}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(tmp_path)
    assert says in str(error.value)


def test_fewer_bits_say_nearly_the_same(make_run, tmp_path, monkeypatch, capsys):
    run, errors, sizes = make_run("sdsa"), {}, {}
    whole, tokens = Engine.load(run), mx.array([[3, 50, 60, 70, 80]])
    for bits in (4, 8):
        out = tmp_path / f"bits{bits}"
        given = ["quantize", str(run), str(out), "--bits", str(bits), "--group-size", "32"]
        monkeypatch.setattr(sys, "argv", given)
        quantize.main()
        assert "MB to" in capsys.readouterr().out
        small = Engine.load(out)
        assert len(list(small.generate([3, 50], 5))) == 5
        assert (out / "tokenizer.json").exists()
        sizes[bits] = quantize.nbytes(small.model) / quantize.nbytes(whole.model)
        errors[bits] = mx.abs(small.model(tokens) - whole.model(tokens)).mean().item()
    assert sizes[4] < sizes[8] < 0.45
    assert 0 < errors[8] < errors[4]


def test_pytorch_and_numpy_refuse_a_quantised_checkpoint_in_one_line(make_run, tmp_path):
    from spikeloom import backends

    quantize.quantize_checkpoint(make_run("sdsa"), tmp_path / "small", bits=8, group_size=32)
    for backend in ("torch", "numpy"):
        with pytest.raises(ConfigError) as error:
            backends.generator(backend, tmp_path / "small")
        assert "quantization={'group_size': 32, 'bits': 8}" in str(error.value)
        assert str(error.value).endswith(f"the {backend} backend cannot run it, use --backend mlx")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bits": 5}, "--bits 5: expected one of 4, 8"),
        ({"group_size": 48}, "--group-size 48: expected one of 32, 64, 128"),
        ({"group_size": 64}, "model.hidden_size=32 does not divide into groups of 64: use --gr"),
    ],
)
def test_what_cannot_be_quantised_is_refused(given, says, make_run, tmp_path):
    with pytest.raises(ConfigError) as error:
        quantize.quantize_checkpoint(make_run("sdsa"), tmp_path / "small", **given)
    assert says in str(error.value)
    assert not (tmp_path / "small").exists()


def test_nothing_is_quantised_twice(make_run, tmp_path):
    run, small = make_run("sdsa"), tmp_path / "small"
    quantize.quantize_checkpoint(run, small, group_size=32)
    with pytest.raises(CheckpointError, match="is not an empty directory"):
        quantize.quantize_checkpoint(run, small, group_size=32)
    with pytest.raises(CheckpointError, match="is not an empty directory"):
        quantize.quantize_checkpoint(run, run / "config.json", group_size=32)
    with pytest.raises(CheckpointError, match="is quantised already"):
        quantize.quantize_checkpoint(small, tmp_path / "smaller", group_size=32)


def test_a_broken_quantization_entry_is_refused(make_run):
    run = make_run("sdsa")
    tree = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**tree, "quantization": {"bits": 4}}))
    with pytest.raises(CheckpointError, match="expected group_size and bits"):
        checkpoint.load(run)
