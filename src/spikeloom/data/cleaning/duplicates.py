"""Documents that were there before: exactly, or nearly.

Exact: equal letters and digits, whatever the case, punctuation and white space. Near: the sets of
5-word runs have an estimated Jaccard similarity of at least a threshold, by MinHash (Broder 1997)
with 128 permutations; locality-sensitive hashing in 32 bands of 4 finds the candidates (one of 0.5
with a chance of 0.87, of 0.8 surely), the whole signature decides. rensa does the hashing.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from spikeloom.errors import MissingExtraError

PERMUTATIONS, BANDS, SHINGLE_WORDS = 128, 32, 5

_NOT_WORD = re.compile(r"[\W_]+")


class Signer:
    """Makes the fingerprints that `Duplicates` compares.

    Args:
        near: whether near duplicates are wanted too, which needs rensa.
    """

    def __init__(self, near: bool) -> None:
        self._minhash = _rensa().RMinHash if near else None

    def sign(self, text: str) -> tuple[bytes, Any]:
        """Digest of the letters and digits; MinHash of the 5-word runs, or None."""
        words = _NOT_WORD.sub(" ", text.casefold()).split()
        digest = hashlib.blake2b("".join(words).encode(), digest_size=16).digest()
        if self._minhash is None:
            return digest, None
        signature = self._minhash(num_perm=PERMUTATIONS, seed=0)
        if len(words) < SHINGLE_WORDS:
            signature.update([" ".join(words)])
        else:
            signature.update([" ".join(run) for run in zip(*_shifted(words), strict=False)])
        return digest, signature


class Duplicates:
    """The documents kept so far; half a kilobyte for each where near ones are looked for.

    Args:
        near: least similarity of near duplicates; None looks for exact ones only.
    """

    def __init__(self, near: float | None) -> None:
        self._near = near
        self._exact: dict[bytes, str] = {}
        self._names: list[str] = []
        self._signatures: list[Any] = []
        if near is not None:
            self._index = _rensa().RMinHashLSH(near, PERMUTATIONS, BANDS)

    def find(self, digest: bytes, signature: Any) -> tuple[str, str] | None:
        """(`exact` or `near`, name of the document that was first), or None."""
        if digest in self._exact:
            return "exact", self._exact[digest]
        if self._near is not None:
            for key in sorted(self._index.query(signature)):
                if self._signatures[key].jaccard(signature) >= self._near:
                    return "near", self._names[key]
        return None

    def add(self, name: str, digest: bytes, signature: Any) -> None:
        """Remember a document that is kept."""
        self._exact[digest] = name
        if self._near is not None:
            self._index.insert(len(self._names), signature)
            self._names.append(name)
            self._signatures.append(signature)


def _shifted(words: list[str]) -> list[list[str]]:
    return [words[i:] for i in range(SHINGLE_WORDS)]


def _rensa() -> Any:
    try:
        import rensa
    except ImportError:
        raise MissingExtraError("rensa", "clean") from None
    return rensa
