"""Syllables as tokens: the most frequent ones of pyphen's hyphenation, and bytes for the rest.

pyphen is asked while learning only. What encodes is a Unigram model, which takes the segmentation
of a word with the highest sum of scores (Kudo 2018, arXiv:1804.10959); the scores are learned such
that, of all ways to write a word in the vocabulary, pyphen's wins. A word with a syllable outside
the vocabulary gets shorter pieces, down to letters, and a character outside it its UTF-8 bytes.

    a piece begins with the space before it; capital letters are marked (`capitals.py`)
    numbers are cut after two digits; punctuation and white space are pieces where frequent
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from string import ascii_lowercase

import pyphen
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spikeloom.tokenizers.capitals import LITERAL, MARK, from_marks, to_marks
from spikeloom.tokenizers.char import ASCII, UPPER_BYTES
from spikeloom.tokenizers.sample import sample
from spikeloom.tokenizers.special import SPECIAL_TOKENS, wrap

LANGUAGE = "en_US"
"""Whose hyphenation; any other text is written as exactly, with more tokens."""

# Every word can begin with a piece that holds its space and its first letter. So a capital's mark
# is right before the token with its letter, and a text that is shown token by token needs no more.
_STARTS = tuple(f" {letter}" for letter in ascii_lowercase)
_LETTERS = (*ASCII, MARK, *_STARTS)
_FIXED = (*SPECIAL_TOKENS, *UPPER_BYTES)  # in the vocabulary, but no text is matched with them
SMALLEST_SYLLABLES = len(_FIXED) + len(_LETTERS)
"""A vocabulary of letters, with no syllables at all."""

_NEVER = -1e4  # a score that no path through a word can afford
_LAST_RESORT = -1e3  # for a space without its letter: less than any path through a word
_ROUNDS = 20
_CHUNK = re.compile(" *[^ ]+| +")
_WORDS = (
    rf"{MARK}{LITERAL}?"
    r"|'(?:[sdmt]|ll|ve|re)(?![\p{L}\p{M}])"
    r"| ?[\p{L}\p{M}]+"
    r"| ?\p{N}{1,2}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}{MARK}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)

Syllables = dict[str, list[str]]


def train_syllable(documents: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn at most `vocab_size` tokens from the first `SAMPLE_BYTES` of the documents."""
    counts = _count_words(documents)
    syllables = {word: hyphenate(word) for word in counts}
    frequencies = _count_pieces(counts, syllables)
    pieces = _most_frequent(frequencies, vocab_size - SMALLEST_SYLLABLES)
    scores = _fit_scores([*_LETTERS, *pieces], frequencies, counts, syllables)
    backend = Tokenizer(_model(scores))
    backend.normalizer = to_marks()
    backend.pre_tokenizer = pre_tokenizers.Sequence([_unknown_alone(scores), _words()])
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), *from_marks()])
    return wrap(backend)


def agreement(tokenizer: PreTrainedTokenizerFast, documents: Iterable[str]) -> tuple[float, float]:
    """How closely a tokenizer of this kind follows pyphen, in shares of the words of a text.

    Returns:
        The share of words with all syllables in the vocabulary, and, of these, the share that is
        cut as pyphen cuts it. A word counts as often as it occurs.
    """
    vocabulary = tokenizer.get_vocab()
    words = Counter({w: n for w, n in _count_words(documents).items() if w.lstrip(" ").isalpha()})
    syllables = {word: hyphenate(word) for word in words}
    known = [w for w in words if all(piece in vocabulary for piece in syllables[w])]
    right, _ = _mistakes(tokenizer.backend_tokenizer.model, known, words, syllables)
    occurrences = sum(words[word] for word in known)
    return occurrences / max(1, words.total()), right / max(1, occurrences)


