"""One form for each kind of record that models are tuned and tested on, whatever it came as.

    Question     question on a context, answers that are spans of it    SQuAD, FairytaleQA, ours
    Problem      question, worked steps, short answer                   GSM8K
    Instruction  instruction, input, output                             Dolly, Alpaca
    Preference   prompt as messages, chosen and rejected answer         HH-RLHF, UltraFeedback
    Tagged       text, labelled spans of characters                     CoNLL-like BIO files, PII

`as_json(record)` is the record with a field `kind`, as written by `spikeloom data records`; reading
that gives the record back. The shapes that are understood stand in `_READERS`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from spikeloom.data.sources import objects
from spikeloom.errors import DataError


@dataclass(frozen=True)
class Answer:
    """An answer at `context[start : start + len(text)]`; None: it is not in the context."""

    text: str
    start: int | None


@dataclass(frozen=True)
class Question:
    """A question that its context answers; `source` is the article's title."""

    id: str
    source: str
    context: str
    question: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Problem:
    """A question with the steps to its short answer (calculator marks `<<…>>` left out)."""

    question: str
    steps: str
    answer: str


@dataclass(frozen=True)
class Instruction:
    """What to do, on what (may be empty), and how it was done."""

    instruction: str
    input: str
    output: str
    source: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is user, assistant or system."""

    role: str
    content: str


@dataclass(frozen=True)
class Preference:
    """A conversation so far, with a better and a worse way to go on."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive), and what they are."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Tagged:
    """A text with labelled spans, in order and without overlap."""

    text: str
    spans: tuple[Span, ...]


Record = Question | Problem | Instruction | Preference | Tagged
Raw = dict[str, Any]


def read_records(source: str) -> Iterator[Record]:
    """The records of a file, a folder, a glob or `hub:NAME`, see `sources`.

    Raises:
        DataError: a record is of no shape that is known, or contradicts itself.
    """
    for place, raw in objects(source):
        yield as_record(raw, place)


def as_record(raw: Raw, place: str) -> Record:
    """A record of any known shape in our form.

    Args:
        raw: as it was read.
        place: where it stands, for messages.

    Raises:
        DataError: its shape is unknown, or it contradicts itself.
    """
    for needed, read in _READERS:
        if all(any(key in raw for key in keys.split("|")) for keys in needed):
            try:
                return read(raw)
            except (KeyError, TypeError, AttributeError, ValueError) as exc:
                what = f"lacks {exc}" if isinstance(exc, KeyError) else str(exc)
                raise DataError(f"{place}: {what}") from exc
    has = ", ".join(f"'{key}'" for key in raw) or "nothing"
    shapes = "; ".join(" + ".join(needed) for needed, _ in _READERS)
    raise DataError(f"{place}: {has} is no shape of record that is known: {shapes}")


def as_json(record: Record) -> Raw:
    """The record as a plain tree, its kind first."""
    return {"kind": type(record).__name__.lower(), **asdict(record)}


def _question(raw: Raw) -> Question:
    context = _text(raw, "context")
    answers = tuple(_answer(answer, context) for answer in _listed(raw["answers"]))
    source = _text(raw, "source|title|story", "")
    return Question(str(raw.get("id", "")), source, context, _text(raw, "question"), answers)


def _listed(answers: Any) -> list[Any]:
    """A list of answers, for the hub's table of two columns too."""
    if isinstance(answers, dict):
        pairs = zip(answers["text"], answers["answer_start"], strict=True)
        return [{"text": text, "start": start} for text, start in pairs]
    return list(answers)


def _answer(answer: Any, context: str) -> Answer:
    if isinstance(answer, str):
        found = context.find(answer)
        return Answer(answer, found if answer and found >= 0 else None)
    text, start = _text(answer, "text"), answer.get("start", answer.get("answer_start"))
    if start is not None and context[start : start + len(text)] != text:
        raise ValueError(f"the context does not hold the answer {text!r} at {start}")
    return Answer(text, start)


def _problem(raw: Raw) -> Problem:
    if "steps" in raw:
        return Problem(_text(raw, "question"), _text(raw, "steps"), _text(raw, "answer"))
    steps, mark, answer = _text(raw, "answer").rpartition("####")
    if not mark:
        raise ValueError("the answer has no last line '#### number'")
    return Problem(_text(raw, "question"), re.sub(r"<<.*?>>", "", steps).strip(), answer.strip())


