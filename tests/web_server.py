"""A server on 127.0.0.1 that plays the web: a table of answers, and faults that pass.

with Site() as site:
    site.route("/w/api.php", lambda query: answer({"query": …}))
    site.fault(status=429, headers={"Retry-After": "0"})   # the next request gets this instead
    site.url, site.requests
"""

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    cut: int | None = None  # send only so many bytes of the body, then hang up
    delay: float = 0.0  # seconds before the answer
    trickle: float = 0.0  # seconds after each byte of the body


def answer(body, **more):
    if not isinstance(body, str | bytes):
        body = json.dumps(body)
    return Answer(body.encode() if isinstance(body, str) else body, **more)


class Site:
    def __init__(self):
        self.routes, self.faults, self.requests, self.agents = {}, [], [], []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def route(self, prefix, respond):
        """`respond(query, path) -> Answer` (or a JSON-able tree); the longest prefix wins.

        `query` is the JSON that was posted, if it was.
        """
        self.routes[prefix] = respond

    def fault(self, at="", **fields):
        """The next request whose path and query hold `at` gets this."""
        self.faults.append((at, Answer(**fields)))

    def asked(self, part):
        return [request for request in self.requests if part in request]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def respond(self, target, posted=None):
        self.requests.append(unquote(target).replace("+", " "))
        for index, (at, fault) in enumerate(self.faults):
            if at in self.requests[-1]:
                del self.faults[index]
                return fault
        parts = urlsplit(target)
        path, query = unquote(parts.path), posted or dict(parse_qsl(parts.query))
        prefixes = [prefix for prefix in self.routes if path.startswith(prefix)]
        if not prefixes:
            return answer("nothing here", status=404)
        found = self.routes[max(prefixes, key=len)](query, path)
        return found if isinstance(found, Answer) else answer(found)

    def _handler(self):
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one packet: two would wait for each other

            def handle(self):
                with suppress(ConnectionResetError):  # the client was killed
                    super().handle()

            def do_GET(self):
                self.reply()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.reply(json.loads(body))

            def reply(self, posted=None):
                with site._lock:
                    site._at_once += 1
                    site.most_at_once = max(site.most_at_once, site._at_once)
                    site.agents.append(self.headers.get("User-Agent"))
                    reply = site.respond(self.path, posted)
                time.sleep(reply.delay)
                with site._lock:
                    site._at_once -= 1
                try:
                    self.send(reply)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client stopped waiting

            def send(self, reply):
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                for byte in reply.body if reply.trickle else ():
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(reply.trickle)
                if not reply.trickle:
                    self.wfile.write(reply.body[: reply.cut])
                self.close_connection |= reply.cut is not None

            def log_message(self, *_):
                pass

        return Handler
