"""The parts of `spikeloom bench decode`: shares are met, peers are checked, memory stays."""

import math

import numpy as np
import pytest
import torch
from small_models import build

from spikeloom.bench import batch, decode, decode_check, decode_graph, picture
from spikeloom.bench.contenders import Spiking
from spikeloom.bench.engine_memory import memory_row, small_model
from spikeloom.bench.flow_twin import check, flow_twin
from spikeloom.bench.rows import Row
from spikeloom.bench.timing import Timing
from spikeloom.config import load_config
from spikeloom.errors import ConfigError, SpikeloomError
from spikeloom.inference.engine import Engine
from spikeloom.inference.graph_step import GraphStep
from spikeloom.model.sizes import describe, random_model


def test_a_factor_sets_the_share():
    spiking = Spiking(small_model(), "int8")
    for share, factor in spiking.factors((0.1, 0.3)).items():
        contender = spiking.at(factor)
        contender.ready()
        assert spiking._share() == pytest.approx(share, rel=0.1)


def test_shares_keep_states_of_their_own():
    spiking = Spiking(small_model(), "float32")
    sparse, plain = spiking.at(4.0), spiking.at(1.0)
    alone = Engine.from_model(small_model())
    for token in (5, 6, 7):
        sparse.ready()
        sparse.step(token)
        plain.ready()
        assert torch.equal(plain.step(token), alone.step(token))


class Mimic:
    """A peer that computes what our engine does, times a factor."""

    name = "mimic"

    def __init__(self, twin, factor):
        self.engine, self.factor = Engine.from_model(twin), factor

    def reset(self):
        self.engine.reset()

    def __call__(self, token: int) -> np.ndarray:
        return self.factor * self.engine.step(token).numpy()


def test_a_peer_that_computes_something_else_is_refused():
    twin = flow_twin(small_model().config.architecture)
    honest = Mimic(twin, 1.0)
    check(honest, twin, 1e-4)
    assert honest.engine.state.position == 0
    with pytest.raises(SpikeloomError, match=r"mimic: logits are 0\.5 off"):
        check(Mimic(twin, 0.5), twin, 0.1)


@pytest.mark.parametrize("size", decode.SIZES)
def test_the_peers_twin_has_as_many_weights(size):
    config = load_config(f"spikeloom-{size}").model
    with torch.device("meta"):
        ours = describe(random_model(f"spikeloom-{size}"))
        theirs = describe(flow_twin(config))
    assert theirs["weights_in_products"] == ours["weights_in_products"]
    assert theirs["parameters"] == pytest.approx(ours["parameters"], rel=0.01)


def test_rows_and_targets_and_picture(tmp_path):
    names = [*map(str, decode.SHARES), decode.IN_TORCH, decode.IN_OURS]
    times = {name: Timing(1.0 + i, 0.1) for i, name in enumerate(names)}
    times["llama.cpp Q4_0 (llama-cpp-python 1.0)"] = Timing(20.0, 0.1)
    rows = decode.to_rows("15m", "int8", times)
    targets = {row.peer_name: row.target for row in rows if row.target is not None}
    assert targets == {decode.IN_TORCH: 2.0, "llama.cpp Q4_0 (llama-cpp-python 1.0)": 1.0}
    assert len(rows) == 2 * len(decode.SHARES) + 1
    picture("decode")(rows, tmp_path / "made" / "curve.png")
    assert (tmp_path / "made" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_only_decode_draws():
    with pytest.raises(ConfigError, match="'lif' has none"):
        picture("lif")


def test_the_crossing_is_where_dense_wins_for_good():
    def rows(*ratios):
        sizes = zip(batch.BATCHES, ratios, strict=True)
        return {b: Row("a", "cpu", 1.0, ratio, "dense", "ms") for b, ratio in sizes}

    assert batch.crossing(rows(4, 2, 1.1, 0.9, 0.5)) == 8
    assert batch.crossing(rows(0.9, 2, 1.1, 1.2, 1.5)) == math.inf
    assert batch.crossing(rows(0.9, 0.8, 0.7, 0.6, 0.5)) == 1


PROMPT = list(range(3, 15))


class Tampered(GraphStep):
    """Adds a little to what each token says."""

    share = 0.002

    def _run(self):
        super()._run()
        self.logits.add_(self.share * self.logits.roll(1))


@pytest.mark.parametrize("name", ["mixed", "attention"])
def test_a_step_is_compared_from_the_same_state(name, monkeypatch):
    config = build(name).config
    said = decode_check.check_in_float32(config, PROMPT, False, "cpu")
    assert "off by 0.0e+00, a flip in 0% of tokens" in said
    forms = {2: GraphStep, 4: Tampered}  # by the number of arguments: reference, and ours
    monkeypatch.setattr(decode_check, "GraphStep", lambda *given: forms[len(given)](*given))
    with pytest.raises(RuntimeError, match=r"off by 0\.002, in 100% of tokens"):
        decode_check.check_in_float32(config, PROMPT, False, "cpu")


def test_bfloat16_may_be_as_far_from_float32_as_its_model():
    model = build("mixed").bfloat16()
    assert "those of the model" in decode_check.check_in_bfloat16(GraphStep(model, 12), PROMPT)
    step = Tampered(model, 12)
    step.share = 1.0
    with pytest.raises(RuntimeError, match="off float32's, those of the model only"):
        decode_check.check_in_bfloat16(step, PROMPT)


def test_a_captured_step_is_timed_at_a_share_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(decode_graph, "TURN", 4)
    monkeypatch.setattr(decode_graph, "TURNS", 2)
    plain = decode_graph.Contender(GraphStep(build("attention"), 16), PROMPT)
    sparse = plain.near(0.1)
    assert plain.share() > sparse.share() == pytest.approx(0.1, abs=0.05)
    times = decode_graph.in_turns({"plain": plain, "sparse": sparse})
    assert all(time.ms > 0 for time in times.values())
    assert plain.share() > 0.2  # payload steps are those of the contender


def test_event_driven_decoding_meets_the_best_form_of_the_twin(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for name, value in {"DEVICE": "cpu", "PROMPT": 4, "TURN": 2, "TURNS": 2}.items():
        monkeypatch.setattr(decode_graph, name, value)
    rows = list(decode_graph.compare("spikeloom-1m", compiled=False))
    assert ["event-driven" in row.case for row in rows] == [False, True, True, True]
    best = rows[1].peer
    assert {row.peer for row in rows[1:]} == {best}
    assert best <= rows[0].peer
    assert all(row.target is None for row in rows)


@pytest.mark.slow
def test_memory_is_constant_over_200_000_tokens():
    assert memory_row().ratio >= 0.99
