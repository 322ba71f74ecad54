import json
import re
import sys

import pytest

import claude_site
from claude_site import KEY
from spikeloom.data.questions import claude as asking
from spikeloom.data.questions.claude import Claude
from spikeloom.data.questions.prices import price_of
from spikeloom.data.questions.writing import (
    estimate,
    read_sections,
    write_offline,
    write_with_claude,
)
from spikeloom.data.records import Question, read_records
from spikeloom.errors import ConfigError, DataError, MissingExtraError

MODEL = "claude-haiku-4-5"
TEXT = "\n\n".join(f"The river number {n} flows to Lake Mud since 19{n:02d}." for n in range(10))
ARTICLES = [
    {"title": "Rivers", "pageid": 70, "shelf": "geography", "text": TEXT},
    {"title": "Twice", "pageid": 70, "shelf": "geography", "text": "no"},
    {"title": "Short", "categories": ["Lakes", "Mud"], "text": "A lake. It is all mud here."},
    {"title": "Bare", "shelf": "geography", "text": "One paragraph without an end"},
]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "articles.jsonl"
    path.write_text("".join(json.dumps(article) + "\n" for article in ARTICLES))
    return str(path)


@pytest.fixture
def claude(site, monkeypatch):
    """Asks `site`, which answers with one good pair and one that is no span."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", site.url)
    site.batches = claude_site.install(site, pairs_of)
    with Claude(MODEL, pairs=2) as claude:
        yield claude


def pairs_of(section):
    last = section.split()[-1]
    return [(f"What ends {len(section)}?", last), ("Who?", "Nobody at all")]


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_sections_lead_back_to_their_article(source):
    found = read_sections(source)
    facts = [(s.title, s.category, s.category_id, s.article_id, s.section_id) for s in found]
    assert facts == [
        *[("Rivers", "geography", 0, 70, number) for number in range(5)],
        *[("Short", "Lakes", 1, 2, number) for number in range(2)],
        ("Bare", "geography", 0, 3, 0),
    ]
    assert len(read_sections(source, max_articles=1)) == 5


def test_what_is_no_article_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"title": "x"}\n')
    with pytest.raises(DataError, match="line 1: an article needs a 'text'"):
        read_sections(str(path))
    path.write_text("")
    with pytest.raises(DataError, match="holds no article"):
        read_sections(str(path))


def test_answers_are_checked_and_rejects_counted(source, claude, tmp_path):
    out = tmp_path / "qa.jsonl"
    outcome = write_with_claude(read_sections(source), out, claude)
    records = read(out)
    assert len(records) == outcome.records == 8
    assert outcome.rejected == {"answer not in the section": 8}
    assert outcome.samples["answer not in the section"][0]["answer"] == "Nobody at all"
    assert len(outcome.samples["answer not in the section"]) == 3
    assert (outcome.articles, outcome.sections, outcome.unanswered) == (3, 8, 0)
    assert (outcome.input_tokens, outcome.output_tokens) == (8000, 1600)
    first = records[0]
    (answer,) = first.pop("answers")
    assert first["context"][answer["start"] :].startswith(answer["text"])
    assert first == {
        "kind": "question",
        "id": "70-0-0",
        "source": "Rivers",
        "category": "geography",
        "category_id": 0,
        "article_id": 70,
        "section_id": 0,
        "context": first["context"],
        "question": first["question"],
    }
    assert all(isinstance(record, Question) for record in read_records(str(out)))


def test_nothing_is_asked_twice(site, source, claude, tmp_path):
    out = tmp_path / "qa.jsonl"
    sections = read_sections(source)
    write_with_claude(sections[:3], out, claude, concurrency=1)
    assert len(site.requests) == 3
    with (tmp_path / "qa.jsonl.answers.jsonl").open("a") as file:
        file.write('{"key": "half')  # as a kill would leave it
    write_with_claude(sections, out, claude)
    assert len(site.requests) == 8
    before = out.read_bytes()
    write_with_claude(sections, out, claude)
    assert len(site.requests) == 8
    assert out.read_bytes() == before


def test_an_article_that_changed_is_asked_about_again(site, source, claude, tmp_path):
    out = tmp_path / "qa.jsonl"
    write_with_claude(read_sections(source), out, claude)
    changed = [ARTICLES[0] | {"text": TEXT.replace("number 0", "number zero")}]
    path = tmp_path / "changed.jsonl"
    path.write_text(json.dumps(changed[0]) + "\n")
    write_with_claude(read_sections(str(path)), out, claude)
    assert len(site.requests) == 8 + 1
    assert len(read(out)) == 5


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"retry-after": "0"}},
        {"status": 529, "headers": {"retry-after": "0"}},
        {"status": 500, "headers": {"retry-after-ms": "1"}},
        {"body": b"{}", "cut": 1},
    ],
    ids=["429", "overloaded", "500", "cut short"],
)
def test_faults_pass(site, source, claude, tmp_path, fault):
    site.fault(**fault)
    sections = read_sections(source)[:1]
    assert write_with_claude(sections, tmp_path / "qa.jsonl", claude).records == 1
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    "tree",
    [{}, {"pairs": "none"}, {"pairs": [3, {"question": "x?"}, {"question": 1, "answer": 2}]}, "x"],
    ids=str,
)
def test_a_model_may_break_the_schema(site, source, claude, tmp_path, tree):
    claude_site.install(site, lambda section: tree)
    outcome = write_with_claude(read_sections(source)[:1], tmp_path / "qa.jsonl", claude)
    assert (outcome.sections, outcome.records) == (1, 0)


def test_a_key_that_is_not_accepted_is_told_without_it(site, source, claude, tmp_path):
    site.faults.append(("", claude_site.error(401, "authentication_error", f"invalid {KEY}")))
    with pytest.raises(ConfigError, match="does not accept the key in ANTHROPIC_API_KEY") as caught:
        write_with_claude(read_sections(source), tmp_path / "qa.jsonl", claude, concurrency=1)
    assert KEY not in str(caught.value)


def test_refusals_are_one_line(site, source, claude, tmp_path):
    site.faults.append(("", claude_site.error(400, "invalid_request_error", "credit is too low")))
    with pytest.raises(DataError, match="HTTP 400 credit is too low") as caught:
        write_with_claude(read_sections(source), tmp_path / "qa.jsonl", claude, concurrency=1)
    assert "\n" not in str(caught.value)


def test_the_key_is_written_nowhere(source, claude, tmp_path):
    sections = read_sections(source)
    write_with_claude(sections[:2], tmp_path / "qa.jsonl", claude)
    write_with_claude(sections, tmp_path / "qa.jsonl", claude, batch=True, wait=False)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not any(KEY in path.read_text() for path in files)
    assert KEY not in repr(claude)


def test_without_a_key_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set"):
        Claude(MODEL, 5)


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "anthropic", None)
    with pytest.raises(MissingExtraError, match=r"spikeloom\[qa\]"):
        Claude(MODEL, 5)


def test_batches_are_sent_once_and_read_when_they_end(site, source, claude, tmp_path):
    out = tmp_path / "qa.jsonl"
    sections = read_sections(source)
    first = write_with_claude(sections, out, claude, batch=True, wait=False)
    assert (first.records, first.unanswered) == (0, 8)
    second = write_with_claude(sections, out, claude, batch=True, wait=False)
    assert list(site.batches) == ["msgbatch_1", "msgbatch_2"]
    # The first batch had ended, with one failure, which is now in a second batch.
    assert (second.records, second.unanswered) == (7, 1)
    assert len(site.batches["msgbatch_2"]["requests"]) == 1


def test_batches_are_waited_for(site, source, claude, tmp_path, monkeypatch):
    monkeypatch.setattr(asking.time, "sleep", lambda seconds: None)
    outcome = write_with_claude(read_sections(source), tmp_path / "qa.jsonl", claude, batch=True)
    assert (outcome.records, outcome.unanswered) == (7, 1)
    assert site.batches["msgbatch_1"]["looks"] > 1


def test_messages_after_a_batch_wait_for_its_answers(site, source, claude, tmp_path, monkeypatch):
    monkeypatch.setattr(asking.time, "sleep", lambda seconds: None)
    out, sections = tmp_path / "qa.jsonl", read_sections(source)
    write_with_claude(sections, out, claude, batch=True, wait=False)
    outcome = write_with_claude(sections, out, claude)
    assert outcome.records == 8
    assert len([r for r in site.requests if r == "/v1/messages"]) == 1


def test_what_it_would_cost(source, tmp_path):
    sections = read_sections(source)
    out = tmp_path / "qa.jsonl"
    told = estimate(sections, out, MODEL, 5, price_of(MODEL, None, batch=False))
    assert (told["sections"], told["to_ask"], told["output_tokens"]) == (8, 8, 8 * 5 * 60)
    assert told["dollars"] == pytest.approx(told["input_tokens"] / 1e6 + 8 * 300 * 5 / 1e6)
    halved = estimate(sections, out, MODEL, 5, price_of(MODEL, None, batch=True))
    assert halved["dollars"] == told["dollars"] / 2
    assert [path.name for path in tmp_path.iterdir()] == ["articles.jsonl"]


def test_only_what_is_missing_is_counted(source, claude, tmp_path):
    sections = read_sections(source)
    write_with_claude(sections[:3], tmp_path / "qa.jsonl", claude)
    price = price_of(MODEL, (1, 1), batch=False)
    assert estimate(sections, tmp_path / "qa.jsonl", MODEL, 5, price)["to_ask"] == 5
    assert estimate(sections, tmp_path / "qa.jsonl", "other", 5, price)["to_ask"] == 8


def test_an_unknown_price_has_to_be_given():
    with pytest.raises(ConfigError, match="give --price IN OUT"):
        price_of("claude-unheard-of", None, batch=False)
    assert price_of("claude-unheard-of", (2.0, 4.0), batch=True).dollars(1e6, 1e6) == 3.0


def test_offline_answers_are_spans(source, tmp_path):
    out = tmp_path / "qa.jsonl"
    outcome = write_offline(read_sections(source), out, pairs=5)
    records = read(out)
    assert len(records) == outcome.records == 10
    for record in records:
        (answer,) = record["answers"]
        end = answer["start"] + len(answer["text"])
        assert record["context"][answer["start"] : end] == answer["text"]
    gaps = [re.search('"(.*)"', record["question"])[1] for record in records]
    whole = [
        gap.replace("____", r["answers"][0]["text"]) for gap, r in zip(gaps, records, strict=True)
    ]
    assert whole == TEXT.split("\n\n")
