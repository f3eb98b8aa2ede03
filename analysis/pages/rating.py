"""How many generated faces look normal to a person? Asked on one page, with real ones among them as the yardstick.

The page shows generated and real images shuffled and unmarked and holds no hint of which is which: the order is a
function of a seed that Python alone knows. Which files it leaves in the run's folder,
`analysis.runs.ratings` says.
"""

import base64
import hashlib
import hmac
import io
import json
import logging
import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from analysis.measures.stats import wilson
from analysis.pages.html import template
from analysis.runs.ratings import FOLDER, KINDS, PAGE, QUESTION, SHEET, Answers, Count, Record, Sheet, reason
from dcgan.tools.files import replacing

log = logging.getLogger(__name__)

LARGEST = 16_384  # bytes of a POST; 96 answers and a name are 300
LEAST_PX = 128  # of a picture in the page


def rate(
    run_folder: Path,
    *,
    generated: np.ndarray,
    real: np.ndarray,
    real_indices: Sequence[int],
    generator_hash: str,
    title: str,
    open_browser: bool = True,
) -> Path:
    """Ask a person about generated and real uint8 images (n, H, W, 3), picture i generated from latent seed i.

    Waits for the answers and returns the path of their JSON; KeyboardInterrupt ends it before. The order follows from
    the generator, so that everybody who rates it gets the same page, and `page.html` can be handed on.
    """
    sheet = Sheet.of(generator=generator_hash, generated=len(generated), real_indices=real_indices, title=title)
    pictures = [_data_uri(picture) for picture in _shuffled(sheet, generated=generated, real=real)]
    folder = run_folder / FOLDER
    _write(folder / SHEET, sheet.model_dump_json(indent=2) + "\n")
    _write(folder / PAGE, page_html(sheet, pictures, folder=folder))
    token = secrets.token_urlsafe()
    record, path = _ask(page_html(sheet, pictures, folder=folder, token=token), token, sheet, folder, open_browser)
    print(f"{_in_words(record)}\nkept in {path}; make compare shows it", flush=True)
    return path


def page_html(sheet: Sheet, pictures: Sequence[str], *, folder: Path, token: str = "") -> str:
    """The page as one text, from its pictures, data URIs in their order. `token` lets its answers in at the server."""
    return template("rating.html", sha256=_sha256).render(
        question=QUESTION,
        title=sheet.title,
        page=sheet.page,
        token=token,
        pictures=pictures,
        place="/".join(folder.parts[-5:]),  # no more: the page may be handed on, and the rest names its machine
    )


# --- the server ---


class _Server(ThreadingHTTPServer):
    """Gives one page to this machine and takes answers to it, until some are valid; see `_ask`.

    Threads, because a browser opens connections ahead of need, and one that stays silent would hold up the others.
    """

    def __init__(self, page: str, token: str, take: Callable[[bytes], dict[str, Any]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page, self.token, self.take = page, token, take

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10  # seconds of silence

    def do_GET(self) -> None:
        if self.path != "/" or not self._is_meant():
            self._reply(HTTPStatus.NOT_FOUND, "text/plain", "there is nothing here")
        else:
            self._reply(HTTPStatus.OK, "text/html", self.server.page)

    def do_POST(self) -> None:
        try:
            reply = self.server.take(self._body())
        except (ValueError, OSError) as error:
            ours = isinstance(error, OSError)  # no space, no permission
            status = HTTPStatus.INTERNAL_SERVER_ERROR if ours else HTTPStatus.BAD_REQUEST
            self._reply(status, "text/plain", reason(error))
            return
        self._reply(HTTPStatus.OK, "application/json", json.dumps(reply))
        self.server.shutdown()

    def _body(self) -> bytes:
        """What was posted. Raises ValueError where it is not from our page, or too much."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            raise ValueError(f"at most {LARGEST} bytes, of a known number")
        body = self.rfile.read(int(length))  # before any refusal: a browser may not listen while it still sends
        if self.path != "/ratings" or not self._is_meant():
            raise ValueError("answers go to /ratings")
        if not hmac.compare_digest(self.headers.get("X-Token", "").encode(), self.server.token.encode()):
            raise ValueError("not from the page that this command opened")
        return body

    def _is_meant(self) -> bool:
        """Whether the browser means this machine: a site may have its own name point here, and read the answer."""
        return self.headers.get("Host", "").rpartition(":")[0] in ("127.0.0.1", "localhost")

    def _reply(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _ask(page: str, token: str, sheet: Sheet, folder: Path, open_browser: bool) -> tuple[Record, Path]:
    """Serve the page until its answers have come and are written; what was, and where."""
    kept: list[tuple[Record, Path]] = []
    one_at_a_time = threading.Lock()

    def take(body: bytes) -> dict[str, Any]:
        record = Record.of(Answers.model_validate_json(body), sheet)
        path = folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}Z.json"
        with one_at_a_time:
            if kept:
                raise ValueError("answered already, on another page")
            _write(path, record.model_dump_json(indent=2) + "\n")
            kept.append((record, path))
        return {**{kind: _rates(getattr(record, kind)) for kind in KINDS}, "kept": str(path)}

    with _Server(page, token, take) as server:
        count = len(sheet.order)
        print(f"{count} pictures to rate, a few minutes: {server.address} (Ctrl-C stops)", flush=True)
        print(f"or open this file, here or on another machine: {folder / PAGE}", flush=True)
        if open_browser:
            _open(server.address)
        server.serve_forever(poll_interval=0.1)
    return kept[0]


def _open(address: str) -> None:
    """Show the page where there is a screen and a browser; elsewhere its address has been printed."""
    screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen and not os.environ.get("CI"):
        webbrowser.open(address)


# --- answers ---


def _rates(count: Count) -> dict[str, float]:
    low, high = wilson(count.yes, count.n)
    return {"yes": count.yes, "n": count.n, "low": low, "high": high}


def _in_words(record: Record) -> str:
    told = []
    for kind in KINDS:
        found = _rates(getattr(record, kind))
        share, low, high = (100 * value for value in (found["yes"] / found["n"], found["low"], found["high"]))
        told.append(f"{share:.0f} % [{low:.0f}, {high:.0f}] of {found['n']} {kind}")
    return f"look normal: {', '.join(told)} pictures (95 %, Wilson)"


# --- the page's content ---


def _shuffled(sheet: Sheet, *, generated: np.ndarray, real: np.ndarray) -> list[np.ndarray]:
    if len(real) != len(sheet.real_indices):
        raise ValueError(f"{len(real)} real images and {len(sheet.real_indices)} indices")
    return [generated[i] if i < len(generated) else real[i - len(generated)] for i in sheet.order]


def _data_uri(picture: np.ndarray) -> str:
    """As PNG, which holds pixels and nothing else.

    A small picture is enlarged here, which keeps it sharper than a browser would, and the same in all of them.
    """
    image = Image.fromarray(picture)
    if max(image.size) < LEAST_PX:
        image = ImageOps.contain(image, (LEAST_PX, LEAST_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, format="PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _sha256(text: str) -> str:
    """For the content security policy: what a script or style must hash to, to be let in."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()


def _write(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
