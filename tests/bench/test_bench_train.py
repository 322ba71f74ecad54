"""The training benchmark on a model that is no figure: rows come one by one, and are all there."""

from itertools import islice

import pytest

from spikeloom.bench import train
from spikeloom.bench.options import Options

TINY = (
    "model.vocab_size=300",
    "model.hidden_size=32",
    "model.num_hidden_layers=1",
    "model.num_attention_heads=2",
    "model.intermediate_size=32",
    "model.max_position_embeddings=32",
    "tokenizer.vocab_size=300",
    "training.batch_size=2",
    "training.gradient_accumulation=1",
    "training.target_active_share=0.2",
    "training.num_workers=0",
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    preset = train.load_config
    monkeypatch.setattr(train, "load_config", lambda name, more: preset(name, [*TINY, *more]))
    monkeypatch.setattr(train, "BLOCKS", 3)
    monkeypatch.setattr(train, "python_docs", lambda: ["few words make a text when drawn again"])


def test_every_row():
    speed, trainer, rate_loss = train.run("cpu", Options())
    assert [row.target for row in (speed, rate_loss, trainer)] == [0.75, 0.98, 0.9]
    assert [row.peer_name for row in (speed, rate_loss)] == [
        "dense twin",
        "without the firing-rate loss",
    ]
    assert min(speed.ours, speed.peer, rate_loss.peer, trainer.ours) > 0
    assert trainer.peer == speed.ours


def test_in_a_hurry_only_the_dense_twin():
    (row,) = train.run("cpu", Options(quick=True))
    assert row.peer_name == "dense twin"


def test_the_first_row_does_not_wait_for_the_others(monkeypatch):
    monkeypatch.setattr(train, "trainer_speed", lambda *_: pytest.fail("too early"))
    assert len(list(islice(train.run("cpu", Options()), 1))) == 1
