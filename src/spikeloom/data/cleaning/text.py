"""What is done to the characters of a document before anybody judges it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_LINE_ENDS = re.compile("\r\n?|\x85|\u2028|\u2029|\x0b|\x0c")
# C0 and C1 controls but tab and line feed, soft hyphens, zero-width characters, direction and other
# format marks, private use, non-characters and the replacement character. Joiners stay: scripts and
# emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ue000-\uf8ff"
    "\ufeff\ufff0-\uffff]"
)
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_UNKNOWN = re.compile(r"<unk>|\[unk\]", re.IGNORECASE)
_CHUNK = re.compile(r"\n\s*\n")


def normalised(text: str) -> str:
    """NFC, `\\n` line ends, plain spaces, nothing unseen, at most one blank line in a row."""
    text = unicodedata.normalize("NFC", _LINE_ENDS.sub("\n", text))
    text = _SPACES.sub(" ", _UNSEEN.sub("", text))
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text)).strip("\n")


def marked_unknown(chunk: str) -> bool:
    """Whether `<unk>`, `<UNK>` or `[UNK]` stands in the place of a word that was lost."""
    return _UNKNOWN.search(chunk) is not None


def without_unknown(text: str, unknown: Callable[[str], bool]) -> tuple[str, list[str]]:
    """The text without its chunks (paragraphs) that `unknown` holds of, and these chunks."""
    if not unknown(text):
        return text, []
    chunks = _CHUNK.split(text)
    lost = [chunk for chunk in chunks if unknown(chunk)]
    return "\n\n".join(chunk for chunk in chunks if not unknown(chunk)), lost
