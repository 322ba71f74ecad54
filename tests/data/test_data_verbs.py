"""`spikeloom data …` from the command line: every verb, and one line for whatever is wrong."""

import json
import re
import shlex
import typing
from functools import partial
from pathlib import Path

import pytest

import claude_site
import wiki_site
from spikeloom.cli.data import data_app
from spikeloom.data.manifest import changes, read_manifest
from web_server import answer

APPS = [group.typer_instance for group in data_app.registered_groups]
VERBS = {c.callback.__name__: c.callback for app in APPS for c in app.registered_commands}
XML = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo>
<base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>
<page><title>Cat</title><ns>0</ns><id>2</id><revision><id>3</id><timestamp>t</timestamp>
<text>In 1900 the cats of Rome were taken to Paris by Anna.</text></revision></page></mediawiki>"""
RDF = """<rdf:RDF xmlns:dcterms="http://purl.org/dc/terms/"
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><dcterms:title>X</dcterms:title>
<dcterms:rights>Public domain in the USA.</dcterms:rights></rdf:RDF>"""
BOOK = "*** START OF THE PROJECT GUTENBERG EBOOK X ***\nIt was.\n*** END OF THE PROJECT GUTENBERG"
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>T</title>
<id>http://arxiv.org/abs/1706.03762v7</id><summary>S</summary></entry></feed>"""


@pytest.fixture
def spikeloom(spikeloom):
    """`spikeloom data` with arguments."""
    return partial(spikeloom, "data")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_writes_json(verb, spikeloom):
    code, out, _ = spikeloom(verb, "--help")
    assert code == 0
    assert "--json" in out
    assert (VERBS[verb].__doc__ or "").splitlines()[0] in out
    hints = typing.get_type_hints(VERBS[verb], include_extras=True)
    for name, hint in hints.items():
        if name != "return":
            (option,) = [m for m in typing.get_args(hint)[1:] if hasattr(m, "help")]
            assert option.help or option.hidden, f"{verb} {name} has no help"


def test_the_group_lists_its_verbs(spikeloom):
    _, out, _ = spikeloom("--help")
    assert all(verb in out for verb in VERBS)


def whole(path):
    """The manifest, once it is known to describe the output as it is."""
    assert changes(path) == []
    return read_manifest(path)


def test_wikipedia(site, spikeloom, tmp_path):
    addresses = wiki_site.install(site)
    out = tmp_path / "wiki.jsonl"
    words = ["--category", "Physics", "--out", out, "--contact", "me@example.org"]
    words += ["--site", addresses["site"], "--views-api", addresses["views_api"]]
    code, told, _ = spikeloom("wikipedia", *words, "--json", tmp_path / "a.json")
    assert code == 0
    assert "6 articles, 6 new; by shelf: 6 Physics" in told
    manifest = whole(out)
    assert manifest["licence"] == "CC BY-SA 4.0"
    assert "example.org" not in manifest["command"]
    assert all("me@example.org" in agent for agent in site.agents)
    assert json.loads((tmp_path / "a.json").read_text())["articles"] == 6


def test_shelves(spikeloom, tmp_path):
    _, told, _ = spikeloom("shelves", "--json", tmp_path / "a.json")
    assert "physics" in told
    assert "people" in json.loads((tmp_path / "a.json").read_text())["shelves"]


def test_from_a_dump_to_questions_to_the_hub(spikeloom, tmp_path):
    """The way that needs no network."""
    (tmp_path / "dump.xml").write_text(XML)
    corpus = tmp_path / "corpus"
    spikeloom("dump", tmp_path / "dump.xml", "--out", corpus / "wiki.jsonl")
    assert whole(corpus / "wiki.jsonl")["counts"] == {"articles": 1, "new": 1, "pages": 1}
    words = ("qa", corpus / "wiki.jsonl", "--offline", "--out", corpus / "qa.jsonl")
    code, told, _ = spikeloom(*words)
    assert (code, "1 records" in told) == (0, True)
    assert whole(corpus / "qa.jsonl")["licence"] == "CC BY-SA 4.0"  # of the articles
    assert "qa.jsonl.manifest.json" not in whole(corpus / "qa.jsonl")["files"]
    _, told, _ = spikeloom("show", corpus / "qa.jsonl")
    assert "Which year fills the gap?" in told
    code, told, _ = spikeloom("push", corpus, "--repo", "me/cats", "--dry-run")
    assert code == 0
    assert "license: cc-by-sa-4.0" in told
    assert "qa.jsonl: " in told


