"""Which language a document is in, by py3langid (naive Bayes over byte n-grams; offline)."""

from __future__ import annotations

from spikeloom.errors import ConfigError, MissingExtraError, did_you_mean

SAMPLE_CHARACTERS = 1000


class LanguageFilter:
    """Keeps documents of some languages.

    Args:
        keep: ISO 639-1 codes; empty keeps all and needs no library.
        least: texts of fewer characters are too short to tell, and are kept.

    Raises:
        ConfigError: a code that py3langid does not know.
        MissingExtraError: py3langid is not installed.
    """

    def __init__(self, keep: tuple[str, ...], least: int) -> None:
        self._keep = frozenset(keep)
        self._least = least
        if not keep:
            return
        try:
            import py3langid
        except ImportError:
            raise MissingExtraError("py3langid", "clean") from None
        self._classify = py3langid.classify
        known = [code for code, _ in py3langid.rank("")]
        for code in keep:
            if code not in known:
                raise ConfigError(f"languages: '{code}' is unknown{did_you_mean(code, known)}")

    def foreign(self, text: str) -> str | None:
        """The language of a text that is not to be kept, or None; most samples decide."""
        if not self._keep or len(text) < self._least:
            return None
        found = [self._classify(sample)[0] for sample in _samples(text)]
        strange = [code for code in found if code not in self._keep]
        return strange[0] if 2 * len(strange) > len(found) else None


def _samples(text: str) -> list[str]:
    """All of a short text; of a long one the beginning, the middle and the end."""
    size = SAMPLE_CHARACTERS
    if len(text) <= 3 * size:
        return [text]
    middle = (len(text) - size) // 2
    return [text[:size], text[middle : middle + size], text[-size:]]
