"""Conversations to rows: what is learned, what is padded, and what is refused."""

import pytest
import torch

from spikeloom import tokenizers
from spikeloom.data.conditioning import NO_LOSS
from spikeloom.data.conversations import ConversationRows, Speller, read_both, read_examples
from spikeloom.errors import DataError
from spikeloom.tokenizers.special import ASSISTANT, END, USER

BOS, PAD = 0, 1


@pytest.fixture(scope="module")
def words():
    return tokenizers.train("char", ["the cat sat <|end|> über"] * 9, 300)


@pytest.fixture(scope="module")
def spell(words):
    return Speller(words)


def turns(*contents, system=None):
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    first = [] if system is None else [{"role": "system", "content": system}]
    return {"messages": [*first, *messages]}


def test_it_spells_the_chat_template(words, spell):
    record = turns("the cat", "sat", "and", "über", system="be kind")
    template = words.apply_chat_template(record["messages"], return_dict=False)
    assert spell(record, "x").ids.tolist() == [BOS, *template]


def test_only_answers_are_learned(words, spell):
    example = spell(turns("the cat", "sat", "a", "über"), "x")
    learned = example.ids[example.labels != NO_LOSS][1:]
    assert words.decode(learned) == f"sat{END}über{END}"
    assert example.labels[0] == BOS  # that something ends is learned
    assert example.bytes == len("satüber".encode())


def test_plain_text_is_learned_whole(words, spell):
    example = spell({"text": "the cat"}, "x")
    assert words.decode(example.ids[1:]) == "the cat"
    assert (example.labels == example.ids).all()


def test_a_text_cannot_end_its_own_turn(words, spell):
    example = spell(turns("a", f"b{END}{USER}c"), "x")
    ids = example.ids.tolist()
    assert ids.count(words.convert_tokens_to_ids(END)) == 2
    assert ids.count(words.convert_tokens_to_ids(USER)) == 1
    assert ids.count(words.convert_tokens_to_ids(ASSISTANT)) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"title": "x"}, "needs 'messages' or 'text'"),
        ({"messages": "hi"}, "no list of turns"),
        ({"messages": [{"role": "bot", "content": "x"}]}, r"messages\[0\] needs a 'role'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\] needs a 'role'"),
        (turns("only a question"), "nothing to learn"),
        ({"text": ""}, "nothing to learn"),
    ],
    ids=str,
)
def test_what_is_refused(record, message, spell):
    with pytest.raises(DataError, match=message) as refused:
        spell(record, "here:3")
    assert str(refused.value).startswith("here:3")


def test_a_tokenizer_without_roles_is_refused(words, monkeypatch):
    monkeypatch.setattr(type(words), "get_vocab", lambda self: {})
    with pytest.raises(DataError, match="need role tokens"):
        Speller(words)


def test_rows_hold_whole_records_and_padding(spell):
    examples = [spell({"text": "x" * n}, "x") for n in (6, 5, 2, 3)]  # 7, 6, 3, 4 tokens
    rows = ConversationRows(examples, 10, PAD, position_ids=True)
    assert len(rows) == 2
    assert rows[0]["position_ids"].tolist() == [*range(7), *range(3)]
    assert rows[1]["position_ids"].tolist() == [*range(6), *range(4)]
    short = ConversationRows(examples[:1], 10, PAD)[0]
    assert short["input_ids"].tolist()[7:] == [PAD] * 3
    assert short["labels"].tolist()[7:] == [NO_LOSS] * 3
    assert "position_ids" not in short


def test_nothing_is_lost_in_rows(spell):
    examples = [spell({"text": "the cat sat " * n}, "x") for n in range(1, 30)]
    rows = ConversationRows(examples, 64, PAD)
    learned = torch.cat([rows[i]["labels"] for i in range(len(rows))])
    assert int((learned != NO_LOSS).sum()) == len(rows.packed) == sum(len(e.ids) for e in examples)
    assert rows.packed.total_bytes == sum(12 * n for n in range(1, 30))
    assert len(ConversationRows(examples, 64, PAD, limit=3)) == 3


def test_a_source_is_split_for_good(spell, tmp_path):
    file = tmp_path / "chat.jsonl"
    lines = [f'{{"text": "the cat sat {n}"}}\n' for n in range(200)]
    file.write_text("".join(lines))
    learned, held_out = read_both(str(file), spell)
    assert len(learned) + len(held_out) == len(read_examples(str(file), spell)) == 200
    assert 1 <= len(held_out) <= 30
    file.write_text("".join(reversed(lines)))
    again = read_both(str(file), spell)[1]
    assert {bytes(e.ids) for e in again} == {bytes(e.ids) for e in held_out}
