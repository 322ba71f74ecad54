import json
import os
import signal
import subprocess
import sys
import time
from datetime import date

import pytest

import wiki_site
from spikeloom.data.web import mediawiki, wikipedia
from spikeloom.data.web.client import FetchError
from spikeloom.data.web.mediawiki import NoArticleError, Wiki
from spikeloom.data.web.shelves import SHELVES, chosen
from spikeloom.data.web.wikipedia import Wish, collect
from spikeloom.errors import DataError
from web_server import answer

FIELDS = ["title", "pageid", "revision", "categories", "text", "url", "views"]
FIELDS += ["shelf", "licence", "fetched"]
PHYSICS, BIOLOGY = chosen([], ["Physics", "Category:Biology"], None)


@pytest.fixture
def wiki(site, client):
    return Wiki(client, **wiki_site.install(site))


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def titles(path):
    return [record["title"] for record in read(path)]


def test_an_article_has_all_its_facts(site, wiki, tmp_path):
    outcome = collect(wiki, Wish(titles=("Force",)), tmp_path / "a.jsonl")
    (record,) = read(tmp_path / "a.jsonl")
    assert list(record) == FIELDS
    assert record["text"] == "Force is a thing.\n\n\n== Use ==\nSee it."
    assert record["categories"] == ["First", "Second"]  # from two parts of the answer
    assert (record["pageid"], record["revision"], record["views"]) == (1, 1001, 9000)
    assert record["licence"] == outcome.licence == "CC BY-SA 4.0"
    assert record["url"] == f"{site.url}/wiki/Force"
    assert record["fetched"] == date.today().isoformat()
    assert outcome.counts()["by_shelf"] == {"titles": 1}


def test_shelves_share_and_duplicates_are_removed(wiki, tmp_path):
    wish = Wish(shelves=(PHYSICS, BIOLOGY), max_articles=None)
    outcome = collect(wiki, wish, tmp_path / "a.jsonl")
    # Not: a talk page, what is two steps down, the redirect to Mirror, and what is no article.
    assert sorted(titles(tmp_path / "a.jsonl")) == sorted(
        ["Force", "Mass", "Atom", "Lens", "Mirror", "Prism", "Cell"]
    )
    assert outcome.passed_over == {
        "the same article under another title": 1,
        "disambiguation page": 1,
        "missing": 1,
        "without text": 1,
    }
    assert outcome.articles == outcome.new == 7


def test_the_most_viewed_come_first(wiki, tmp_path):
    wish = Wish(shelves=(PHYSICS,), max_articles=2, top_share=1.0, concurrency=1)
    collect(wiki, wish, tmp_path / "a.jsonl")
    assert titles(tmp_path / "a.jsonl") == ["Force", "Atom"]


def test_a_second_run_asks_for_nothing_that_is_there(site, wiki, tmp_path):
    out = tmp_path / "a.jsonl"
    wish = Wish(shelves=(PHYSICS, BIOLOGY), max_articles=4)
    collect(wiki, wish, out)
    before, asked = out.read_bytes(), len(site.requests)
    again = collect(wiki, wish, out)
    assert out.read_bytes() == before
    assert (again.articles, again.new) == (4, 0)
    assert [r for r in site.requests[asked:] if "siteinfo" not in r] == []
    more = collect(wiki, Wish(shelves=(PHYSICS, BIOLOGY), max_articles=6), out)
    assert out.read_bytes().startswith(before)
    assert (more.articles, more.new) == (6, 2)
    assert len(site.asked("categorymembers")) == 3 + 3 + 3  # three categories, three parts each
    assert len(site.asked("/views/")) == len(set(site.asked("/views/")))


def test_the_choice_does_not_depend_on_luck_of_timing(site, client, tmp_path):
    wiki = Wiki(client, **wiki_site.install(site))
    choices = set()
    for run, concurrency in enumerate((1, 3, 8)):
        out = tmp_path / str(run) / "a.jsonl"
        wish = Wish(shelves=(PHYSICS, BIOLOGY), max_articles=5, concurrency=concurrency)
        collect(wiki, wish, out)
        choices.add(tuple(sorted(titles(out))))
    assert len(choices) == 1


