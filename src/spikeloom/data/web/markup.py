"""Wiki markup to plain text: what a reader sees as prose, with headings as `== Heading ==`.

mwparserfromhell takes the page apart; here is decided what each piece reads as. Tables, pictures,
references, formulas and most templates are no prose and vanish; the few templates that stand inside
sentences are in `TEMPLATES`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

from spikeloom.errors import MissingExtraError

SILENT_TAGS = frozenset(
    {
        "ref",
        "references",
        "table",
        "gallery",
        "math",
        "chem",
        "timeline",
        "score",
        "syntaxhighlight",
        "source",
        "imagemap",
        "templatestyles",
        "hiero",
        "graph",
        "mapframe",
        "section",
    }
)
SILENT_SECTIONS = frozenset(
    {
        "see also",
        "references",
        "notes",
        "footnotes",
        "citations",
        "sources",
        "bibliography",
        "works cited",
        "further reading",
        "external links",
        "notes and references",
    }
)
_LANGUAGE_LINK = re.compile(r"[a-z]{2,3}(-[a-z-]+)?:")
_HEADING = re.compile(r"^(=+) (.*?) \1$")
# Before parsing: one odd quotation mark in a reference makes the parser give up on its tag.
_REFERENCE = re.compile(r"<ref\b[^>]*/>|<ref\b[^>]*>.*?</ref\s*>", re.DOTALL | re.IGNORECASE)
_CLEANING = (
    # What the parser could not close.
    (re.compile(r"\{\|.*?\n\|\}", re.DOTALL), ""),
    (re.compile(r"\[\[(?:File|Image):[^\n]*"), ""),
    (re.compile(r"</?[a-z]+\b[^<>\n]*>|\{\{|\}\}|\[\[|\]\]"), ""),
    (re.compile(r"'''(?=s\b)"), "'"),
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"__[A-Z]+__"), ""),
    # What silent pieces left.
    (re.compile(r"\(\s*[;,:]?\s*(?:or|and)?\s*\)"), ""),
    (re.compile(r"\(\s*[;,:]\s*"), "("),
    (re.compile(r"[,;]\s*\)"), ")"),
    (re.compile(r"[ \t\xa0]+"), " "),
    (re.compile(r" +([,.;:)])"), r"\1"),
    (re.compile(r"^ +| +$", re.MULTILINE), ""),
    (re.compile(r"\n{3,}"), "\n\n"),
)


def _place(*names: str) -> Callable[[Any], str]:
    """A template that reads as its parameters of these names, with spaces between."""

    def render(template: Any) -> str:
        values = [_render(template.get(n).value) for n in names if template.has(n)]
        return " ".join(value.strip() for value in values)

    return render


def _fraction(template: Any) -> str:
    return "/".join(_render(parameter.value).strip() for parameter in template.params)


TEMPLATES: dict[str, Callable[[Any], str]] = {
    "lang": _place("2"),
    "transl": _place("2"),
    "transliteration": _place("2"),
    "nowrap": _place("1"),
    "nobr": _place("1"),
    "small": _place("1"),
    "abbr": _place("1"),
    "ill": _place("1"),
    "interlanguage link": _place("1"),
    "quote": _place("text", "1"),
    "blockquote": _place("text", "1"),
    "cquote": _place("text", "1"),
    "convert": _place("1", "2"),
    "cvt": _place("1", "2"),
    "val": _place("1"),
    "circa": lambda template: "c. " + _place("1")(template),
    "c.": lambda template: "c. " + _place("1")(template),
    "as of": lambda template: "As of " + _place("1")(template),
    "frac": _fraction,
    "fraction": _fraction,
    "sfrac": _fraction,
    "spaced ndash": lambda template: " – ",
    "snd": lambda template: " – ",
    "ndash": lambda template: "–",
    "mdash": lambda template: "—",
    "'": lambda template: "'",
    "!": lambda template: "|",
}
DISAMBIGUATION = re.compile(r"\{\{\s*(?:disambig|disambiguation|geodis|hndis|dab)\b", re.IGNORECASE)


class MarkupError(ValueError):
    """The parser gave the page up."""


def plain_text(markup: str) -> tuple[str, list[str]]:
    """The prose of a page, and its categories.

    Raises:
        MarkupError: mwparserfromhell cannot read it.
        MissingExtraError: it is not installed.
    """
    try:
        import mwparserfromhell
        from mwparserfromhell.parser import ParserError
    except ImportError:
        raise MissingExtraError("mwparserfromhell", "web") from None
    try:
        code = mwparserfromhell.parse(_REFERENCE.sub("", markup))
        return _tidy(_render(code)), _categories(code)
    except (ParserError, RecursionError) as exc:
        raise MarkupError(str(exc)) from exc


def _categories(code: Any) -> list[str]:
    titles = (str(link.title).strip() for link in code.ifilter_wikilinks())
    names = [t.partition(":")[2].strip() for t in titles if t.lower().startswith("category:")]
    return list(dict.fromkeys(names))


def _render(code: Any) -> str:
    return "".join(_RENDER.get(type(node).__name__, _nothing)(node) for node in code.nodes)


def _nothing(node: Any) -> str:
    return ""


def _link(node: Any) -> str:
    title = str(node.title).strip()
    if not title.startswith(":"):  # [[:Category:X]] shows itself, [[Category:X]] does not
        space = title.partition(":")[0].lower() if ":" in title else ""
        if space in ("file", "image", "media", "category") or _LANGUAGE_LINK.match(title):
            return ""
    return _render(node.text) if node.text is not None else title.removeprefix(":")


def _external(node: Any) -> str:
    return _render(node.title) if node.title is not None else ""


def _tag(node: Any) -> str:
    name = str(node.tag).strip().lower()
    if name in SILENT_TAGS:
        return ""
    if name == "br":
        return "\n"
    inside = _render(node.contents) if node.contents is not None else ""
    return f"{inside}\n" if name in ("p", "div", "blockquote", "center") else inside


def _heading(node: Any) -> str:
    bars = "=" * node.level
    return f"\n\n{bars} {_render(node.title).strip()} {bars}\n"


def _template(node: Any) -> str:
    name = re.sub(r"[\s_]+", " ", str(node.name)).strip().lower()
    if name.startswith("lang-"):  # {{lang-fr|mot}}
        return _place("1")(node)
    return TEMPLATES.get(name, _nothing)(node)


_RENDER: dict[str, Callable[[Any], str]] = {
    "Text": lambda node: str(node.value),
    "HTMLEntity": lambda node: html.unescape(str(node)),
    "Wikilink": _link,
    "ExternalLink": _external,
    "Tag": _tag,
    "Heading": _heading,
    "Template": _template,
}


def _tidy(text: str) -> str:
    """White space and left-over brackets mended, sections without prose dropped."""
    for pattern, put in _CLEANING:
        text = pattern.sub(put, text)
    return "\n\n".join(_with_prose(_sections(text)))


def _sections(text: str) -> list[tuple[int, str, str]]:
    """(level, heading, body) of each section; the lead has level 0 and no heading."""
    sections, body = [(0, "")], [[]]  # type: ignore[var-annotated]
    for line in text.split("\n"):
        if match := _HEADING.match(line.strip()):
            sections.append((len(match[1]), match[2]))
            body.append([])
        else:
            body[-1].append(line)
    return [(*head, "\n".join(lines).strip()) for head, lines in zip(sections, body, strict=True)]


def _with_prose(sections: list[tuple[int, str, str]]) -> list[str]:
    """The sections as text, from the last to the first: a heading stays if anything is below it."""
    kept: list[tuple[int, str]] = []
    for level, heading, body in reversed(_without_silent(sections)):
        has_below = bool(kept) and kept[-1][0] > level
        if level == 0:
            kept.append((level, body))
        elif body or has_below:
            kept.append((level, f"{'=' * level} {heading} {'=' * level}\n{body}".rstrip()))
    return [text for _, text in reversed(kept) if text]


def _without_silent(sections: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    kept, silent = [], 0  # level of the silent section that we are in; 0: none
    for level, heading, body in sections:
        if silent and level > silent:
            continue
        silent = level if heading.lower() in SILENT_SECTIONS else 0
        if not silent:
            kept.append((level, heading, body))
    return kept