def test_books(site, spikeloom, tmp_path):
    site.route("/cache/epub/5/pg5.rdf", lambda query, path: answer(RDF))
    site.route("/cache/epub/5/pg5.txt", lambda query, path: answer(BOOK))
    top = '<h2 id="books-last30">Top</h2><ol><li><a href="/ebooks/5">X</a></li></ol>'
    site.route("/browse/scores/top", lambda query, path: answer(top))
    out = tmp_path / "books.jsonl"
    words = ["--top", 3, "--site", site.url, "--spacing", 0, "--out", out]
    assert spikeloom("books", *words)[1] == f"{out}: 1 books, 1 new\n"
    assert whole(out)["licence"] == "Public domain in the USA"


def test_papers(site, spikeloom, tmp_path):
    site.route("/api", lambda query, path: answer(ATOM))
    out = tmp_path / "papers.jsonl"
    words = ["1706.03762", "--abstracts", "--api", f"{site.url}/api", "--spacing", 0, "--out", out]
    assert spikeloom("papers", *words)[1] == f"{out}: 1 papers, 1 new, 1 abstract\n"
    assert whole(out)["licence"] == ["CC0 1.0"]


def test_questions_by_claude(site, spikeloom, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", site.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", claude_site.KEY)
    claude_site.install(site, lambda section: [("Who?", "Anna"), ("What?", "nothing of it")])
    (tmp_path / "a.jsonl").write_text('{"text": "It was Anna."}\n')
    words = ["qa", tmp_path / "a.jsonl", "--out", tmp_path / "qa.jsonl"]
    _, told, _ = spikeloom(*words, "--dry-run", "--json", tmp_path / "cost.json")
    assert told.startswith("1 of 1 sections to ask claude-haiku-4-5 about")
    assert json.loads((tmp_path / "cost.json").read_text())["to_ask"] == 1
    assert site.requests == []
    code, told, err = spikeloom(*words, "--max-dollars", 0)
    assert (code, "the estimate is higher" in err) == (2, True)
    code, told, _ = spikeloom(*words)
    assert code == 0
    assert "rejected, answer not in the section: 'What?' -> 'nothing of it'" in told
    assert "1 records" in told
    manifest = whole(tmp_path / "qa.jsonl")
    assert manifest["counts"]["dollars"] == pytest.approx(0.002)
    assert manifest["licence"] == "not stated"
    assert claude_site.KEY not in told + json.dumps(manifest)


def test_records(spikeloom, tmp_path):
    problems = [{"question": q, "answer": "#### 3"} for q in ("How many is it?", "1 + 2?")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(p) + "\n" for p in problems))
    out = tmp_path / "b.jsonl"
    words = [tmp_path / "a.jsonl", "--licence", "MIT", "--out", out, "--max-question-words", 3]
    spikeloom("records", *words)
    expected = {"kind": "problem", "question": "1 + 2?", "steps": "", "answer": "3"}
    assert json.loads(out.read_text()) == expected
    assert whole(out)["counts"]["passed_over"] == {"long question": 1}


@pytest.mark.parametrize(
    "words",
    [
        ["wikipedia", "--out", "a.jsonl"],
        ["wikipedia", "--shelf", "fysics", "--out", "a.jsonl"],
        ["wikipedia", "--titles", "nowhere.txt", "--out", "a.jsonl"],
        ["dump", "nowhere.xml", "--out", "a.jsonl"],
        ["books", "--out", "a.jsonl"],
        ["books", "--shelf", "x", "--out", "a.jsonl"],
        ["papers", "--out", "a.jsonl"],
        ["papers", "attention", "--out", "a.jsonl"],
        ["qa", "nowhere.jsonl", "--out", "a.jsonl"],
        ["show", "nowhere.jsonl"],
        ["push", "nowhere", "--repo", "a/b"],
    ],
    ids=" ".join,
)
def test_one_line_for_whatever_is_wrong(words, spikeloom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = spikeloom(*words)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def commands_of_the_docs():
    page = Path(__file__).parents[2] / "docs" / "data-web.md"
    return [line for line in page.read_text("utf-8").splitlines() if line.startswith("spikeloom ")]


@pytest.mark.parametrize("line", commands_of_the_docs())
def test_the_docs_name_verbs_and_options_that_exist(line, spikeloom):
    _, group, verb, *words = shlex.split(line)
    assert group == "data"
    _, told, _ = spikeloom(verb, "--help")
    assert all(re.search(rf"{word}\b", told) for word in words if word.startswith("--"))
