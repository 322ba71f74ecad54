"""One token at a time, event-driven: what all tokens at once say, and what PyTorch generates."""

import numpy as np
import pytest
from parity import NAMES, greedy_tokens, small_model, tokens_of, weights_of

from spikeloom.backends.numpy.decoder import Decoder
from spikeloom.backends.numpy.recurrent import Engine, compiled, selected
from spikeloom.backends.weights import fed_shares


@pytest.fixture(params=NAMES)
def model(request):
    return small_model(request.param).eval()


def engine_of(model, product=selected):
    return Engine(model.config.architecture, weights_of(model), product)


def test_token_by_token_says_what_all_at_once_says(model):
    engine = engine_of(model)
    state, tokens = engine.new_state(), tokens_of(model, 1, 14)
    expected = Decoder(engine.config, engine.w).forward(tokens)
    logits = np.stack([engine.step(int(token), state) for token in tokens[0]])
    np.testing.assert_allclose(logits, expected.logits[0], atol=1e-9)
    share = np.dot([*expected.rates, 1.0], fed_shares(engine.config))
    assert state.active_share == pytest.approx(share, abs=1e-12)


def test_greedy_tokens_are_those_of_pytorch(model):
    prompt = tokens_of(model, 1, 5)
    expected = greedy_tokens(model, prompt)
    found = list(engine_of(model).generate(prompt[0].tolist(), max_new_tokens=12))
    assert found == expected


@pytest.mark.parametrize("name", ["sdsa", "gated sdsa", "hadamard", "spike-transformer"])
def test_the_state_stays_of_one_size(name):
    engine = engine_of(small_model(name))
    state, sizes = engine.new_state(), []
    for token in (5, 6, 7, 8):
        engine.step(token, state)
        sizes.append({key: value.shape for key, value in state.memory.items()})
    assert all(size == sizes[0] for size in sizes)
    assert len(sizes[0]) >= 2


def test_a_window_keeps_no_more_than_it_reads():
    engine = engine_of(small_model("membrane, soft reset"))
    state = engine.new_state()
    for token in range(6):
        engine.step(token, state)
    assert state.memory["model.decoder.layers.0.blocks.0.mixer.keys"].shape[-2] == 3


def test_sessions_do_not_mix():
    engine = engine_of(small_model("sdsa"))
    alone = [engine.step(token, state) for state in [engine.new_state()] for token in (3, 4, 5)]
    one, other = engine.new_state(), engine.new_state()
    for token, expected in zip((3, 4, 5), alone, strict=True):
        np.testing.assert_array_equal(engine.step(token, one), expected)
        engine.step(9, other)


def test_generation_stops_samples_and_repeats_itself():
    engine = engine_of(small_model("sdsa"))
    greedy = list(engine.generate([3, 4], max_new_tokens=8))
    assert (
        list(engine.generate([3, 4], max_new_tokens=8, stops=[greedy[2]]))
        == (greedy[: greedy.index(greedy[2]) + 1])
    )
    hot = [list(engine.generate([3], 20, temperature=5.0, seed=seed)) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    assert list(engine.generate([3, 4], 8, temperature=5.0, top_p=1e-6, seed=1)) == greedy


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_only_rows_that_fired_are_read(rate):
    rng = np.random.default_rng(0)
    y = rng.standard_normal(64) * (rng.random(64) < rate)
    rows = rng.standard_normal((64, 40))
    expected = y @ rows
    rows[y == 0] = np.nan
    np.testing.assert_allclose(selected(y, rows), expected, atol=1e-12)


def test_numba_equals_row_selection():
    pytest.importorskip("numba")
    product = compiled()
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        y = (rng.standard_normal(64) * (rng.random(64) < 0.3)).astype(dtype)
        rows = rng.standard_normal((64, 40)).astype(dtype)
        rows[y == 0] = np.nan
        found = product(y, rows)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, selected(y, rows), rtol=1e-4, atol=1e-6)


def test_without_numba_rows_are_selected(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    assert compiled() is None
    model = small_model("sdsa")
    assert Engine(model.config.architecture, weights_of(model)).event_product is selected
