import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeloom.data.cleaning.personal import Span, find_patterns, redacted, redactor
from spikeloom.errors import ConfigError, MissingExtraError


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Write to jane.doe+x@mail.example.org, please.", "Write to [EMAIL], please."),
        ("Call +44 20 7946 0958 or (555) 010-9999.", "Call [PHONE] or [PHONE]."),
        ("Card 4111 1111 1111 1111 expires.", "Card [CREDIT_CARD] expires."),
        ("IBAN DE89 3704 0044 0532 0130 00 it is.", "IBAN [IBAN] it is."),
        ("SSN 123-45-6789", "SSN [SSN]"),
        ("from 192.168.0.17 at night", "from [IP_ADDRESS] at night"),
    ],
)
def test_personal_data_is_replaced(text, clean):
    assert redacted(text, find_patterns)[0] == clean


@pytest.mark.parametrize(
    "text",
    [
        "From 1914-1918 and 1939-1945 about 1 234 567 890 fell.",
        "Card 4111 1111 1111 1112 has a wrong digit.",
        "IBAN DE89 3704 0044 0532 0130 01 too.",
        "Version 300.1.2.3 and section 1.2.3.4.5",
        "3.14159265358979323846 and ISBN 978-3-16-148410-0",
        "The year 2024, page 123-456, at 12:30.",
        "user@home without a domain",
    ],
)
def test_other_numbers_stay(text):
    assert redacted(text, find_patterns) == (text, {}, [])


spans = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 9)).map(lambda s: Span(s[0], s[0] + s[1], "X"))
)


@given(st.text(alphabet="abc ", min_size=30, max_size=30), spans)
def test_what_is_not_found_stays(text, found):
    clean, kinds, taken = redacted(text, lambda _: found)
    for piece in taken:
        clean = clean.replace("[X]", piece, 1)
    assert clean == text
    assert kinds.total() == len(taken)


def test_unknown_finders_are_refused():
    with pytest.raises(ConfigError, match="expected patterns or presidio"):
        redactor("magic")


@pytest.mark.skipif(importlib.util.find_spec("presidio_analyzer"), reason="presidio is installed")
def test_presidio_is_an_extra():
    with pytest.raises(MissingExtraError, match=r"pip install 'spikeloom\[pii\]'"):
        redactor("presidio")