def hyphenate(word: str) -> list[str]:
    """The syllables of a word, the first with the space before it; anything else in one piece."""
    bare = word.lstrip(" ")
    if not bare.isalpha():
        return [word]
    space = len(word) - len(bare)
    cuts = [0, *(space + int(cut) for cut in _hyphenator().positions(bare)), len(word)]
    return [word[a:b] for a, b in pairwise(cuts)]


@cache
def _hyphenator() -> pyphen.Pyphen:
    return pyphen.Pyphen(lang=LANGUAGE)


def _count_words(documents: Iterable[str]) -> Counter[str]:
    """How often each word occurs, as the model will see it: marked, and split from the others."""
    chunks: Counter[str] = Counter()
    for text in sample(documents):
        chunks.update(match.group() for match in _CHUNK.finditer(text))
    normalizer, splitter = to_marks(), _words()
    words: Counter[str] = Counter()
    for chunk, count in chunks.items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(chunk)):
            words[word] += count
    return words


def _count_pieces(counts: Counter[str], syllables: Syllables) -> Counter[str]:
    """How often each syllable occurs, and each character that is not ASCII."""
    pieces: Counter[str] = Counter()
    for word, count in counts.items():
        for piece in syllables[word]:
            pieces[piece] += count
            if not piece.isascii() and len(piece) > 1:
                for char in piece:
                    pieces[char] += count * (not char.isascii())
    return pieces


def _most_frequent(frequencies: Counter[str], room: int) -> list[str]:
    """A character is at least as frequent as any piece that it is in, so it never lacks."""
    candidates = frequencies.keys() - set(_LETTERS)
    return sorted(candidates, key=lambda piece: (-frequencies[piece], len(piece), piece))[:room]


def _fit_scores(
    pieces: list[str], frequencies: Counter[str], counts: Counter[str], syllables: Syllables
) -> dict[str, float]:
    """Scores with which the model cuts words as pyphen does: a structured perceptron.

    It begins with log frequencies. A round raises a piece by half the share of its uses that the
    model missed, and lowers one that it used in vain; the scores of the best round are kept.
    """
    total = sum(frequencies.values())
    scores = {piece: math.log((frequencies[piece] + 1) / total) for piece in pieces}
    scores[" "] = _LAST_RESORT
    words = [word for word in counts if all(piece in scores for piece in syllables[word])]
    best, most = scores, -1
    for _ in range(_ROUNDS):
        right, change = _mistakes(_model(scores), words, counts, syllables)
        if right > most:
            best, most = scores, right
        scores = {
            piece: score + 0.5 * max(-1.0, min(1.0, change[piece] / (frequencies[piece] + 1)))
            for piece, score in scores.items()
        }
    return best


def _mistakes(
    model: models.Model, words: list[str], counts: Counter[str], syllables: Syllables
) -> tuple[int, Counter[str]]:
    """How many words come out right, and how much more often each piece should be used."""
    right, change = 0, Counter[str]()
    for word, encoding in zip(words, Tokenizer(model).encode_batch(words), strict=True):
        if encoding.tokens == syllables[word]:
            right += counts[word]
            continue
        for piece in syllables[word]:
            change[piece] += counts[word]
        for piece in encoding.tokens:
            change[piece] -= counts[word]
    return right, change


def _model(scores: dict[str, float]) -> models.Model:
    vocabulary = [(token, _NEVER) for token in _FIXED] + list(scores.items())
    unknown = len(SPECIAL_TOKENS)  # never given out: the bytes stand in for it
    return models.Unigram(vocabulary, unk_id=unknown, byte_fallback=True)


def _words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(_WORDS), "isolated")


def _unknown_alone(scores: dict[str, float]) -> pre_tokenizers.PreTokenizer:
    """Next to each other, the model would give their bytes the offsets of all of them."""
    known = "".join(sorted(piece for piece in scores if len(piece) == 1 and not piece.isascii()))
    return pre_tokenizers.Split(Regex(rf"[^\x00-\x7f{known}]"), "isolated")
