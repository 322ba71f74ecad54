"""Turns: nothing is read twice, nothing is lost, whenever Ctrl-C comes."""

import os
import signal
import threading

import pytest
import torch
from talkers import talker

from spikeloom.errors import ConfigError
from spikeloom.inference import chat as module
from spikeloom.inference.chat import TEMPLATE, Conversation, chat
from spikeloom.inference.generate import Sampling

GREEDY = Sampling(temperature=0.0, max_new_tokens=6)


@pytest.fixture(scope="module", params=[True, False], ids=["attention", "sdsa"])
def generator(request):
    return talker(request.param)[1]


def ignore(piece):
    pass


def next_logits(conversation):
    """What the model would say next, having read all that it owes, on a copy."""
    state = conversation.state.copy()
    return conversation.generator.engine.prefill(conversation._unread, state)


def logits_after(generator, ids):
    return generator.engine.prefill(ids, generator.engine.new_state())


def test_a_conversation_reads_what_a_document_would_hold(generator):
    conversation = Conversation(generator, GREEDY)
    ids = [generator.tokenizer.bos_token_id]
    for turn in ("The cat", " sat", " on the mat"):
        conversation.answer(turn, ignore)
        ids += [*generator.encode(turn), *generator.given]
    assert conversation.state.position == len(ids) - 1
    torch.testing.assert_close(next_logits(conversation), logits_after(generator, ids))


def test_reset_forgets(generator):
    conversation = Conversation(generator, GREEDY)
    first = conversation.answer("The cat", ignore)
    conversation.answer("and", ignore)
    conversation.reset()
    assert conversation.answer("The cat", ignore) == first


def test_turns_are_sampled_differently_but_reproducibly(generator):
    def answers():
        conversation = Conversation(generator, Sampling(seed=3, max_new_tokens=12))
        return [conversation.answer("The cat", ignore) for _ in range(3)]

    assert answers() == answers()
    assert len(set(answers())) == 3


class Shown(list):
    """Collects pieces; something happens at the third."""

    def __init__(self, happens):
        super().__init__()
        self.happens = happens

    def __call__(self, piece):
        self.append(piece)
        if len(self) == 3:
            self.happens()


def interrupt():
    raise KeyboardInterrupt


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("happens", [interrupt, press_ctrl_c])
def test_after_ctrl_c_the_state_holds_what_was_shown(happens, generator):
    conversation = Conversation(generator, Sampling(temperature=0.0, max_new_tokens=50))
    shown = Shown(happens)
    answer = conversation.answer("The cat", shown)
    assert shown[-1] == " …"
    assert answer == "".join(shown[:-1])
    assert len(shown) == 4
    bos = generator.tokenizer.bos_token_id
    ids = [bos, *generator.encode("The cat"), *generator.given]
    backend = generator.tokenizer.backend_tokenizer
    assert backend.decode(generator.given, skip_special_tokens=True) == answer
    torch.testing.assert_close(next_logits(conversation), logits_after(generator, ids))
    # and the conversation goes on
    conversation.answer(" sat", ignore)
    ids += [*generator.encode(" sat"), *generator.given]
    torch.testing.assert_close(next_logits(conversation), logits_after(generator, ids))


def test_ctrl_c_while_a_token_is_read_waits_for_its_end(generator, monkeypatch):
    conversation = Conversation(generator, Sampling(temperature=0.0, max_new_tokens=50))
    real = type(generator.engine).prefill

    def prefill(engine, tokens, state=None):
        press_ctrl_c()
        return real(engine, tokens, state)

    monkeypatch.setattr(type(generator.engine), "prefill", prefill)
    shown = []
    conversation.answer("The cat", shown.append)
    monkeypatch.undo()
    assert shown[-1] == " …"
    bos = generator.tokenizer.bos_token_id
    ids = [bos, *generator.encode("The cat"), *generator.given]
    torch.testing.assert_close(next_logits(conversation), logits_after(generator, ids))


def test_ctrl_c_means_what_it_did_once_the_answer_is_there(generator):
    before = signal.getsignal(signal.SIGINT)
    Conversation(generator, GREEDY).answer("The cat", ignore)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_conversation_may_live_in_a_thread(generator):
    answers = []
    talk = Conversation(generator, GREEDY)
    thread = threading.Thread(target=lambda: answers.append(talk.answer("The cat", ignore)))
    thread.start()
    thread.join()
    assert answers == [Conversation(generator, GREEDY).answer("The cat", ignore)]


