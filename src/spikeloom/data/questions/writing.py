"""From a source of articles to question records, with a count of what was rejected and why."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikeloom.data.manifest import write_whole
from spikeloom.data.questions.answers import Answers, Batches
from spikeloom.data.questions.claude import Claude, Question
from spikeloom.data.questions.cloze import cloze_pairs
from spikeloom.data.questions.pairs import Pair, check
from spikeloom.data.questions.prices import Price, estimated_tokens
from spikeloom.data.questions.sections import sections
from spikeloom.data.report import Report, silent
from spikeloom.data.sources import objects
from spikeloom.errors import DataError

SECTIONS = 5
OFFLINE = "offline"
_SAMPLES = 3  # rejected pairs of each reason that are shown


@dataclass(frozen=True)
class Section:
    """One section, with the numbers that lead back to it.

    Args:
        category: shelf or first category of the article, `none` if it has neither.
        category_id: counted as they first appear in the source.
        article_id: the article's pageid, else its number in the source.
        section_id: 0 to 4.
    """

    title: str
    category: str
    category_id: int
    article_id: int
    section_id: int
    text: str

    def key(self, how: str) -> str:
        """Changes with the text, and with who answers."""
        digest = hashlib.blake2b(self.text.encode(), digest_size=6).hexdigest()
        return f"{self.article_id}-{self.section_id}-{digest}-{how}"


@dataclass
class Outcome:
    """Records written, and pairs that were rejected, by reason, with samples."""

    articles: int = 0
    sections: int = 0
    unanswered: int = 0
    records: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    categories: dict[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0

    def reject(self, reason: str, pair: Pair) -> None:
        self.rejected[reason] += 1
        some = self.samples.setdefault(reason, [])
        if len(some) < _SAMPLES:
            some.append({"question": pair.question, "answer": pair.answer})


def read_sections(source: str, max_articles: int | None = None) -> list[Section]:
    """The sections of all articles (records with `text`; title, pageid, categories if there).

    An article whose pageid was there before is passed over.

    Raises:
        DataError: a record is no article.
    """
    categories: dict[str, int] = {}
    found: list[Section] = []
    seen: set[int] = set()
    for number, (place, raw) in enumerate(objects(source)):
        if len(seen) == max_articles:
            break
        if not isinstance(raw.get("text"), str):
            raise DataError(f"{place}: an article needs a 'text'")
        article = raw.get("pageid", number)
        if article in seen:
            continue
        seen.add(article)
        category = raw.get("shelf") or next(iter(raw.get("categories") or []), "none")
        category_id = categories.setdefault(category, len(categories))
        facts = (str(raw.get("title", "")), category, category_id, article)
        parts = sections(raw["text"], SECTIONS)
        found += [Section(*facts, index, text) for index, text in enumerate(parts)]
    if not found:
        raise DataError(f"{source} holds no article with text")
    return found


def estimate(sections: list[Section], out: Path, model: str, pairs: int, price: Price) -> Any:
    """What asking about the sections that are not answered yet would take; writes nothing."""
    with ExitStack() as open_files:
        there = Answers.path(out).exists()
        missing = _missing(sections, Answers(out, open_files) if there else {}, model)
    into, tokens_out = estimated_tokens((q.prompt(pairs) for q in missing), pairs)
    return {
        "sections": len(sections),
        "to_ask": len(missing),
        "input_tokens": into,
        "output_tokens": tokens_out,
        "dollars": price.dollars(into, tokens_out),
    }


def write_offline(
    sections: list[Section], out: Path, pairs: int, max_question_words: int | None = None
) -> Outcome:
    """Write gap questions made by rule."""
    proposed = [(section, cloze_pairs(section.text, pairs)) for section in sections]
    return _write(proposed, out, max_question_words, Outcome())


def write_with_claude(
    sections: list[Section],
    out: Path,
    claude: Claude,
    max_question_words: int | None = None,
    concurrency: int = 4,
    batch: bool = False,
    wait: bool = True,
    progress: Report = silent,
) -> Outcome:
    """Ask about every section that is not answered yet, then write all records.

    Args:
        sections: see `read_sections`.
        out: JSONL of records, written whole at the end; what was answered is kept beside it.
        claude: who is asked.
        max_question_words: longest question that is kept.
        concurrency: requests under way at a time (messages).
        batch: hand in batches, at half the price, answered within a day.
        wait: for batches to end; else they are read by the next run.
        progress: told of every answer.
    """
    with ExitStack() as open_files:
        answers, batches = Answers(out, open_files), Batches(out, open_files)
        _read_batches(claude, answers, batches, wait=wait or not batch)
        on_their_way = {key for _, keys in batches.waiting() for key in keys.values()}
        missing = _missing(sections, answers, claude.model)
        missing = [question for question in missing if question.key not in on_their_way]
        if batch:
            claude.send(missing, batches)
            _read_batches(claude, answers, batches, wait)
        else:
            for done, answered in enumerate(claude.ask(missing, concurrency), start=1):
                answers.add(answered)
                progress("sections", done, len(missing))
        proposed, outcome = [], Outcome()
        for section in sections:
            key = section.key(claude.model)
            if key in answers:
                found = answers[key]
                proposed.append((section, [Pair(*pair) for pair in found.pairs]))
                outcome.input_tokens += found.input_tokens
                outcome.output_tokens += found.output_tokens
            else:
                outcome.unanswered += 1
        return _write(proposed, out, max_question_words, outcome)


def _missing(sections: list[Section], answers: Container[str], model: str) -> list[Question]:
    questions = [Question(s.key(model), s.title, s.text) for s in sections]
    return [question for question in questions if question.key not in answers]


def _read_batches(claude: Claude, answers: Answers, batches: Batches, wait: bool) -> None:
    for batch, keys in batches.waiting():
        found = claude.collect(batch, keys, wait)
        if found is not None:
            for answered in found:
                answers.add(answered)
            batches.read(batch)


def _write(
    proposed: list[tuple[Section, list[Pair]]],
    out: Path,
    max_question_words: int | None,
    outcome: Outcome,
) -> Outcome:
    lines = []
    for section, pairs in proposed:
        outcome.sections += 1
        outcome.categories[section.category] = section.category_id
        for record in _checked(section, pairs, max_question_words, outcome):
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    outcome.articles = len({section.article_id for section, _ in proposed})
    outcome.records = len(lines)
    write_whole(out, "".join(lines))
    return outcome


def _checked(
    section: Section, pairs: list[Pair], max_question_words: int | None, outcome: Outcome
) -> Iterator[dict[str, Any]]:
    asked: set[str] = set()
    for pair in pairs:
        answer = check(pair, section.text, asked, max_question_words)
        if isinstance(answer, str):
            outcome.reject(answer, pair)
            continue
        yield {
            "kind": "question",
            "id": f"{section.article_id}-{section.section_id}-{len(asked) - 1}",
            "source": section.title,
            "category": section.category,
            "category_id": section.category_id,
            "article_id": section.article_id,
            "section_id": section.section_id,
            "context": section.text,
            "question": pair.question.strip(),
            "answers": [{"text": answer.text, "start": answer.start}],
        }
