"""`generate` as transformers users know it, with the recurrent state as its cache."""

import copy

import pytest
import torch
from small_models import NAMES, build, tokens
from transformers import set_seed
from transformers.generation.streamers import BaseStreamer

from spikeloom.model import DecoderState

NEW = 6
SOME = ["mixed", "constant size", "hard reset", "lif steps", "dense"]


def new_state(model):
    return DecoderState(model.config.architecture)


def greedy_by_hand(model, ids, count=NEW):
    with torch.no_grad():
        for _ in range(count):
            choice = model(ids).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, choice], 1)
            if choice.item() == model.config.eos_token_id:
                break
    return ids


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_argmax_of_the_parallel_form(name, use_cache):
    model, ids = build(name), tokens(1, 7)
    got = model.generate(ids, max_new_tokens=NEW, do_sample=False, use_cache=use_cache)
    assert torch.equal(got, greedy_by_hand(model, ids))


@pytest.mark.parametrize("name", NAMES)
def test_greedy_on_a_left_padded_batch_equals_rows_alone(name):
    model = build(name)
    ids, mask = tokens(3, 8), torch.ones(3, 8, dtype=torch.long)
    for row, length in enumerate((8, 5, 1)):
        ids[row, : 8 - length], mask[row, : 8 - length] = 1, 0
    batch = model.generate(
        ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, eos_token_id=None
    )
    for row, length in enumerate((8, 5, 1)):
        alone = model.generate(
            ids[row : row + 1, 8 - length :],
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
        )
        assert torch.equal(batch[row, 8 - length :], alone[0])


@pytest.mark.parametrize("name", SOME)
def test_sampling_follows_the_seed(name):
    model, ids = build(name), tokens(2, 5)

    def draw(seed, **options):
        set_seed(seed)
        return model.generate(ids, max_new_tokens=12, do_sample=True, eos_token_id=None, **options)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(draw(0), draw(0, use_cache=False))
    several = draw(0, num_return_sequences=3)
    assert several.shape == (6, 17)
    assert torch.equal(several[:, :5], ids.repeat_interleave(3, 0))
    assert not torch.equal(several[0], several[1])


@pytest.mark.parametrize("name", NAMES)
def test_beam_search_reorders_the_state(name):
    model, ids = build(name), tokens(2, 5)
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": NEW}
    options |= {"do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    cached = model.generate(ids, **options)
    fresh = model.generate(ids, use_cache=False, **options)
    assert cached.sequences.shape[0] == 4
    assert torch.equal(cached.sequences, fresh.sequences)
    torch.testing.assert_close(cached.sequences_scores, fresh.sequences_scores)
    # else the beams never crossed and reordering was not tested
    assert any((b[:3] != torch.arange(3)).any() for b in cached.beam_indices.T)


class Collector(BaseStreamer):
    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.ended = True


@pytest.mark.parametrize("name", SOME)
def test_streaming_yields_what_generate_returns(name):
    model, ids, streamer = build(name), tokens(1, 5), Collector()
    got = model.generate(ids, max_new_tokens=NEW, do_sample=False, streamer=streamer)
    assert streamer.tokens == got[0].tolist()
    assert streamer.ended


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_state_continues_a_conversation(name):
    model, question, follow_up = build(name), tokens(1, 5), tokens(1, 4, seed=3)
    # Without a mask, generate guesses one, and takes pad tokens of the answer for padding.
    mask = torch.ones(1, 5 + NEW + 4, dtype=torch.long)
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
    state = new_state(model)
    answer = model.generate(question, past_key_values=state, attention_mask=mask[:, :5], **options)
    assert state.get_seq_length() == answer.shape[1] - 1  # the last token was not read
    both = torch.cat([answer, follow_up], 1)
    got = model.generate(both, past_key_values=state, attention_mask=mask, **options)
    assert torch.equal(got, model.generate(both, attention_mask=mask, **options))
    assert state.get_seq_length() == got.shape[1] - 1


def test_generate_returns_the_state_it_used():
    model, ids = build("mixed"), tokens(1, 5)
    output = model.generate(ids, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    assert isinstance(output.past_key_values, DecoderState)
    assert output.past_key_values.is_initialized


@pytest.mark.parametrize("name", ["mixed", "lif steps", "soft reset"])
def test_rows_of_a_state_can_be_selected_and_repeated(name):
    model, ids, more = build(name), tokens(3, 6), tokens(6, 2, seed=4)
    state = new_state(model)
    with torch.no_grad():
        model(ids, past_key_values=state)
        repeated = copy.deepcopy(state)
        repeated.batch_repeat_interleave(2)
        got = model(more, past_key_values=repeated).logits
        both = torch.cat([ids.repeat_interleave(2, 0), more], 1)
        torch.testing.assert_close(got, model(both).logits[:, 6:], atol=1e-9, rtol=1e-9)

        state.batch_select_indices(torch.tensor([2, 0]))
        got = model(more[:2], past_key_values=state).logits
        both = torch.cat([ids[[2, 0]], more[:2]], 1)
        torch.testing.assert_close(got, model(both).logits[:, 6:], atol=1e-9, rtol=1e-9)


def test_a_state_forgets_and_refuses_to_be_cropped():
    model, ids = build("mixed"), tokens(1, 6)
    state = new_state(model)
    with torch.no_grad():
        first = model(ids, past_key_values=state).logits
        assert "6 tokens seen" in repr(state)
        with pytest.raises(ValueError, match="deepcopy"):
            state.crop(2)
        state.reset()
        assert (state.get_seq_length(), state.nbytes) == (0, 0)
        assert torch.equal(model(ids, past_key_values=state).logits, first)
