import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.data.web.markup import MarkupError, plain_text
from spikeloom.errors import MissingExtraError


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("A '''bold''' and ''slanted'' word.", "A bold and slanted word."),
        ("See [[Cat]]s and [[Dog|hounds]].", "See Cats and hounds."),
        ("[[File:x.png|thumb|A [[cat]]]]Text.", "Text."),
        ("Text.[[Category:Pets]][[fr:Chat]]", "Text."),
        ("In [[:Category:Pets]].", "In Category:Pets."),
        ("A[http://x.org home] b [http://x.org].", "Ahome b."),
        ("Hot<ref name=a>Book, {{cite}}</ref> iron<ref name=a/>.", "Hot iron."),
        ("It''s a Book{{'}}s.<ref>''odd</ref> End.", "Its a Book's. End."),
        ("a&nbsp;b &amp; c&ndash;d", "a b & c–d"),
        ("x <!-- hidden --> y", "x y"),
        ("{| class=x\n| cell\n|}\nAfter.", "After."),
        ("The ({{lang-la|felis}}; {{IPA|x}}) cat.", "The (felis) cat."),
        ("Cat ({{IPA|x}}) sat.", "Cat sat."),
        ("{{convert|10|km}} and {{frac|1|2}}, {{c.|1900}}.", "10 km and 1/2, c. 1900."),
        ("{{lang|fr|chat {{nowrap|noir}}}}", "chat noir"),
        ("* one\n* two\n# three", "one\ntwo\nthree"),
        ("one<br/>two", "one\ntwo"),
        ("E=<math>mc^2</math>.", "E=."),
        ("Open {{unclosed and [[more", "Open unclosed and more"),
        ("Open {| table\n| x", "Open {| table\n| x"),
        ("Quiet. __NOTOC__", "Quiet."),
    ],
)
def test_what_a_reader_sees(markup, text):
    assert plain_text(markup)[0] == text


def test_sections_without_prose_go():
    page = """Lead.
== Life ==
=== Youth ===
Born.
== Pictures ==
[[File:x.png]]
== Works ==
=== Books ===
{| class=x
|}
== References ==
A. Book.
=== More ===
B. Book.
== After ==
End."""
    assert plain_text(page)[0] == "Lead.\n\n== Life ==\n\n=== Youth ===\nBorn.\n\n== After ==\nEnd."


def test_categories_are_told_once():
    assert plain_text("[[Category:A|key]] [[category:B]] [[Category:A]]") == ("", ["A", "B"])


@settings(deadline=None)
@given(st.text(alphabet="[]{}|='<>/refab\n*:!-& ", max_size=200))
def test_no_markup_is_too_broken(markup):
    try:
        text, _ = plain_text(markup)
    except MarkupError:
        return
    assert text == text.strip()
    assert "\n\n\n" not in text


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    with pytest.raises(MissingExtraError, match=r"spikeloom\[web\]"):
        plain_text("x")
