import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spikeloom import tokenizers
from spikeloom.data import curriculum
from spikeloom.data.curriculum import Piece, Sample, build_curriculum
from spikeloom.data.manifest import changes
from spikeloom.data.readers import Document
from spikeloom.errors import ConfigError, DataError

PROSE = (
    "The girl walked slowly down to the harbour, past the old boats, and sat on the wall. "
    "She counted them twice, as her father had taught her, and then she waited for the tide. "
    "Nobody came. The gulls cried, and the wind smelt of salt and rope and tar and rain."
)
TALK = (
    "“Where are the boats?” she asked.\n\n"
    "“At sea,” said the old man, “where else?”\n\n"
    '"When do they come back?"\n\n'
    "“When the wind turns.”\n\n"
    "“And when is that?”"
)


def records_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def texts(cut, text):
    return [piece.text for piece in cut(Document(text))]


def test_phrases_stand_between_punctuation():
    text = "Past the old boats, she ran; home (at last) -- 20 years on. Tom's half-wit\nof a dog"
    expected = ["Past the old boats", "she ran", "at last", "Tom's half-wit", "of a dog"]
    assert texts(curriculum.phrases, text) == expected


def test_sentences_are_whole():
    text = f"== Heading ==\n\nand so it was. Yes! {PROSE} An unfinished"
    assert texts(curriculum.sentences, text) == [
        "The girl walked slowly down to the harbour, past the old boats, and sat on the wall.",
        "She counted them twice, as her father had taught her, and then she waited for the tide.",
        "The gulls cried, and the wind smelt of salt and rope and tar and rain.",
    ]


def test_stories_are_paragraphs_between_headings():
    text = f"CHAPTER I\n\n{PROSE}\n\n{PROSE}\n\n== Two ==\n\nToo short.\n\n== Three ==\n\n{PROSE}"
    assert texts(curriculum.stories, text) == [f"{PROSE}\n\n{PROSE}", PROSE]
    parts = texts(curriculum.stories, "\n\n".join([PROSE] * 20))
    assert "\n\n".join(parts) == "\n\n".join([PROSE] * 20)
    assert all(50 <= len(part.split()) <= 400 for part in parts)
    assert texts(curriculum.stories, " ".join([PROSE] * 20)) == []


def test_quoted_speech_becomes_turns():
    text = f"{PROSE}\n\n{TALK}\n\n{PROSE}\n\n“Alone.”\n\n{PROSE}"
    (talk,) = curriculum.conversations(Document(text))
    assert [message["content"] for message in talk.record()["messages"]] == [
        "Where are the boats?",
        "At sea, where else?",
        "When do they come back?",
        "When the wind turns.",
    ]
    roles = [message["role"] for message in talk.record()["messages"]]
    assert roles == ["user", "assistant"] * 2
    assert talk.text.splitlines()[1] == "“At sea, where else?”"


def test_a_long_conversation_is_cut_and_goes_on():
    text = "\n\n".join(f"“Turn {n}.”" for n in range(20))
    sizes = [len(piece.record()["messages"]) for piece in curriculum.conversations(Document(text))]
    assert sizes == [12, 8]


@given(st.lists(st.integers(0, 50), max_size=80), st.integers(1, 20), st.randoms())
def test_a_sample_does_not_depend_on_the_order(numbers, limit, random):
    shuffled = random.sample(numbers, len(numbers))
    both = []
    for order in (numbers, shuffled):
        sample = Sample(limit, 0)
        for number in order:
            sample.add(Piece(str(number)))
        both.append([piece.text for piece in sample.pieces()])
    assert both[0] == both[1]
    assert len(set(both[0])) == len(both[0]) == min(limit, len(set(numbers)))


def test_a_sample_is_even_and_follows_the_seed():
    first, second = Sample(500, 0), Sample(500, 1)
    for number in range(5000):
        first.add(Piece(str(number)))
        second.add(Piece(str(number)))
    kept = {int(piece.text) for piece in first.pieces()}
    assert abs(sum(number < 2500 for number in kept) - 250) < 50
    assert kept != {int(piece.text) for piece in second.pieces()}


def test_all_phases_and_their_statistics(tmp_path):
    (tmp_path / "book.txt").write_text(f"{PROSE}\n\n{PROSE}\n\n{TALK}\n\n{PROSE}")
    words = tokenizers.train("bpe", [PROSE], 300)
    out = tmp_path / "out"
    statistics = build_curriculum(str(tmp_path / "book.txt"), out, tokenizer=words)
    assert list(statistics) == list(curriculum.PHASES)
    for phase, facts in statistics.items():
        records = records_of(out / f"{phase}.jsonl")
        assert facts["count"] == len(records)
        assert facts["characters"] == sum(len(record["text"]) for record in records)
        assert facts["tokens"] >= facts["words"]
        assert facts["length"]["tokens"]["100%"] <= facts["tokens"]
    assert records_of(out / "words.jsonl")[0] == {"text": "the", "count": 24}
    phases = yaml.safe_load((out / "phases.yaml").read_text())["phases"]
    contexts = [phase["context"] for phase in phases]
    assert [phase["name"] for phase in phases] == list(curriculum.PHASES)
    assert contexts == sorted(contexts)
    assert all(context & (context - 1) == 0 for context in contexts)
    assert sum(phase["share"] for phase in phases) == pytest.approx(1)
    assert statistics["stories"]["length"]["tokens"]["90%"] < phases[3]["context"]
    assert changes(out) == []


def test_a_phase_without_pieces_is_left_out(tmp_path):
    (tmp_path / "list.txt").write_text("apples pears plums")
    statistics = build_curriculum(str(tmp_path / "list.txt"), tmp_path / "out")
    assert statistics["conversations"] == {"count": 0, "found": 0}
    phases = yaml.safe_load((tmp_path / "out" / "phases.yaml").read_text())["phases"]
    assert [phase["name"] for phase in phases] == ["words", "phrases"]
    assert sum(phase["share"] for phase in phases) == pytest.approx(1, abs=1e-3)


def test_impossible_requests_are_refused(tmp_path):
    (tmp_path / "numbers.txt").write_text("1 2 3")
    with pytest.raises(DataError, match="has no words"):
        build_curriculum(str(tmp_path / "numbers.txt"), tmp_path / "out")
    with pytest.raises(ConfigError, match="limit 0"):
        build_curriculum(str(tmp_path / "numbers.txt"), tmp_path / "out", limit=0)
