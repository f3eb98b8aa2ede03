"""Serves the live page on this machine only: three addresses, no file but the newest grid of a run."""

import re
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from analysis.pages import live_page
from analysis.pages.live_page import LivePage
from analysis.pages.watch import Watch, WatchedRun
from dcgan import first_line
from dcgan.tools.files import read_plain

REST = 100  # times the CPU time that an answer took until a tab asks again: it costs at most a hundredth of a core...
RENEW_AT_MOST = 60  # seconds: ... unless an answer takes more than 0.6 s
KEPT_SECONDS = 1.0  # a look at the runs serves all tabs that ask within this time
LARGEST_GRID = 50_000_000  # bytes
PNG = b"\x89PNG\r\n\x1a\n"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LiveServer(ThreadingHTTPServer):
    """Shows the runs below a folder at `url`, on a free port, once `serve_forever` is called."""

    daemon_threads = True

    def __init__(self, runs: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self._folder, self._watch, self._page = str(runs), Watch(runs), LivePage()
        self._lock = threading.Lock()
        self._seen: tuple[list[WatchedRun], list[str]] = ([], [])
        self._seen_at = -KEPT_SECONDS

    def html(self, only: str | None, *, whole: bool) -> str:
        """The page, or what renews it. only: the key of the one run to show."""
        with self._lock:
            if time.monotonic() - self._seen_at >= KEPT_SECONDS:
                self._seen = self._watch.look()
                self._seen_at = time.monotonic()
            return self._page.html(*self._seen, folder=self._folder, only=only, whole=whole)

    @property
    def behind(self) -> bool:
        """Whether the last look has left rows of long histories for the next one."""
        return self._watch.behind

    def grid(self, key: str | None) -> bytes | None:
        """The newest grid of the run with this key; None where there is none. Paths come from the look, never from
        the address."""
        with self._lock:
            paths = [run.sample[1] for run in self._seen[0] if run.key == key and run.sample]
        try:
            content = read_plain(paths[0], most=LARGEST_GRID) if paths else b""
        except OSError:
            return None
        return content if content.startswith(PNG) else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about a tab that was closed halfway; the page itself says when a request fails."""


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    timeout = 10  # seconds for a request to arrive

    def do_GET(self) -> None:
        # Another site can point its own name at 127.0.0.1 and read our answers. Its requests still carry that name.
        if not re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d+)?", self.headers.get("Host", "")):
            return self._answer("this page is for this machine only", status=HTTPStatus.MISDIRECTED_REQUEST)
        address = urlsplit(self.path)
        only = parse_qs(address.query, errors="surrogateescape").get("run", [None])[0]
        if address.path in ("/", "/body"):
            began = time.thread_time()
            try:
                html = self.server.html(only, whole=address.path == "/")
            except Exception as error:  # or the tab would only see a closed connection, and the terminal nothing
                print(f"the live page can't be made: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
                return self._answer("the terminal says why", status=HTTPStatus.INTERNAL_SERVER_ERROR)
            rest = 0 if self.server.behind else min(REST * (time.thread_time() - began), RENEW_AT_MOST)
            return self._answer(html, kind="text/html; charset=utf-8", renew_after=max(rest, live_page.RENEW_SECONDS))
        if address.path == "/faces" and (grid := self.server.grid(only)):
            return self._answer(grid, kind="image/png", cache="private, max-age=86400, immutable")
        return self._answer("there is nothing here", status=HTTPStatus.NOT_FOUND)

    def _answer(
        self,
        content: str | bytes,
        *,
        kind: str = "text/plain",
        status: HTTPStatus = HTTPStatus.OK,
        cache: str = "no-store",
        renew_after: float | None = None,
    ) -> None:
        body = content.encode(errors="replace") if isinstance(content, str) else content
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": cache}
        if renew_after is not None:
            headers["Renew-After"] = f"{1000 * renew_after:.0f}"  # ms
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing about a request: the terminal shows the page's address."""
