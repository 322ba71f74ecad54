import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import DOCUMENTS, build_model

from spikeloom.errors import ConfigError, DataError
from spikeloom.evaluation.perplexity import evaluate, excerpt
from spikeloom.evaluation.windows import Windows

KEYS = {
    "tokens", "bytes", "loss", "perplexity", "bits_per_byte", "active_share", "channel_rate",
    "mean_count", "per_layer", "synops", "energy_pj", "products", "protocol",
}  # fmt: skip


class FakeStream:
    """Documents of given lengths (tokens with the separator) and byte counts."""

    def __init__(self, lengths, sizes, vocab=64):
        rng = np.random.default_rng(0)
        self.tokens = rng.integers(5, vocab, sum(lengths)).astype(np.uint16)
        self.documents = np.cumsum([0, *lengths[:-1]])
        self.tokens[self.documents] = 0
        self.document_bytes = np.array(sizes)


@given(st.integers(2, 90), st.integers(1, 40), st.data())
def test_every_token_but_the_first_is_scored_once_with_enough_context(tokens, context, data):
    stride = data.draw(st.integers(1, context))
    windows = Windows(tokens, context, stride)
    times = np.zeros(tokens, int)
    seen, keys = 0, []
    for begins, scored in windows.batches(3):
        for begin, row in zip(begins, scored, strict=True):
            seen += 1
            for j in np.flatnonzero(row):
                target = begin + j + 1
                times[target] += 1
                keys.append(j + 1)
                assert j + 1 >= min(target, context - stride + 1)
    assert times.tolist() == [0] + [1] * (tokens - 1)
    assert seen == len(windows)
    assert windows.mean_keys() == pytest.approx(np.mean(keys))
    assert windows.mean_keys(4) == pytest.approx(np.minimum(keys, 4).mean())


def test_impossible_windows_are_refused():
    with pytest.raises(ConfigError, match="context"):
        Windows(10, 0, 1)
    with pytest.raises(ConfigError, match=r"stride.*between 1 and the context \(4\)"):
        Windows(10, 4, 5)


def test_loss_and_rates_equal_one_token_at_a_time():
    """The same figures from a loop that scores each token alone with its own window."""
    model, stream = build_model(max_position_embeddings=8), FakeStream([9, 14], [20, 33])
    result = evaluate(model, None, stream, stride=4, batch_size=2)
    tokens = torch.from_numpy(stream.tokens.astype(np.int64))
    begins = {0: range(1, 9), 4: range(9, 13), 8: range(13, 17), 12: range(17, 21), 14: (21, 22)}
    nats, fired = 0.0, 0.0
    head = model.model.decoder.head_neuron
    emitted = []
    head.register_forward_hook(lambda m, a, out: emitted.append(out[0]))
    for begin, targets in begins.items():
        for target in targets:
            with torch.no_grad():
                logits = model(tokens[None, begin:target]).logits[0, -1]
            nats -= float(logits.log_softmax(-1)[tokens[target]])
            fired += float((emitted[-1][0, -1] != 0).float().mean())
    assert (result["tokens"], result["bytes"]) == (22, 53)
    assert result["loss"] == pytest.approx(nats / 22, rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(nats / 22), rel=1e-4)
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / 53, rel=1e-5)
    assert result["per_layer"][-1]["role"] == "head"
    assert result["per_layer"][-1]["channel_rate"] == pytest.approx(fired / 22)


def test_the_json_has_every_key_and_no_surprises():
    model, stream = build_model(max_position_embeddings=8), FakeStream([23], [50])
    model.train()
    result = evaluate(model, None, stream)
    assert model.training
    assert result.keys() == KEYS
    assert {"dense_macs", "acs", "macs"} <= result["synops"].keys()
    assert {"dense", "spiking", "ratio"} <= result["energy_pj"].keys()
    assert json.loads(json.dumps(result)) == result
    assert len(result["per_layer"]) == 9
    assert result["per_layer"][0]["feeds"] == [
        f"model.decoder.layers.0.blocks.0.mixer.{name}_proj" for name in "qkv"
    ]
    assert [entry["role"] for entry in result["per_layer"][:4]] == [
        "mixer_input", "mixer_output", "mlp_input", "mlp_hidden",
    ]  # fmt: skip
    protocol = result["protocol"]
    assert (protocol["context"], protocol["stride"]) == (8, 4)
    assert "UTF-8 bytes" in protocol["text"]
    share = result["synops"]["weights_touched"] / result["synops"]["weights"]
    assert result["active_share"] == pytest.approx(share)


def test_excerpt_takes_whole_documents(tokenizer):
    stream = FakeStream([10, 10, 30], [7, 8, 21])
    everything = excerpt(stream, tokenizer)
    assert (len(everything.tokens), everything.bytes, everything.documents) == (50, 36, 3)
    part = excerpt(stream, tokenizer, max_tokens=25)
    assert (len(part.tokens), part.bytes, part.documents) == (20, 15, 2)
    part = excerpt(stream, tokenizer, max_documents=1)
    assert (len(part.tokens), part.bytes, part.documents) == (10, 7, 1)
    assert len(excerpt(stream, tokenizer, max_tokens=99).tokens) == 50


def test_a_long_document_is_cut_between_characters(tokenizer):
    text = DOCUMENTS[1]
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream = FakeStream([len(ids) + 1], [len(text.encode())])
    stream.tokens[1:] = ids
    assert len(ids) == len(text.encode())  # one token a byte beyond ASCII
    whole = {len(text[:n].encode()) for n in range(len(text))}
    cuts = set()
    for limit in range(3, 30):
        part = excerpt(stream, tokenizer, max_tokens=limit)
        assert part.bytes == len(part.tokens) - 1
        assert part.bytes in whole
        assert limit - len(part.tokens) in (0, 1)
        cuts.add(limit - len(part.tokens))
    assert cuts == {0, 1}


def test_too_little_text_is_refused(tokenizer):
    with pytest.raises(DataError, match="too little text"):
        excerpt(FakeStream([1], [0]), tokenizer)
    with pytest.raises(DataError, match="too little text"):
        excerpt(FakeStream([9], [9]), tokenizer, max_tokens=1)


def test_a_real_source(source, tokenizer, checkpoints):
    model = build_model(vocab_size=261, max_position_embeddings=16)
    result = evaluate(model, tokenizer, source)
    assert result["bytes"] == sum(len(text.encode()) for text in DOCUMENTS)
    assert result["tokens"] == result["bytes"] + 2  # a token a byte, two separators scored
    assert result["protocol"]["source"] == source
    assert result["bits_per_byte"] == pytest.approx(
        result["loss"] / math.log(2) * result["tokens"] / result["bytes"]
    )
    short = evaluate(model.to(torch.bfloat16), tokenizer, source)
    assert short["loss"] == pytest.approx(result["loss"], rel=0.05)
    assert short["protocol"]["dtype"] == "bfloat16"