def test_roles_wrap_a_turn_and_end_an_answer(generator):
    conversation = Conversation(generator, GREEDY, roles=True)
    user, end, assistant = (generator.tokenizer.get_vocab()[token] for token in TEMPLATE)
    ids = generator.encode("The cat")
    assert conversation._wrapped("The cat") == [user, *ids, end, assistant]
    assert end in conversation._stops()
    conversation.answer("The cat", ignore)
    read = [generator.tokenizer.bos_token_id, user, *ids, end, assistant, *generator.given]
    torch.testing.assert_close(next_logits(conversation), logits_after(generator, read))


def test_roles_need_their_tokens(generator, monkeypatch):
    monkeypatch.setattr(module, "TEMPLATE", ("<|nobody|>", "<|end|>", "<|assistant|>"))
    with pytest.raises(ConfigError, match="chat without --roles"):
        Conversation(generator, GREEDY, roles=True)


def type_in(monkeypatch, lines, terminal=False):
    typed = iter(lines)

    def read(prompt=""):
        line = next(typed, None)
        if line is None:
            raise EOFError
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(module.sys, "stdin", type("In", (), {"isatty": lambda self: terminal})())


def test_the_terminal(generator, monkeypatch, capsys):
    type_in(monkeypatch, ["The cat", "", "/reset", "The cat", "/quit", "never"], terminal=True)
    turns = chat(generator, GREEDY)
    assert [turn["user"] for turn in turns] == ["The cat", "The cat"]
    assert turns[0]["answer"] == turns[1]["answer"]
    assert turns[0]["tokens"] == GREEDY.max_new_tokens
    assert 0 < turns[0]["active_share"] < 1
    captured = capsys.readouterr()
    assert captured.out == "".join(turn["answer"] + "\n" for turn in turns)
    assert "/reset forgets" in captured.err
    assert "(forgotten)" in captured.err


def test_ctrl_c_at_the_prompt_drops_the_line_only(generator, monkeypatch):
    type_in(monkeypatch, ["The cat", KeyboardInterrupt(), "and"], terminal=True)
    assert len(chat(generator, GREEDY)) == 2
    type_in(monkeypatch, ["The cat", KeyboardInterrupt(), "and"], terminal=False)
    with pytest.raises(KeyboardInterrupt):
        chat(generator, GREEDY)


def test_a_tuned_model_is_not_led_beyond_what_it_was_trained_on(generator, monkeypatch, capsys):
    type_in(monkeypatch, ["The cat"] * 5)
    turns = chat(generator, Sampling(temperature=0.0, max_new_tokens=25), roles=True)
    context = generator.engine.config.max_position_embeddings
    forgotten = capsys.readouterr().err.count("are forgotten")
    assert 1 <= forgotten <= 4
    assert context < 5 * 25  # so that it had to
    answers = [turn["answer"] for turn in turns]
    assert answers[0] in answers[1:]  # the same words on an empty context


def test_what_is_asked_again_after_forgetting_is_answered_anew(generator):
    conversation = Conversation(generator, Sampling(temperature=5.0, max_new_tokens=12))
    first = conversation.answer("The cat", ignore)
    conversation.reset()
    assert conversation.answer("The cat", ignore) != first


@pytest.mark.parametrize("longest", [10, 25, 1000])
def test_turns_are_forgotten_only_for_want_of_room(longest, generator):
    conversation = Conversation(generator, Sampling(0.0, max_new_tokens=longest), roles=True)
    context, turn = conversation.context, len(conversation._wrapped("cat"))
    forgotten = []
    for _ in range(9):
        room = context - conversation.state.position - len(conversation._unread) - turn
        forgotten.append(conversation.make_room("cat"))
        assert forgotten[-1] == (room < min(longest, context // 2))
        conversation.answer("cat", ignore)
        assert conversation.state.position < context
    assert 0 < sum(forgotten) < 9


def test_a_turn_that_leaves_no_room_is_refused(generator, monkeypatch, capsys):
    type_in(monkeypatch, ["cat " * 30, "The cat"])
    turns = chat(generator, GREEDY, roles=True)
    assert [turn["user"] for turn in turns] == ["The cat"]
    assert "122 tokens are too many for a context of 64: ask for less" in capsys.readouterr().err


def test_commands_that_are_none(generator, monkeypatch, capsys):
    type_in(monkeypatch, ["/regen", "/RESET", "/ or"])
    assert [turn["user"] for turn in chat(generator, GREEDY)] == ["/ or"]
    assert "(/regen is unknown: /reset forgets, /quit leaves)" in capsys.readouterr().err


def test_bytes_that_are_no_text(generator):
    assert generator.encode("\udcffa") == generator.encode("\ufffda")
