"""Guidance: two readings of one answer, whose difference is scaled."""

import numpy as np
import pytest
import torch
from talkers import talker

from spikeloom.backends.stepwise import Engine as Stepwise
from spikeloom.errors import CheckpointError, ConfigError
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


def by_hand(model, asked, without, guidance, steps, choose=torch.argmax):
    """The definition: both texts read anew for every token."""
    said = []
    for _ in range(steps):
        logits = [model(torch.tensor([[*p, *said]])).logits[0, -1] for p in (asked, without)]
        a, w = (torch.log_softmax(x.double(), -1) for x in logits)
        said.append(int(choose(torch.log_softmax(w + guidance * (a - w), -1))))
    return said


def steered(guided, steps, **how):
    """What a guided engine says behind ASKED beside EMPTY, and its state."""
    state = guided.new_state()
    guided.read_apart(ASKED[:-1], EMPTY[:-1], state)
    return list(guided.generate(ASKED[-1:], steps, **{"stops": ()} | how, state=state)), state


@pytest.mark.parametrize("guidance", [0.5, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("of", ["event-driven", "model"])
@torch.inference_mode()
def test_it_is_what_the_equation_says(spoken, guidance, of):
    model, generator = spoken
    guided = Guided(generator.engine if of == "event-driven" else Stepwise(model), guidance)
    said, state = steered(guided, 8)
    assert said == by_hand(model, ASKED, EMPTY, guidance, 8)
    assert state.position == len(ASKED) + 7  # the last token is not read
    assert state.without.position == len(EMPTY) + 7


def test_without_another_prompt_nothing_is_steered(spoken):
    engine = spoken[1].engine
    plain = list(engine.generate(ASKED, 8, stops=()))
    assert list(Guided(engine, 3.0).generate(ASKED, 8, stops=())) == plain


@pytest.mark.parametrize("seed", [0, 1])
@torch.inference_mode()
def test_it_samples_from_what_the_equation_says(spoken, seed):
    model, generator = spoken
    rng = np.random.default_rng(seed)

    def nucleus(log_p):
        """The likeliest tokens that together have 0.8, at temperature 0.7."""
        p, tokens = (log_p / 0.7).softmax(-1).sort(descending=True)
        p[p.cumsum(0) - p >= 0.8] = 0
        return rng.choice(tokens.numpy(), p=(p / p.sum()).numpy())

    expected = by_hand(model, ASKED, EMPTY, 2.0, 12, nucleus)
    guided = Guided(generator.engine, 2.0)
    said, _ = steered(guided, 12, temperature=0.7, top_p=0.8, seed=seed)
    assert said == expected
    assert len(set(said)) > 3
    assert steered(guided, 12, temperature=0.7, top_p=0.8, seed=seed + 2)[0] != said


def test_it_ends_with_a_stop(spoken):
    guided = Guided(spoken[1].engine, 2.0)
    said, _ = steered(guided, 8)
    first = said.index(said[4]) + 1
    assert steered(guided, 8, stops=[said[4]])[0] == said[:first]


def test_weights_of_both_readings_count(spoken):
    guided = Guided(spoken[1].engine, 2.0)
    assert guided.new_state().active_share == 0
    state = steered(guided, 4)[1]
    read = [s.active_share * s.position for s in (state.asked, state.without)]
    assert state.asked.position != state.without.position
    assert state.active_share == pytest.approx(sum(read) / state.asked.position)


def test_damaged_weights_are_named(spoken):
    class Damaged:
        config = None

        def new_state(self):
            return None

        def prefill(self, tokens, state):
            return np.full(9, np.nan, np.float32)

    for temperature in (0.0, 0.5):
        with pytest.raises(CheckpointError, match="logits are NaN"):
            next(Guided(Damaged(), 2.0).generate([1], 9, temperature, stops=()))


def test_prompts_are_read_at_once(spoken, monkeypatch):
    engine = Stepwise(spoken[0])
    read, real = [], engine.prefill

    def prefill(tokens, state):
        read.append(len(tokens))
        return real(tokens, state)

    monkeypatch.setattr(engine, "prefill", prefill)
    steered(Guided(engine, 2.0), 3)
    assert read == [3, 1, *[1] * 6]


def test_only_a_conversation_is_guided(spoken):
    with pytest.raises(ConfigError, match="it takes a conversation"):
        next(spoken[1].stream("the cat", Sampling(guidance=2.0)))


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


@pytest.mark.parametrize("value", [0.0, -1.0, 101.0, np.inf, np.nan])
def test_strengths_that_mean_nothing(value):
    with pytest.raises(ConfigError, match="guidance"):
        Sampling(guidance=value)
