"""Guidance: two readings of one answer, whose difference is scaled."""

import numpy as np
import pytest
import torch
from talkers import talker

from spikeloom.backends.stepwise import Engine as Stepwise
from spikeloom.errors import ConfigError
from spikeloom.inference.chat import TEMPLATE, Conversation
from spikeloom.inference.generate import Generator, Sampling
from spikeloom.inference.guidance import Guided

ASKED, EMPTY = [1, 7, 9, 4], [1, 4]


def greedy(**kwargs):
    return Sampling(temperature=0.0, max_new_tokens=8, **kwargs)


def ignore(piece):
    pass


@pytest.fixture(scope="module")
def spoken():
    """A model, and a generator whose tokenizer has roles."""
    model, generator = talker()
    words = generator.tokenizer
    taken = [words.convert_tokens_to_ids(t) for t in "Tcm"]
    names = dict(zip(TEMPLATE, taken, strict=True))
    words.get_vocab = lambda: names
    return model, Generator(generator.engine, words)


def by_hand(model, asked, without, guidance, steps):
    """The definition: both texts read anew for every token."""
    said = []
    for _ in range(steps):
        logits = [model(torch.tensor([[*p, *said]])).logits[0, -1] for p in (asked, without)]
        a, w = (torch.log_softmax(x.double(), -1) for x in logits)
        said.append(int((w + guidance * (a - w)).argmax()))
    return said


@pytest.mark.parametrize("guidance", [0.5, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("of", ["event-driven", "model"])
@torch.inference_mode()
def test_it_is_what_the_equation_says(spoken, guidance, of):
    model, generator = spoken
    guided = Guided(generator.engine if of == "event-driven" else Stepwise(model), guidance)
    state = guided.new_state()
    state.unasked = EMPTY
    said = list(guided.generate(ASKED, 8, state=state))
    assert said == by_hand(model, ASKED, EMPTY, guidance, 8)
    assert state.position == len(ASKED) + 7  # the last token is not read
    assert state.without.position == len(EMPTY) + 7


def test_without_another_prompt_nothing_is_steered(spoken):
    engine = spoken[1].engine
    plain = list(engine.generate(ASKED, 8, eos=()))
    assert list(Guided(engine, 3.0).generate(ASKED, 8)) == plain


def test_both_prompts_end_alike(spoken):
    guided = Guided(spoken[1].engine, 2.0)
    state = guided.new_state()
    state.unasked = [1, 5]
    with pytest.raises(ValueError, match="prompts end with 4 and 5"):
        next(guided.generate(ASKED, state=state))


def test_weights_of_both_readings_count(spoken):
    guided = Guided(spoken[1].engine, 2.0)
    state = guided.new_state()
    assert state.active_share >= 0
    list(guided.generate(ASKED, 4, state=state))
    assert state.active_share == pytest.approx(2 * state.asked.active_share)


@torch.inference_mode()
def test_a_conversation_leaves_out_what_was_asked_in_every_turn(spoken):
    model, generator = spoken
    user, end, assistant = generator.tokenizer.get_vocab().values()
    talk = Conversation(generator, greedy(guidance=2.0), roles=True)
    asked = without = [generator.tokenizer.bos_token_id]
    for turn in ("the cat", "a mat"):
        talk.answer(turn, ignore)
        asked = [*asked, user, *generator.encode(turn), end, assistant]
        without = [*without, user, end, assistant]
        given = talk.generator.given
        assert given == by_hand(model, asked, without, 2.0, len(given))
        asked, without = [*asked, *given], [*without, *given]


@torch.inference_mode()
def test_an_interrupted_answer_leaves_both_readings_in_step(spoken):
    model, generator = spoken
    user, end, assistant = generator.tokenizer.get_vocab().values()

    def interrupt(piece):
        if piece.strip() != "…":
            raise KeyboardInterrupt

    talk = Conversation(generator, greedy(guidance=2.0), roles=True)
    talk.answer("the cat", interrupt)
    before = talk.generator.given
    assert len(before) < 8
    talk.answer("a mat", ignore)
    after = talk.generator.given
    opening, turn = [generator.tokenizer.bos_token_id], [end, assistant]
    without = [*opening, user, *turn, *before, user, *turn]
    asked = [*opening, user, *generator.encode("the cat"), *turn, *before]
    asked = [*asked, user, *generator.encode("a mat"), *turn]
    assert after == by_hand(model, asked, without, 2.0, len(after))


def test_guidance_of_one_is_plain(spoken):
    generator = spoken[1]
    talk = Conversation(generator, greedy(), roles=True)
    assert talk.generator is generator


def test_it_takes_roles(spoken):
    with pytest.raises(ConfigError, match="it takes --roles"):
        Conversation(spoken[1], greedy(guidance=2.0))


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_strengths_that_mean_nothing(value):
    with pytest.raises(ConfigError, match="guidance"):
        Sampling(guidance=value)
