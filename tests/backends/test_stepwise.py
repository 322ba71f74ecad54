"""Decoding with the model itself, where the event-driven engine lacks what a model has."""

import io
import json
import sys

import pytest
import torch

from spikeloom import presets, tokenizers
from spikeloom.backends import BACKENDS, _lacks, generator
from spikeloom.backends.stepwise import Engine
from spikeloom.cli import main
from spikeloom.config import load_config
from spikeloom.errors import ConfigError
from spikeloom.inference.chat import Conversation
from spikeloom.inference.engine import Engine as EventEngine
from spikeloom.inference.generate import Sampling
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM

# Of the large presets only the sizes differ.
NAMES = [
    name
    for name in presets.names()
    if not name.endswith(("125m", "1b"))
    and _lacks(BACKENDS["torch"], load_config(name).model) is not None
]
SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
GREEDY = Sampling(temperature=0.0, max_new_tokens=6)


def small(name, vocab_size=64):
    kept = load_config(name).model
    heads = 4 * kept.key_value_heads // kept.num_attention_heads
    sizes = SIZES | {"num_key_value_heads": heads, "num_hidden_layers": max(2, len(kept.layers))}
    sizes |= {"vocab_size": vocab_size, "embedding_size": kept.embedding_size and 16}
    changes = [f"model.{key}={'null' if v is None else v}" for key, v in sizes.items()]
    torch.manual_seed(0)
    config = SpikeloomConfig.from_architecture(load_config(name, changes).model)
    return SpikeloomForCausalLM(config).eval()


@torch.no_grad()
def likeliest(model, ids):
    """After each of the tokens, by one forward pass over all of them."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].argmax(-1).tolist()


@pytest.fixture(params=["pulse-15m", "hybrid-filter", "real-sam-v4"])
def checkpoint(request, tmp_path):
    words = tokenizers.train("char", ["the cat sat on a mat"] * 3, 300)
    small(request.param, tokenizers.size(words)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    return tmp_path


def test_all_that_lack_an_event_driven_form_are_here():
    families = {name.rpartition("-")[0] for name in NAMES}
    assert families >= {"pulse", "hybrid", "real-sam", "spike-transformer"}


@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_are_those_of_the_full_forward(name):
    engine = Engine(small(name))
    prompt = torch.randint(2, 64, (120,), generator=torch.Generator().manual_seed(0)).tolist()
    given = list(engine.generate(prompt, 20))  # beyond every window and the context of 64
    assert given == likeliest(engine.model, prompt + given)[119:-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_at_once_is_its_tokens_one_by_one(name):
    engine = Engine(small(name))
    prompt = torch.randint(2, 64, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    at_once, one_by_one = engine.new_state(), engine.new_state()
    expected = engine.prefill(prompt, at_once)
    for token in prompt:
        logits = engine.step(token, one_by_one)
    torch.testing.assert_close(*map(torch.from_numpy, (logits, expected)), rtol=0, atol=1e-4)
    assert at_once.position == one_by_one.position == 40
    assert at_once.active_share == pytest.approx(one_by_one.active_share, abs=1e-3)


def test_a_state_can_be_copied_and_that_of_real_sam_has_one_size():
    engine = Engine(small("real-sam-v4"))
    state = engine.new_state()
    sizes = []
    for token in (3, 14, 15, 9):
        engine.step(token, state)
        sizes.append(state.decoder.nbytes)
    assert len(set(sizes)) == 1
    twin = state.copy()
    assert (engine.step(2, state) == engine.step(2, twin)).all()
    assert 0 < state.active_share < 1


def test_generate_says_that_it_decodes_with_the_model(checkpoint, capsys):
    made = generator("torch", checkpoint)
    said = capsys.readouterr().err
    assert "the torch backend has no event-driven form of model." in said
    assert said.endswith(": decoding with the model\n")
    assert said.count("\n") == 1
    pieces = list(made.stream("the ", Sampling(0.8, 0.95, 0, 8)))
    assert pieces == list(made.stream("the ", Sampling(0.8, 0.95, 0, 8)))
    assert 0 < made.statistics()["active_share"] <= 1


def test_a_conversation_reads_what_a_document_would_hold(checkpoint):
    made = generator("torch", checkpoint)
    conversation = Conversation(made, GREEDY)
    ids, answers = [made.tokenizer.bos_token_id], []
    for turn in ("the cat", " sat", " on a mat"):
        conversation.answer(turn, answers.append)
        ids += made.encode(turn)
        for token in made.given:
            assert token == likeliest(made.engine.model, ids)[-1]
            ids.append(token)
    assert conversation.state.position == len(ids) - 1  # nothing was read twice


def test_chat_from_the_command_line(checkpoint, tmp_path, monkeypatch, capsys):
    report = tmp_path / "turns.json"
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\non a mat\n/quit\n"))
    words = ["chat", checkpoint, "--max-new-tokens", 4, "--temperature", 0, "--json", report]
    monkeypatch.setattr(sys, "argv", ["spikeloom", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    assert capsys.readouterr().err.count("no event-driven form") == 1
    turns = json.loads(report.read_text())["turns"]
    assert [turn["user"] for turn in turns] == ["the cat", "on a mat"]


def test_the_other_backends_refuse_what_they_lack(checkpoint):
    with pytest.raises(ConfigError, match=r"^model\..*: the numpy backend cannot run it"):
        generator("numpy", checkpoint)


@pytest.mark.parametrize("name", NAMES)
def test_the_event_engine_refuses_by_name(name):
    with pytest.raises(ConfigError) as refusal:
        EventEngine.from_model(small(name))
    assert "the event-driven engine" in str(refusal.value)
    assert str(refusal.value).partition(":")[0] in _lacks(
        BACKENDS["torch"], load_config(name).model
    )
