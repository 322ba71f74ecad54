import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from spikeloom.data.web.client import Client, FetchError, Manners, NotFoundError, TryLaterError
from spikeloom.errors import MissingExtraError
from web_server import Answer, answer

BODY = b'{"text": "hello"}'


@pytest.fixture
def hello(site):
    site.route("/hello", lambda query, path: Answer(BODY))
    return f"{site.url}/hello"


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 503, "headers": {"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"}},
        {"status": 500},
        {"body": b'{"text": "hel'},
        {"body": b'{"text": "\xff"}'},
        {"body": BODY, "cut": 5},
        {"body": BODY, "delay": 0.8},
    ],
    ids=["429", "503 with a date", "500", "broken JSON", "not UTF-8", "cut short", "time-out"],
)
def test_what_passes_is_tried_again(site, hello, client, fault):
    site.fault(**fault)
    assert client.json(hello) == {"text": "hello"}
    assert len(site.requests) == 2


def test_a_dead_server_is_given_up(site, hello, client):
    for _ in range(6):
        site.fault(status=502)
    with pytest.raises(FetchError, match="HTTP 502; gave up after 6 tries") as caught:
        client.json(hello)
    assert "\n" not in str(caught.value)
    assert len(site.requests) == 6


def test_nobody_home(client):
    with pytest.raises(FetchError, match="ConnectError"):
        client.json("http://127.0.0.1:9/")


@pytest.mark.parametrize(("status", "error"), [(404, NotFoundError), (403, FetchError)])
def test_what_does_not_pass_is_not_tried_again(site, hello, client, status, error):
    site.fault(status=status)
    with pytest.raises(error, match=f"HTTP {status}"):
        client.json(hello)
    assert len(site.requests) == 1


def test_redirects_are_followed_but_not_for_ever(site, hello, client):
    site.route("/old", lambda query, path: Answer(status=301, headers={"Location": "/hello"}))
    site.route("/loop", lambda query, path: Answer(status=302, headers={"Location": "/loop"}))
    assert client.json(f"{site.url}/old") == {"text": "hello"}
    with pytest.raises(FetchError, match="redirect"):
        client.json(f"{site.url}/loop")


@pytest.mark.parametrize("as_date", [False, True])
def test_the_wait_that_a_server_asks_for_is_obeyed(site, hello, client, as_date):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    site.fault(status=429, headers={"Retry-After": later if as_date else "1"})
    began = time.monotonic()
    client.json(hello)
    assert time.monotonic() - began >= 0.99


def test_a_wait_that_is_too_long_ends_the_run(site, hello, client):
    site.fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(FetchError, match="asks to wait 3600 s"):
        client.json(hello)


def test_one_busy_answer_holds_back_every_thread(site, hello, client):
    site.fault(status=429, headers={"Retry-After": "1"})
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.json, hello)
        while not site.requests:
            time.sleep(0.01)
        time.sleep(0.1)
        began = time.monotonic()
        pool.submit(client.json, hello).result()
        assert time.monotonic() - began > 0.5
        first.result()


def test_requests_are_spaced(site, hello):
    with Client(Manners(spacing=0.1)) as client, ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        list(pool.map(client.json, [hello] * 4))
    assert time.monotonic() - began >= 0.3


def test_who_asks_is_said(site, hello, client):
    client.json(hello)
    assert site.agents[0].startswith("spikeloom/")
    assert "me@example.org" in site.agents[0]


def test_a_body_without_end_is_refused(site, hello):
    with (
        Client(Manners(max_bytes=10)) as client,
        pytest.raises(FetchError, match="more than 10 bytes"),
    ):
        client.json(hello)


def test_a_body_that_trickles_is_given_up(site, hello):
    site.fault(body=b"x" * 50, trickle=0.05)
    with Client(Manners(longest_body=0.2, first_wait=0.01)) as client:
        assert client.json(hello) == {"text": "hello"}
    assert len(site.requests) == 2


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spikeloom\[web\]'"):
        Client()


def test_a_parser_may_ask_for_another_try(site, client):
    lagged = iter([answer("busy", headers={"Retry-After": "0"}), answer("done")])
    site.route("/", lambda query, path: next(lagged))

    def parse(body):
        if body == b"busy":
            raise TryLaterError("busy", seconds=999)
        return body

    assert client.get(site.url, parse) == b"done"
