"""Project Gutenberg: the catalogue record of a book, its text, and what is hot.

    /cache/epub/84/pg84.rdf   title, authors, language, rights (RDF)
    /cache/epub/84/pg84.txt   the text, between START and END marks
    /browse/scores/top        the hundred most downloaded

The site asks robots to keep two seconds between requests, and to prefer mirrors for many books:
https://www.gutenberg.org/policy/robot_access.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

from spikeloom.data.web.client import Client, FetchError

SITE = "https://www.gutenberg.org"
SPACING = 2.0  # seconds
FREE = "Public domain in the USA."

_DC = "{http://purl.org/dc/terms/}"
_PG = "{http://www.gutenberg.org/2009/pgterms/}"
_VALUE = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}value"

_START = re.compile(
    r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG[^*]*\*\*\*.*$"
    r"|^\*+ ?END ?\*? ?THE SMALL PRINT!.*$",
    re.MULTILINE | re.IGNORECASE,
)
_END = re.compile(
    r"^\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|^[ \t]*(?:The )?End of (?:the |this )?Project Gutenberg(?:['’]s)? (?:e-?text|e-?book|[A-Z])",
    re.MULTILINE | re.IGNORECASE,
)
_WORK = "(?:produced|prepared|scanned|transcribed|proofread)"
_CREDIT = re.compile(
    rf"(?:{_WORK}|(?:this )?e-?(?:text|book) (?:was )?{_WORK}) by\b|\[?transcriber['’]s note",
    re.IGNORECASE,
)
_FIRST_PARAGRAPHS = 4  # among which credits are looked for


class NoBookError(FetchError):
    """The number leads to nothing that can be taken; the message is the reason in a few words."""


@dataclass(frozen=True)
class Gutenberg:
    """The site, or a mirror of it.

    Args:
        client: who asks; its manners should keep `SPACING`.
        site: address without a slash at the end.
    """

    client: Client
    site: str = SITE

    def facts(self, number: int) -> dict[str, Any]:
        """What the catalogue knows of a book; raises `NotFoundError` if it is not there."""
        return book_facts(self.client.xml(f"{self._folder(number)}.rdf"))

    def text(self, number: int) -> str:
        """The book without licence and credits.

        Raises:
            NotFoundError: it has no plain text.
            NoBookError: the marks are missing.
        """
        return between_marks(self.client.text(f"{self._folder(number)}.txt"))

    def top(self) -> list[int]:
        """The numbers of the hundred most downloaded books of the last 30 days, in order."""
        return self.client.get(f"{self.site}/browse/scores/top", _top_numbers)

    def _folder(self, number: int) -> str:
        return f"{self.site}/cache/epub/{number}/pg{number}"


def book_facts(root: ElementTree.Element) -> dict[str, Any]:
    """Title, authors, language, subjects, shelves, rights and issue date of an RDF record."""
    creators = root.iterfind(f".//{_DC}creator//{_PG}name")
    return {
        "title": re.sub(r"\s*[\r\n]+\s*", ": ", _text(root, f".//{_DC}title")),
        "authors": [name.text or "" for name in creators],
        "language": _text(root, f".//{_DC}language//{_VALUE}"),
        "subjects": [e.text or "" for e in root.iterfind(f".//{_DC}subject//{_VALUE}")],
        "bookshelves": [e.text or "" for e in root.iterfind(f".//{_PG}bookshelf//{_VALUE}")],
        "rights": _text(root, f".//{_DC}rights"),
        "issued": _text(root, f".//{_DC}issued"),
    }


def between_marks(raw: str) -> str:
    """The text between the START and END marks of any age, credits left out.

    Raises:
        NoBookError: a mark is missing: the file may be cut short, or hold no book.
    """
    raw = raw.replace("\r\n", "\n")
    starts = list(_START.finditer(raw))
    if not starts:
        raise NoBookError("no start mark")
    first_end = _END.search(raw, starts[0].end())
    if first_end is None:
        raise NoBookError("no end mark")
    start = [s for s in starts if s.end() <= first_end.start()][-1]
    return _without_credits(raw[start.end() : first_end.start()].strip())


def unwrap(text: str) -> str:
    """One line a paragraph where the lines were broken to fill a page; verse stays as it is."""
    return "\n\n".join(_unwrapped(paragraph) for paragraph in re.split(r"\n{2,}", text))


def _unwrapped(paragraph: str) -> str:
    lines = paragraph.split("\n")
    prose = all(len(line) >= 45 and line[0] != " " for line in lines[:-1])
    return " ".join(lines) if prose and not lines[-1].startswith(" ") else paragraph


def _without_credits(text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", text)
    head, rest = paragraphs[:_FIRST_PARAGRAPHS], paragraphs[_FIRST_PARAGRAPHS:]
    kept = [p for p in head if not _CREDIT.match(p.strip().replace("\n", " "))]
    return text if len(kept) == len(head) else "\n\n".join([*kept, *rest]).strip()


def _text(root: ElementTree.Element, path: str) -> str:
    return (root.findtext(path) or "").strip()


class _TopList(HTMLParser):
    """Collects the links of the list after the heading `books-last30`."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "h2":
            self.inside = given.get("id") == "books-last30"
        book = re.fullmatch(r"/ebooks/(\d+)", given.get("href") or "")
        if self.inside and tag == "a" and book:
            self.numbers.append(int(book[1]))


def _top_numbers(body: bytes) -> list[int]:
    page = _TopList()
    page.feed(body.decode("utf-8"))
    if not page.numbers:
        raise ValueError("no list of books in it")
    return page.numbers