def _instruction(raw: Raw) -> Instruction:
    given, output = _text(raw, "input|context", ""), _text(raw, "output|response")
    return Instruction(_text(raw, "instruction"), given, output, _text(raw, "source", ""))


def _preference(raw: Raw) -> Preference:
    prompt = _messages(raw["prompt"]) if "prompt" in raw else ()
    before, chosen = _split_last(raw["chosen"])
    _, rejected = _split_last(raw["rejected"])
    if not (prompt or before):
        raise ValueError("there is no prompt")
    return Preference(prompt or before, chosen, rejected, _text(raw, "source", ""))


def _split_last(answer: Any) -> tuple[tuple[Message, ...], str]:
    """The turns before, and the last one: of a list of messages, or of HH-RLHF's transcript."""
    if isinstance(answer, str) and not answer.lstrip().startswith("Human:"):
        return (), answer
    messages = _messages(answer)
    return messages[:-1], messages[-1].content


def _messages(turns: Any) -> tuple[Message, ...]:
    if not isinstance(turns, str):
        return tuple(Message(_text(t, "role"), _text(t, "content")) for t in turns)
    if not turns.lstrip().startswith("Human:"):
        return (Message("user", turns),)
    parts = re.split(r"(?:^|\n\n)(Human|Assistant): ?", turns.strip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return tuple(Message(roles[who], said.strip()) for who, said in pairs)


def _tokens(raw: Raw) -> Tagged:
    """Tokens with BIO (or IOB) tags; the text is the tokens with spaces between."""
    tokens, tags = raw["tokens"], raw["tags" if "tags" in raw else "ner_tags"]
    if len(tokens) != len(tags):
        raise ValueError(f"{len(tokens)} tokens, but {len(tags)} tags")
    if not all(isinstance(tag, str) for tag in tags):
        raise ValueError("the tags are numbers: give their names")
    for i, tag in enumerate(tags):
        if tag != "O" and not re.fullmatch(r"[BI]-\S+", tag):
            raise ValueError(f"tags[{i}]: {tag!r} is none of O, B-TYPE and I-TYPE")
    spans: list[Span] = []
    position, before = 0, "O"
    for token, tag in zip(tokens, tags, strict=True):
        end = position + len(token)
        goes_on = tag[:2] == "I-" and before[2:] == tag[2:]
        if goes_on:
            spans[-1] = Span(spans[-1].start, end, tag[2:])
        elif tag != "O":
            spans.append(Span(position, end, tag[2:]))
        position, before = end + 1, tag
    return Tagged(" ".join(tokens), tuple(spans))


def _spans(raw: Raw) -> Tagged:
    text = _text(raw, "text")
    given = [_span(span, f"spans[{i}]", len(text)) for i, span in enumerate(raw["spans"])]
    spans = sorted(given, key=lambda span: span.start)
    for before, span in itertools.pairwise(spans):
        if span.start < before.end:
            i = given.index(span)
            raise ValueError(f"spans[{i}]: {raw['spans'][i]!r} overlaps another")
    return Tagged(text, tuple(spans))


def _span(raw: Any, field: str, length: int) -> Span:
    """A span of a text of so many characters."""
    if not isinstance(raw, dict) or raw.keys() != {"start", "end", "label"}:
        raise ValueError(f"{field}: {raw!r} is not {{start, end, label}}")
    start, end, label = raw["start"], raw["end"], raw["label"]
    if not (isinstance(label, str) and re.fullmatch(r"\S+", label)):
        raise ValueError(f"{field}.label: {label!r} is no name of a type")
    if not all(type(place) is int for place in (start, end)) or not 0 <= start < end <= length:
        raise ValueError(f"{field}: {start!r} to {end!r} is no part of {length} characters")
    return Span(start, end, label)


def _text(raw: Raw, names: str, default: str | None = None) -> str:
    """The first field of that name (`a|b`) that is there, as text; null counts as absent."""
    for name in names.split("|"):
        value = raw.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise TypeError(f"'{name}' is a {type(value).__name__}, not text")
            return value
    if default is None:
        raise KeyError(names)
    return default


_READERS: list[tuple[tuple[str, ...], Callable[[Raw], Record]]] = [
    (("context", "question", "answers"), _question),
    (("question", "answer"), _problem),
    (("chosen", "rejected"), _preference),
    (("instruction", "output|response"), _instruction),
    (("tokens", "tags|ner_tags"), _tokens),
    (("text", "spans"), _spans),
]
