"""Capital letters as a mark and a small letter, so that `The` and `the` share their pieces.

    The NASA budget      ⇧the NASA budget
    Did Alice wait?      ⇧did⇧ alice wait?

The mark stands before the word and before its space, which leaves ` alice` one piece. It is for
A to Z before a small letter; other capitals are characters like any other. A `⇧` of the text
itself is written with a control character after it, and so every text can be told from the marks.
"""

from __future__ import annotations

from string import ascii_uppercase

from tokenizers import Regex, decoders, normalizers

MARK = "⇧"
LITERAL = "\x1a"
"""After a mark: the character ⇧ is meant (ASCII's own name for this one is "substitute")."""


def to_marks() -> normalizers.Normalizer:
    """From text to marked text.

    A new character takes the offsets of the last one that it replaces. So marks come before the
    space in a step of its own, and ` alice` keeps the offsets of the space and the name.
    """
    replace = normalizers.Replace
    return normalizers.Sequence(
        [
            replace(MARK, MARK + LITERAL),
            replace(Regex(" (?=[A-Z][a-z])"), f"{MARK} "),
            *(replace(Regex(f"{big}(?=[a-z])"), MARK + big.lower()) for big in ascii_uppercase),
            replace(Regex(f"(?<={MARK} ){MARK}(?=[a-z])"), ""),
        ]
    )


def from_marks() -> list[decoders.Decoder]:
    """From marked text, whole and not in tokens, back to text; a mark before no letter is lost."""
    replace = decoders.Replace
    return [
        replace(f"{MARK} ", f" {MARK}"),
        *(replace(MARK + big.lower(), big) for big in ascii_uppercase),
        replace(Regex(f"{MARK}(?!{LITERAL})"), ""),
        replace(MARK + LITERAL, MARK),
    ]
