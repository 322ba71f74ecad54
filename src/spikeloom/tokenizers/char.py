"""One token a character; a character outside the vocabulary is written as its UTF-8 bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from spikeloom.tokenizers.special import SMALLEST_VOCABULARY, SPECIAL_TOKENS, wrap

# ASCII is its own UTF-8, so its characters serve as its bytes and only the upper half needs names.
ASCII = [chr(code) for code in range(128)]
UPPER_BYTES = [f"<0x{byte:02X}>" for byte in range(128, 256)]


def train_char(documents: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """All of ASCII, then the other characters seen, the most frequent first, to `vocab_size`."""
    counts: Counter[str] = Counter()
    for text in documents:
        counts.update(text)
    for char in ASCII:
        counts.pop(char, None)
    seen = sorted(counts, key=lambda char: (-counts[char], char))
    tokens = [*SPECIAL_TOKENS, *ASCII, *UPPER_BYTES, *seen[: vocab_size - SMALLEST_VOCABULARY]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return wrap(backend)
