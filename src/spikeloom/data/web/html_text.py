"""The prose of a scientific article that LaTeXML turned into HTML (arxiv.org/html)."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "wbr", "col", "source", "area"})
_SILENT_TAGS = frozenset({"script", "style", "nav", "figure", "table", "button", "svg", "footer"})
_SILENT_CLASSES = frozenset(
    {
        "ltx_bibliography",
        "ltx_note",
        "ltx_authors",
        "ltx_dates",
        "ltx_equationgroup",
        "ltx_tag_item",
        "ltx_page_footer",
        "ltx_page_navbar",
    }
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset({"p", "li", "div", "section", "article", "dd", "dt", "blockquote"})


def article_text(page: str) -> str:
    """Paragraphs and headings (`== Heading ==`) of the `<article>`; formulas as `$TeX$`.

    Tables, figures, footnotes and references are left out. Empty if there is no article.
    """
    parser = _Article()
    parser.feed(page)
    parser.close()
    blocks = (re.sub(r"\s+", " ", block).strip() for block in "".join(parser.pieces).split("\0"))
    return "\n\n".join(block for block in blocks if re.sub(r"[= ]", "", block))


class _Article(HTMLParser):
    """Gathers text in `pieces`, with NUL between blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.open: list[tuple[str, bool]] = []  # tag, and whether all below it is silent

    @property
    def silent(self) -> bool:
        return not self.open or self.open[-1][1]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID or (not self.open and tag != "article"):
            return
        given = dict(attrs)
        if tag == "math" and not self.silent and given.get("alttext"):
            self.pieces.append(f"${given['alttext']}$")
        self._mark(tag, opens=True)
        classes = set((given.get("class") or "").split())
        hushed = tag in _SILENT_TAGS or tag == "math" or bool(classes & _SILENT_CLASSES)
        self.open.append((tag, hushed or (bool(self.open) and self.silent)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in (name for name, _ in self.open):
            return
        while self.open.pop()[0] != tag:
            pass
        self._mark(tag, opens=False)

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.pieces.append(data.replace("\0", ""))

    def _mark(self, tag: str, opens: bool) -> None:
        if tag in _HEADINGS:
            bars = "=" * max(_HEADINGS[tag], 2)
            self.pieces.append(f"\0{bars} " if opens else f" {bars}\0")
        elif tag in _BLOCKS:
            self.pieces.append("\0")
