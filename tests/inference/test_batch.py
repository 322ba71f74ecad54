"""Several texts: the same tokens one after the other and together; the table chooses."""

import math

import pytest
from talkers import talker

from spikeloom.inference import batch
from spikeloom.inference.generate import Sampling

PROMPTS = ["The cat sat on", "T", "über alles"]


PAIRS = {"attention": {}, "sdsa": {"attention": False}, "gains": {"gain_rank": 3}}


@pytest.fixture(scope="module", params=PAIRS.values(), ids=PAIRS)
def pair(request):
    return talker(**request.param)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_together_is_one_after_the_other(pair, temperature):
    model, generator = pair
    sampling = Sampling(temperature, max_new_tokens=12, seed=3)
    ids = [[generator.tokenizer.bos_token_id, *generator.encode(prompt)] for prompt in PROMPTS]
    stops = (generator.tokenizer.eos_token_id,)
    alone = batch.event_texts(generator.engine, ids, sampling, stops)
    assert batch.dense_texts(model, ids, sampling, stops) == alone
    assert len({tuple(text) for text in alone}) == len(PROMPTS)


def test_a_text_ends_at_its_stop(pair):
    model, generator = pair
    sampling = Sampling(0.0, max_new_tokens=12)
    ids = [generator.encode(prompt) for prompt in PROMPTS]
    free = batch.event_texts(generator.engine, ids, sampling, ())
    stops = (free[0][2],)
    alone = batch.event_texts(generator.engine, ids, sampling, stops)
    assert batch.dense_texts(model, ids, sampling, stops) == alone
    assert alone[0] == free[0][: free[0].index(stops[0]) + 1]


def test_the_table_chooses(monkeypatch):
    table = {1: {0.1: math.inf, 0.5: 8}, 100: {0.1: 4, 0.5: 2}}
    monkeypatch.setattr(batch, "CROSSING", table)
    assert not batch.dense_is_faster(2e6, share=0.02, batch=1000)
    assert batch.dense_is_faster(2e6, share=0.45, batch=8)
    assert not batch.dense_is_faster(2e6, share=0.45, batch=7)
    assert batch.dense_is_faster(60e6, share=0.15, batch=4)


@pytest.mark.parametrize("crossing", [1, math.inf], ids=["dense", "event"])
def test_a_checkpoint_continues_prompts(pair, tmp_path, monkeypatch, crossing):
    model, generator = pair
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(batch, "CROSSING", {1: {0.2: crossing}})
    sampling = Sampling(0.0, max_new_tokens=5)
    texts = batch.generate_texts(generator, tmp_path, PROMPTS, sampling)
    for prompt, ids in zip(PROMPTS, texts, strict=True):
        list(generator.stream(prompt, sampling))
        assert ids == generator.given
