"""Words and the colours they call to mind: what the colour demo learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.backends.numpy.layers import IGNORED
from spikeloom.backends.weights import Array
from spikeloom.errors import DataError

COLOURS = ("black", "blue", "green", "orange", "purple", "red", "white", "yellow")
Pairs = list[tuple[str, str]]


def read_pairs(path: Path) -> Pairs:
    """`{"word": …, "colour": …}` a line, the colour one of `COLOURS`.

    Raises:
        DataError: the file or a line of it is not that.
    """
    pairs: Pairs = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            word, colour = record["word"], record["colour"]
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f'{path}, line {number}: expected {{"word": …, "colour": …}}, got {line[:60]!r}'
            ) from None
        if colour not in COLOURS or not isinstance(word, str) or not word:
            raise DataError(
                f"{path}, line {number}: {word!r}, {colour!r}: expected a word and one of "
                f"{', '.join(COLOURS)}"
            )
        pairs.append((word, colour))
    if not pairs:
        raise DataError(f"{path} is empty: expected a word and its colour on every line")
    return pairs


def xkcd_pairs() -> Pairs:
    """The 949 colour names of the xkcd survey, as matplotlib carries them, with one of the eight.

    The last of the eight that stands in the name as a word ("greenish blue" is blue), else the
    nearest, by squared distance in RGB, to what the survey calls plainly `black`, `blue`, ….
    """
    from matplotlib.colors import XKCD_COLORS, to_rgb

    plain = {colour: to_rgb(f"xkcd:{colour}") for colour in COLOURS}

    def colour_of(name: str, code: Any) -> str:
        said = [word for word in name.replace("/", " ").split() if word in COLOURS]
        return said[-1] if said else min(COLOURS, key=lambda c: distance(plain[c], to_rgb(code)))

    def distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
        return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))

    names = {name.removeprefix("xkcd:"): code for name, code in XKCD_COLORS.items()}
    return [(name, colour_of(name, code)) for name, code in names.items()]


def encode(pairs: Pairs, size: int) -> tuple[list[tuple[Array, Array]], int]:
    """Batches of words of similar length, tokens and targets `[B, L]`, and the vocabulary's size.

    Tokens 0 to 7 are the colours, 8 is padding; only the last letter of a word has a target.
    """
    letters = sorted({letter for word, _ in pairs for letter in word})
    ids = {letter: 9 + i for i, letter in enumerate(letters)}
    ordered = sorted(pairs, key=lambda pair: len(pair[0]))
    batches = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        tokens = np.full((len(part), len(part[-1][0])), 8)
        targets = np.full_like(tokens, IGNORED)
        for row, (word, colour) in enumerate(part):
            tokens[row, : len(word)] = [ids[letter] for letter in word]
            targets[row, len(word) - 1] = COLOURS.index(colour)
        batches.append((tokens, targets))
    return batches, 9 + len(letters)
