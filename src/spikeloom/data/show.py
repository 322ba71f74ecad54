"""Print records so that a person can read them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spikeloom.data.records import (
    Instruction,
    Preference,
    Problem,
    Question,
    Record,
    Span,
    Tagged,
)

_LONGEST = 600  # characters of one field


def show(record: Record, number: int, console: Console) -> None:
    """One record as a table of two columns."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(record):
        table.add_row(name, value)
    console.print(f"[dim]{number}. {escape(type(record).__name__.lower())}[/]")
    console.print(table)
    console.print()


def _rows(record: Record) -> Iterator[tuple[str, Text]]:
    match record:
        case Question():
            inside = [a for a in record.answers if a.start is not None]
            spans = [Span(a.start or 0, (a.start or 0) + len(a.text), "") for a in inside]
            yield "source", _short(record.source)
            yield "context", _marked(record.context, spans)
            yield "question", _short(record.question)
            for answer in record.answers:
                place = "not in the context" if answer.start is None else f"at {answer.start}"
                yield "answer", _short(f"{answer.text} ({place})")
        case Problem():
            yield "question", _short(record.question)
            yield "steps", _short(record.steps)
            yield "answer", _short(record.answer)
        case Instruction():
            fields = ("instruction", "input", "output", "source")
            yield from ((f, _short(getattr(record, f))) for f in fields if getattr(record, f))
        case Preference():
            yield from ((message.role, _short(message.content)) for message in record.prompt)
            yield "chosen", _short(record.chosen)
            yield "rejected", _short(record.rejected)
        case Tagged():
            yield "text", _marked(record.text, record.spans)
            for span in record.spans:
                yield span.label, _short(record.text[span.start : span.end])


def _short(text: str) -> Text:
    return Text(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text)} characters)")


def _marked(text: str, spans: list[Span] | tuple[Span, ...]) -> Text:
    """The text with its spans underlined; of a long one, the part around the first span."""
    first = min((span.start for span in spans), default=0)
    start = max(first - _LONGEST // 3, 0) if len(text) > _LONGEST else 0
    part = Text(text)
    for span in spans:
        part.stylize("underline", span.start, span.end)
    shown = part[start : start + _LONGEST]
    cut = Text(" …") if start + _LONGEST < len(text) else Text("")
    return Text("… " if start else "") + shown + cut
