"""Train, load and identify tokenizers; text in, the same text out.

Everything here is a Hugging Face fast tokenizer, so `AutoTokenizer.from_pretrained` reads what
`save_pretrained` wrote. Ids 0 to 4 are the special tokens of `special.py`.

Special tokens in text: as everywhere in transformers, `tokenizer("<|end|>")` gives the special
token. Text to learn from must not be able to do that, so packing encodes with `literal`, which
spells such a string with ordinary tokens; both ways it decodes to the same string. For text from
a stranger use `tokenizer(text, split_special_tokens=True)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from spikeloom.errors import CheckpointError, ConfigError, DataError, did_you_mean
from spikeloom.tokenizers.bpe import train_bpe
from spikeloom.tokenizers.char import train_char
from spikeloom.tokenizers.special import SMALLEST_VOCABULARY
from spikeloom.tokenizers.syllable import SMALLEST_SYLLABLES, train_syllable

_KINDS = {"bpe": train_bpe, "char": train_char, "syllable": train_syllable}
_SMALLEST = {
    "bpe": SMALLEST_VOCABULARY,
    "char": SMALLEST_VOCABULARY,
    "syllable": SMALLEST_SYLLABLES,
}


def train(kind: str, documents: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer from text.

    Args:
        kind: `bpe` (byte-level) or `syllable` (English), learned from the first 50 MB; or `char`
            (all of the text).
        documents: texts; read once.
        vocab_size: the most tokens, special ones included; fewer if the text gives no more.

    Raises:
        ConfigError: unknown kind, or a vocabulary too small for 256 bytes and the special tokens.
        DataError: there are no documents.
    """
    if kind not in _KINDS:
        near = did_you_mean(kind, _KINDS)
        raise ConfigError(f"tokenizer kind '{kind}' is unknown{near}: use {', '.join(_KINDS)}")
    if vocab_size < _SMALLEST[kind]:
        need = f"{kind} needs at least {_SMALLEST[kind]} to be able to write any text"
        raise ConfigError(f"vocab_size {vocab_size} is too small: {need}")
    return _KINDS[kind](_not_empty(documents), vocab_size)


def load(directory: str | Path, vocab_size: int | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer in a directory: ours, or any other with a fast backend. Runs no remote code.

    Args:
        directory: with `tokenizer.json`, or whatever AutoTokenizer reads.
        vocab_size: of the model that will read its ids, if they have to fit.

    Raises:
        CheckpointError: the directory is missing, has no tokenizer, or a broken or slow one, or one
            whose ids the model has no embeddings for.
    """
    path = Path(directory)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory: give one with a tokenizer in it")
    # With tokenizer.json there is nothing to detect, and AutoTokenizer would warn of any model
    # beside it that it does not know.
    kind = PreTrainedTokenizerFast if (path / "tokenizer.json").exists() else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as exc:  # the Rust parser raises bare Exception
        what = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise CheckpointError(f"{path} has no readable tokenizer ({what})") from exc
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"{path} has a slow tokenizer: save it as a fast one first")
    if vocab_size is not None and size(tokenizer) > vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {size(tokenizer)} tokens, the model only {vocab_size}: "
            "they are not from the same run"
        )
    return tokenizer


def size(tokenizer: PreTrainedTokenizerFast) -> int:
    """How many embeddings a model needs: one more than the largest id."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def literal(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of the Rust backend that finds no special tokens in text, pads and cuts nothing."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.encode_special_tokens = True
    backend.no_padding()
    backend.no_truncation()
    return backend


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Hex digest of all that decides which ids a text gets."""
    state = literal(tokenizer).to_str() + str(tokenizer.bos_token_id)
    return hashlib.blake2b(state.encode(), digest_size=16).hexdigest()


def _not_empty(documents: Iterable[str]) -> Iterator[str]:
    empty = True
    for text in documents:
        empty = False
        yield text
    if empty:
        raise DataError("there is no text to train a tokenizer on: the source is empty")
