"""Ask a server politely: who we are is said, requests are spaced and limited, waits are obeyed.

    FetchError (a DataError)     the server could not be made to answer
    └── NotFoundError            it answered that there is nothing at this address (404, 410)

What may pass by itself is tried again: no connection, time-outs, 429 and 5xx, bodies cut short, and
answers that do not parse. The wait doubles from a second to a minute; a server's own `Retry-After`
is obeyed instead, by all threads at once.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from xml.etree import ElementTree

from spikeloom import __version__
from spikeloom.data.closing import Closing
from spikeloom.errors import DataError, MissingExtraError

T = TypeVar("T")
Params = dict[str, str | int]
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_GONE = {404, 410}


class FetchError(DataError):
    """A server did not give what was asked for."""


class NotFoundError(FetchError):
    """There is nothing at this address."""


class TryLaterError(Exception):
    """An answer that may be better next time; for parsers given to `Client.get`.

    Args:
        why: the end of the sentence `it answered …`.
        seconds: how long the server asked to wait; None if it did not say.
    """

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


@dataclass(frozen=True)
class Manners:
    """How to treat a server.

    Args:
        contact: e-mail or page of whoever runs this; goes into the user agent, as Wikimedia and
            arXiv ask for.
        spacing: seconds between the starts of two requests, over all threads.
        tries: attempts at one request.
        timeout: seconds without a sign of life before an attempt is given up.
        first_wait: seconds before the second try; doubles from then on, up to `longest_wait`.
        longest_wait: a server that asks for more seconds than that ends the run.
        longest_body: seconds that one body may take, however lively it trickles.
        max_bytes: a longer body is refused.
    """

    contact: str | None = None
    spacing: float = 0.0
    tries: int = 6
    timeout: float = 30.0
    first_wait: float = 1.0
    longest_wait: float = 120.0
    longest_body: float = 300.0
    max_bytes: int = 64 << 20

    @property
    def user_agent(self) -> str:
        who = f"; {self.contact}" if self.contact else ""
        return f"spikeloom/{__version__} (text for language models{who})"


class Client(Closing):
    """One HTTP client for all threads of a verb."""

    def __init__(self, manners: Manners | None = None) -> None:
        try:
            import httpx2
        except ImportError:
            raise MissingExtraError("httpx2", "web") from None
        self._library = httpx2
        self.manners = manners or Manners()
        self._http = httpx2.Client(
            headers={"User-Agent": self.manners.user_agent},
            timeout=self.manners.timeout,
            follow_redirects=True,
        )
        self._lock = threading.Lock()
        self._free_at = 0.0  # of the monotonic clock: no request starts before

    def get(self, url: str, parse: Callable[[bytes], T], params: Params | None = None) -> T:
        """The parsed body at an address.

        Args:
            url: http or https.
            parse: body -> result; raises `TryLaterError` or `ValueError` if the body is broken.
            params: the query.

        Raises:
            NotFoundError: there is nothing there.
            FetchError: it was refused, or every try failed.
        """
        for attempt in range(self.manners.tries):
            try:
                self._wait_for_turn()
                return self._attempt(url, parse, params)
            except TryLaterError as reason:
                why = str(reason)
                self._pause(reason.seconds, attempt, url)
        raise FetchError(f"{url}: {why}; gave up after {self.manners.tries} tries: run it again")

    def json(self, url: str, params: Params | None = None) -> Any:
        """The JSON at an address; raises like `get`."""
        return self.get(url, json.loads, params)

    def text(self, url: str, params: Params | None = None) -> str:
        """The UTF-8 text at an address; raises like `get`."""
        return self.get(url, lambda body: body.decode("utf-8-sig"), params)

    def xml(self, url: str, params: Params | None = None) -> ElementTree.Element:
        """The root of the XML at an address; raises like `get`."""
        return self.get(url, parse_xml, params)

    def close(self) -> None:
        self._http.close()

    def _attempt(self, url: str, parse: Callable[[bytes], T], params: Params | None) -> T:
        try:
            with self._http.stream("GET", url, params=params) as answer:
                _check_status(answer.status_code, answer.headers, url)
                body = self._body(answer, url)
        except self._library.TransportError as exc:
            raise TryLaterError(f"no whole answer ({type(exc).__name__}: {exc})") from exc
        except (self._library.RequestError, self._library.InvalidURL) as exc:
            raise FetchError(f"{url}: {exc}") from exc
        try:
            return parse(body)
        except TryLaterError as later:
            asked = _retry_after(answer.headers)
            raise TryLaterError(str(later), later.seconds if asked is None else asked) from later
        except ValueError as exc:
            raise TryLaterError(f"a broken answer ({exc})") from exc

    def _body(self, answer: Any, url: str) -> bytes:
        body = bytearray()
        late = time.monotonic() + self.manners.longest_body
        for chunk in answer.iter_bytes():
            body += chunk
            if time.monotonic() > late:
                raise TryLaterError(f"a body that takes more than {self.manners.longest_body} s")
            if len(body) > self.manners.max_bytes:
                raise FetchError(f"{url}: more than {self.manners.max_bytes} bytes")
        return bytes(body)

    def _wait_for_turn(self) -> None:
        while True:
            with self._lock:
                ahead = self._free_at - time.monotonic()
                if ahead <= 0:
                    self._free_at = time.monotonic() + self.manners.spacing
                    return
            time.sleep(ahead)

    def _pause(self, asked: float | None, attempt: int, url: str) -> None:
        """Hold back every thread for as long as the server asked, or longer at each attempt."""
        longest = self.manners.longest_wait
        if asked is not None and asked > longest:
            raise FetchError(f"{url}: the server asks to wait {asked:.0f} s: run it again then")
        doubled = min(self.manners.first_wait * 2**attempt, longest)
        wait = asked if asked is not None else doubled * random.uniform(0.75, 1.25)
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + wait)


def parse_xml(body: bytes) -> ElementTree.Element:
    """The root element; a ValueError if it is not XML (the library's own error is none)."""
    try:
        return ElementTree.fromstring(body)
    except ElementTree.ParseError as exc:
        raise ValueError(f"not XML: {exc}") from exc


def _check_status(status: int, headers: Any, url: str) -> None:
    if status in _GONE:
        raise NotFoundError(f"{url}: HTTP {status}, nothing there")
    if status in _PASSING:
        raise TryLaterError(f"HTTP {status}", _retry_after(headers))
    if not 200 <= status < 300:
        hint = ": say who you are with --contact" if status == 403 else ""
        raise FetchError(f"{url}: HTTP {status}{hint}")


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait; the header holds seconds or a date (RFC 9110, section 10.2.3)."""
    value = (headers.get("Retry-After") or "").strip()
    if value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)