def test_no_more_requests_at_once_than_allowed(site, wiki, tmp_path):
    slow = site.routes["/w/api.php"]

    def respond(query, path):
        found = answer(slow(query, path))
        found.delay = 0.02
        return found

    site.route("/w/api.php", respond)
    collect(wiki, Wish(titles=tuple(wiki_site.TITLES), concurrency=2), tmp_path / "a.jsonl")
    assert site.most_at_once == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 503},
        {"body": b'{"query": {"pages": ['},
        {"body": b"{}"},
        {"body": b"<html>busy</html>"},
        {"body": b"x" * 100, "cut": 10},
        {
            "body": b'{"error": {"code": "maxlag", "info": "5.3 seconds lagged", "lag": 5.3}}',
            "headers": {"Retry-After": "0"},
        },
    ],
    ids=["429", "503", "broken JSON", "another shape", "HTML", "cut short", "maxlag"],
)
@pytest.mark.parametrize("at", ["siteinfo", "categorymembers", "titles=", "/views/"])
def test_faults_pass(site, wiki, tmp_path, fault, at):
    site.fault(at=at, **fault)
    collect(wiki, Wish(shelves=(PHYSICS,), max_articles=None), tmp_path / "a.jsonl")
    assert len(titles(tmp_path / "a.jsonl")) == 6
    assert site.faults == []


def test_a_refusal_of_the_wiki_is_told(site, wiki, tmp_path):
    site.fault(at="titles=", body=b'{"error": {"code": "badvalue", "info": "Unrecognized."}}')
    with pytest.raises(FetchError, match="badvalue: Unrecognized"):
        collect(wiki, Wish(titles=("Force",)), tmp_path / "a.jsonl")


@pytest.mark.parametrize("title", ["Nothing", "fr:Force", "Mercury", "Blank"])
def test_what_is_no_article(wiki, title):
    with pytest.raises(NoArticleError):
        wiki.article(title)


def test_nothing_found_is_an_error(wiki, tmp_path):
    with pytest.raises(DataError, match="1 missing"):
        collect(wiki, Wish(titles=("Nothing",)), tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="nothing in it: Category:Nowhere"):
        collect(wiki, Wish(shelves=chosen([], ["Nowhere"], 0)), tmp_path / "b.jsonl")
    with pytest.raises(DataError, match="nothing named"):
        collect(wiki, Wish(), tmp_path / "c.jsonl")


def test_an_unknown_shelf_is_refused():
    with pytest.raises(DataError, match="did you mean 'physics'"):
        chosen(["physic"], [], None)
    assert all(shelf.roots for shelf in SHELVES.values())


def test_a_list_of_titles(tmp_path):
    file = tmp_path / "titles.txt"
    file.write_text("\ufeff# ours\nForce\n\n Big_Bang \n", "utf-8")
    assert wikipedia.read_titles(file) == ("Force", "Big Bang")
    file.write_text("# nothing\n")
    with pytest.raises(DataError, match="holds nothing"):
        wikipedia.read_titles(file)


def test_months():
    assert wikipedia._months(date(2026, 3, 31), 12) == (date(2025, 3, 1), date(2026, 2, 28))
    assert wikipedia._months(date(2026, 1, 1), 1) == (date(2025, 12, 1), date(2025, 12, 31))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://creativecommons.org/licenses/by-sa/4.0/", "CC BY-SA 4.0"),
        ("http://creativecommons.org/licenses/by/3.0/", "CC BY 3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/deed.en", "CC0 1.0"),
        ("https://example.org/terms", "our terms"),
    ],
)
def test_licence_names(url, name):
    assert mediawiki.licence_name(url, "our terms") == name


def test_a_killed_run_leaves_a_file_that_the_next_one_completes(site, tmp_path):
    addresses = wiki_site.install(site)
    out = tmp_path / "a.jsonl"
    quick = site.routes["/w/api.php"]

    def respond(query, path):
        found = answer(quick(query, path))
        found.delay = 0.3 if query.get("titles") == "Prism" else 0.0
        return found

    site.route("/w/api.php", respond)
    (tmp_path / "titles.txt").write_text("\n".join(wiki_site.TITLES[:6]))
    words = ["data", "wikipedia", "--titles", str(tmp_path / "titles.txt"), "--out", str(out)]
    words += ["--concurrency", "1"]
    environment = os.environ | {
        "SPIKELOOM_WIKI": addresses["site"],
        "SPIKELOOM_VIEWS_API": addresses["views_api"],
    }
    run = [sys.executable, "-c", "from spikeloom.cli import main; main()", *words]
    process = subprocess.Popen(run, env=environment, stderr=subprocess.PIPE)
    while not site.asked("titles=Prism"):
        time.sleep(0.01)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    with out.open("ab") as file:
        file.write(b'{"title": "Half a rec')
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert titles(out) == wiki_site.TITLES[:6]
    assert len(site.asked("titles=Force&")) == 2  # two parts, once
    manifest = json.loads((tmp_path / "a.jsonl.manifest.json").read_text())
    assert manifest["counts"]["articles"] == 6
    assert manifest["counts"]["new"] == 1
    assert manifest["inputs"][0]["path"].endswith("titles.txt")
