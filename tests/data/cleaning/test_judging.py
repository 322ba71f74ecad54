"""The rules that look at one document."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spikeloom.data.cleaning.judge import Judge, Options
from spikeloom.data.cleaning.language import LanguageFilter
from spikeloom.data.cleaning.quality import UnwantedContent, failed_rule
from spikeloom.data.cleaning.rules import Quality, Rules, Unwanted, default_rules, load_rules
from spikeloom.data.cleaning.text import marked_unknown, normalised, without_unknown
from spikeloom.data.readers import Document
from spikeloom.errors import ConfigError

PROSE = (
    "The old harbour lay quiet that morning, and the boats that have been to sea all night were "
    "back with their nets. A girl of nine or ten sat on the wall and counted them twice."
)
GERMAN = (
    "Der alte Hafen lag an diesem Morgen ruhig da, und die Boote waren mit vollen Netzen von der "
    "See zurück. Ein Mädchen von neun oder zehn Jahren saß auf der Mauer und zählte sie zweimal."
)


def dropped(text, rules=None):
    return Judge(rules or load_rules(), Options())(Document(text)).dropped


def test_prose_stays_as_it_is():
    verdict = Judge(load_rules(), Options())(Document(PROSE))
    assert verdict.dropped is None
    assert verdict.document.text == PROSE
    assert not verdict.changes


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (GERMAN, "language"),
        ("Too short to learn from.", "quality: min_words"),
        (PROSE + " #hashtag" * 20, "quality: max_symbol_ratio"),
        ("- one of the items that have it\n" * 10, "quality: max_bullet_lines"),
        (
            "He wondered about that and the harbour wall, going to the sea …\n" * 9,
            "quality: max_ellipsis_lines",
        ),
        (PROSE + " 123" * 30, "quality: min_alphabetic_words"),
        ("Boats, harbours, nets, walls, girls, gulls. " * 4, "quality: min_stop_words"),
        (f"{PROSE}\n" * 5, "quality: max_repeated_lines"),
        (PROSE + " harbour wall" * 30, "quality: max_top_bigram"),
        (PROSE + " {a} {b}", "quality: max_braces"),
        (PROSE + " a b c d e f g" * 30, "quality: min_mean_word_length"),
        (PROSE + " internationalisation" * 60, "quality: max_mean_word_length"),
        (PROSE + " Lorem   ipsum dolor sit amet.", "unwanted: placeholder"),
        (PROSE + " Online casinos! Free spins! Jackpot!", "unwanted: gambling-spam"),
        ("\n \n", "quality: min_words"),
    ],
)
def test_each_rule_drops_what_it_is_for(text, rule):
    assert dropped(text) == rule


def test_a_switched_off_rule_drops_nothing():
    assert dropped("Too short.", Rules()) is None
    assert dropped(" \n ", Rules()) == "empty"


def test_the_first_rule_that_fails_is_named_with_its_measure():
    assert failed_rule("a b c", Quality(min_words=4, max_words=2)) == "min_words (3)"
    assert failed_rule("a b c", Quality(max_words=2)) == "max_words (3)"
    assert failed_rule("a b c", Quality(max_words=3)) is None


def test_unwanted_content_is_judged_by_its_share():
    lists = (Unwanted("spam", ("buy now", "win*"), least=2, per_thousand=10.0),)
    found = UnwantedContent(lists).found
    assert found("winners BUY\n now " + "word " * 20) == "spam (buy\n now)"
    assert found("winners buy now " + "word " * 1000) is None
    assert found("winners alone") is None
    assert found("a twin to buy nowhere") is None


def test_short_texts_and_unknown_codes_in_the_language_filter():
    assert LanguageFilter(("en",), 100).foreign("Der Hund.") is None
    assert LanguageFilter(("de", "en"), 10).foreign(GERMAN) is None
    assert LanguageFilter((), 10).foreign(GERMAN) is None
    assert LanguageFilter(("en",), 10).foreign(PROSE + GERMAN * 60) == "de"
    with pytest.raises(ConfigError, match="languages: 'eng' is unknown"):
        LanguageFilter(("eng",), 10)


def test_characters_are_put_in_order():
    messy = "cafe\u0301\r\nA\u00a0b\u200b\x00\ufeff  \r\r\n\n\n\n\nend\t\n"
    assert normalised(messy) == "café\nA b\n\nend"


@given(st.text())
def test_putting_in_order_twice_changes_no_more(text):
    once = normalised(text)
    assert normalised(once) == once


def test_chunks_with_unknown_words_go():
    text = "One.\n\nThe <unk> of two.\n\nThree.\n \nFour <UNK>."
    kept, lost = without_unknown(text, marked_unknown)
    assert kept == "One.\n\nThree."
    assert lost == ["The <unk> of two.", "Four <UNK>."]
    assert without_unknown(PROSE, marked_unknown) == (PROSE, [])


def test_chunks_that_a_lossy_tokenizer_cannot_write_go(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, **{word: n + 1 for n, word in enumerate(PROSE.split())}}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    lossy = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    lossy.save_pretrained(tmp_path)
    judge = Judge(load_rules(), Options(lossy_tokenizer=str(tmp_path)))
    verdict = judge(Document(f"{PROSE}\n\nA submarine surfaced."))
    assert verdict.document.text == PROSE
    assert verdict.changes == {"unknown chunks removed": 1}


def test_the_default_rules_can_be_copied_and_changed(tmp_path):
    tree = yaml.safe_load(default_rules())
    tree["quality"]["min_words"] = 3
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    assert load_rules(tmp_path / "mine.yaml").quality.min_words == 3
    assert load_rules().quality.min_words == 20


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("quality: {min_word: 3}", r"quality\.min_word: unknown key \(did you mean 'min_words'"),
        ("quality: {min_words: -1}", r"quality\.min_words: -1 is impossible"),
        ("near_duplicates: 0.2", r"near_duplicates: 0\.2 is impossible"),
        ("unwanted: [{name: a, phrases: []}]", r"unwanted\[0\]\.phrases: \[\] is impossible"),
        ("unwanted: [{name: a, phrases: [x]}, {name: a, phrases: [y]}]", "name of its own"),
        ("languages: [en", "is not YAML"),
    ],
)
def test_bad_rule_files_are_refused(text, why, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=why):
        load_rules(tmp_path / "bad.yaml")
