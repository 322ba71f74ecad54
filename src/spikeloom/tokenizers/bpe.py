"""Byte-level BPE: any text can be written, and every text comes back exactly."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from spikeloom.tokenizers.sample import sample
from spikeloom.tokenizers.special import SPECIAL_TOKENS, wrap

# GPT-4's split into words, numbers and punctuation. Numbers break after two digits and not three,
# because a thousand number tokens would fill a small vocabulary.
_WORDS = (
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?+\p{L}+"
    r"|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)


def train_bpe(documents: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn at most `vocab_size` tokens from the first `SAMPLE_BYTES` of the documents."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = word_splitter()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    backend.train_from_iterator(sample(documents), trainer)
    return wrap(backend)


def word_splitter() -> pre_tokenizers.PreTokenizer:
    """Words, numbers and punctuation, each with the space before it, as bytes."""
    words = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([words, as_bytes])
