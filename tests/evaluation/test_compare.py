import re
import time

import pytest
from tiny_models import build_model

from spikeloom import tokenizers
from spikeloom.config import ModelConfig, NeuronConfig
from spikeloom.errors import ConfigError, DataError
from spikeloom.evaluation import compare, speed
from spikeloom.model import dense_twin, quantised_twin


def test_rows_table_and_picture(checkpoints, source, tmp_path):
    rows = compare.compare(list(checkpoints.values()), source, speed_tokens=6, repeats=1)
    spiking, dense = rows
    assert [row["kind"] for row in rows] == ["spiking", "dense"]
    assert spiking["tokens"] == dense["tokens"]
    assert dense["gap_percent"] == 0.0
    expected = 100 * (spiking["perplexity"] / dense["perplexity"] - 1)
    assert spiking["gap_percent"] == pytest.approx(expected)
    assert spiking["active_share"] < dense["active_share"] == 1.0
    assert all(row["tokens_per_second"]["torch"] > 0 for row in rows)
    table = compare.to_markdown(rows)
    header, rule, *body = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in (header, rule, *body)}) == 1
    assert re.match(r"\| spiking \| spiking \| ", body[0])
    assert "*" not in body[0]
    assert "estimate" in header
    compare.to_png(rows, tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_different_tokenizers_compare_bits_per_byte_on_the_same_text(checkpoints, source, tmp_path):
    other = tmp_path / "other"
    build_model(vocab_size=264, max_position_embeddings=32).save_pretrained(other)
    tokenizers.train("char", ["éàù"], 264).save_pretrained(other)
    rows = compare.compare([checkpoints["dense"], other], source, max_tokens=120, speed=False)
    assert [row["comparable"] for row in rows] == [False, False]
    assert rows[0]["bytes"] == rows[1]["bytes"]
    assert rows[0]["tokens"] > rows[1]["tokens"]
    ratio = rows[1]["bits_per_byte"] / rows[0]["bits_per_byte"]
    assert rows[1]["gap_percent"] == pytest.approx(100 * (ratio - 1))
    table = compare.to_markdown(rows)
    assert f"{rows[1]['perplexity']:.2f}*" in table
    assert "not comparable" in table
    assert "decode" not in table.lower()
    with pytest.raises(DataError, match="first document is longer than 10 tokens"):
        compare.compare([checkpoints["dense"], other], source, max_tokens=10, speed=False)


def test_nothing_to_compare(source):
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare.compare([], source)


def test_kinds():
    spiking = ModelConfig()
    assert compare.kind(spiking) == "spiking"
    assert compare.kind(dense_twin(spiking)) == "dense"
    assert compare.kind(quantised_twin(spiking)) == "quantised"


def fake(delay, calls, name):
    def start():
        def step(token):
            calls.append((name, token))
            time.sleep(delay)
            return 0

        return step

    return start


def test_speed_alternates_and_leaves_out_prompt_and_first_round():
    calls = []
    contestants = {"slow": fake(0.004, calls, "slow"), "fast": fake(0.001, calls, "fast")}
    text = [1, 2, 3, 4, 5]
    speeds = speed.decode_speeds(contestants, dict.fromkeys(contestants, text), prompt=2, repeats=2)
    assert [name for name, token in calls if token == 1] == ["slow", "fast"] * 3
    assert speeds["slow"] < 250 < speeds["fast"] < 1000
    with pytest.raises(DataError, match="too few"):
        speed.decode_speeds(contestants, {"slow": [1], "fast": [1, 2]})


def test_engines():
    model = build_model()
    text = list(range(5, 17))
    assert speed.decode_speed(model, text, repeats=1) > 0
    with pytest.raises(ConfigError, match="did you mean 'torch'"):
        speed.engine("torhc", model)


def test_the_event_engine_says_the_same_as_torch():
    model = build_model(neurons=ModelConfig().neurons)
    assert isinstance(ModelConfig().neurons.head, NeuronConfig)
    one, other = (speed.engine(name, model)() for name in ("torch", "event"))
    assert [one(token) for token in range(5, 20)] == [other(token) for token in range(5, 20)]
