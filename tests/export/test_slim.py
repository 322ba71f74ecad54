"""A slim checkpoint: half the bytes, the same model to every engine."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from placeholder import make_checkpoint
from spikeloom import backends
from spikeloom.errors import CheckpointError
from spikeloom.evaluation.checkpoint import load
from spikeloom.evaluation.verify import verify
from spikeloom.export.slim import slim
from spikeloom.inference.engine import Engine
from spikeloom.inference.generate import Sampling

GREEDY = Sampling(temperature=0.0, max_new_tokens=12)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def slimmed(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("slim") / "new"
    slim(trained, out)
    return out


def test_what_is_written(trained, slimmed):
    names = {file.name for file in slimmed.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "run.json"}
    assert not names & {"optimizer.pt", "trainer_state.json"}
    with safe_open(slimmed / "model.safetensors", "pt") as archive:
        assert {archive.get_slice(name).get_dtype() for name in archive.keys()} == {"BF16"}  # noqa: SIM118
    for name in ("tokenizer.json", "training.json"):
        assert (slimmed / name).read_bytes() == (trained / name).read_bytes()


def test_the_record_of_the_run_goes_along_without_places(trained, slimmed):
    before, after = (json.loads((d / "run.json").read_text()) for d in (trained, slimmed))
    assert before["data"] == "/home/me/stories.jsonl,hub:me/tales"
    assert after == before | {"data": "stories.jsonl,tales"}
    assert all(file.stat().st_mode & 0o044 for file in slimmed.iterdir())


def test_only_the_weights_are_rounded(trained, slimmed):
    before, after = load(trained)[0], load(slimmed)[0]
    for (name, ours), theirs in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(ours.bfloat16().float(), theirs), name


def test_all_engines_agree(slimmed):
    model, words = load(slimmed)
    ids = [words.bos_token_id, *words.encode("Max sat", add_special_tokens=False)]
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(Engine.load(slimmed).prefill(ids), wanted, atol=1e-4, rtol=0)
    event = "".join(backends.generator("torch", slimmed).stream("Max sat", GREEDY))
    numpy = "".join(backends.generator("numpy", slimmed).stream("Max sat", GREEDY))
    assert event == numpy != ""


def test_the_forms_agree(slimmed):
    assert verify(load(slimmed)[0])["passed"]


def test_a_conversation_ends_for_transformers_too(slimmed):
    ends = json.loads((slimmed / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [0, 4]
    assert AutoModelForCausalLM.from_pretrained(slimmed).dtype == torch.bfloat16


def test_a_model_is_not_overwritten(trained, slimmed):
    with pytest.raises(CheckpointError, match="already holds a model"):
        slim(trained, slimmed)
    with pytest.raises(CheckpointError, match="already holds a model"):
        slim(trained, trained)
