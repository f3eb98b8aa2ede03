"""The rating page: what it shows, what it does not know, who may answer, and what is kept; in a real browser, too."""

import base64
import http.client
import io
import json
import queue
import re
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from analysis.measures.stats import wilson
from analysis.pages import rating
from analysis.runs.ratings import Sheet, read_ratings

GENERATED, REAL = 64, 32
REAL_INDICES = [7 * i + 3 for i in range(REAL)]
HOSTILE = "<script>alert(1)</script>"
WHEN = "2026-01-02T03:04:05.678Z"


def numbered(count, start=0, size=16):
    """Images that can be told apart: each of one colour, its number."""
    images = np.zeros((count, size, size, 3), dtype=np.uint8)
    images[..., 0] = (np.arange(count) + start)[:, None, None]
    return images


PICTURES = {"generated": numbered(GENERATED), "real": numbered(REAL, GENERATED)}


def make_sheet(seed=5, **changes):
    known = {
        "generator": "abc",
        "generated_indices": range(GENERATED),
        "real_indices": REAL_INDICES,
        "title": "tuned_lr",
    }
    return Sheet(**{"seed": seed, **known, **changes})


def shown(page):
    """The numbers of a page's pictures in their order."""
    pictures = json.loads(re.search(r'<script type="application/json" id="pictures">(.*?)</script>', page, re.S)[1])
    files = (io.BytesIO(base64.b64decode(picture.removeprefix("data:image/png;base64,"))) for picture in pictures)
    return [Image.open(file).convert("RGB").getpixel((5, 5))[0] for file in files]


def answers_by_kind(page):
    """What somebody would answer who calls every real picture normal and every fourth generated one."""
    return "".join("y" if number >= GENERATED or number % 4 == 0 else "n" for number in shown(page))


class Asked:
    """A `rate` that waits for its answers in a thread of its own."""

    def __init__(self, folder, monkeypatch, **changes):
        addresses = queue.Queue()
        monkeypatch.setattr(rating, "_open", addresses.put)
        asked = {
            "real_indices": REAL_INDICES,
            "generator_hash": "abc",
            "title": "tuned_lr seed 0",
            **PICTURES,
            **changes,
        }
        self.folder, self._pool = folder, ThreadPoolExecutor(1)
        self._path = self._pool.submit(rating.rate, folder, **asked)
        self.address = addresses.get(timeout=30)

    @property
    def waits(self):
        return not self._path.done()

    def path(self):
        """Where the rating is, once there is one."""
        return self._path.result(timeout=30)

    def get(self, place="", **headers):
        with urllib.request.urlopen(urllib.request.Request(self.address + place, headers=headers), timeout=30) as reply:
            return reply.read().decode()

    def post(self, body, token, **headers):
        """The status and the text of the reply."""
        headers = {"X-Token": token, **headers}
        request = urllib.request.Request(self.address + "ratings", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def answered(self):
        """The page's facts and a valid body."""
        page = self.get()
        name, token = re.search(r'data-page="(\w+)" data-token="([\w-]+)"', page).groups()
        given = {"page": name, "answers": answers_by_kind(page), "rater": "A. B.", "time": WHEN}
        return given, token

    def finish(self):
        given, token = self.answered()
        assert self.post(json.dumps(given).encode(), token)[0] == 200
        return self.path()


@pytest.fixture
def asked(tmp_path, monkeypatch):
    asked = Asked(tmp_path / "runs" / "faces-01234567" / "laptop" / "tuned_lr" / "seed-0", monkeypatch)
    yield asked
    if asked.waits:
        asked.finish()


@pytest.fixture
def few_asked(tmp_path, monkeypatch):
    few = {"generated": numbered(5), "real": numbered(4, GENERATED), "real_indices": range(4)}
    asked = Asked(tmp_path / "runs" / "faces-01234567" / "laptop" / "tuned_lr" / "seed-0", monkeypatch, **few)
    yield asked
    if asked.waits:
        asked.finish()


# --- what the page does not know ---


def test_the_page_is_made_of_its_pictures_and_not_of_their_kinds(tmp_path):
    same = ["data:,"] * (GENERATED + REAL)
    pages = set()
    for sheet in (make_sheet(1), make_sheet(2), make_sheet(1, real_indices=range(5000, 5000 + REAL))):
        pages.add(rating.page_html(sheet, same, folder=tmp_path).replace(sheet.page, "PAGE"))
    assert len(pages) == 1


def test_the_page_holds_neither_the_seed_nor_an_index_nor_the_generators_hash(tmp_path):
    sheet = make_sheet(918273645, generator="f00dfacecafe", real_indices=range(7_654_321, 7_654_321 + REAL))
    page = rating.page_html(sheet, ["data:,"] * len(sheet.order), folder=tmp_path)
    for secret in ("918273645", "f00dfacecafe", "76543"):
        assert secret not in page


def test_pictures_of_both_kinds_are_encoded_alike_and_nothing_but_pixels_is_in_them(asked):
    page = asked.get()
    assert sorted(shown(page)) == list(range(GENERATED + REAL))
    for uri in re.findall(r"data:image/png;base64,([\w+/=]+)", page):
        content = base64.b64decode(uri)
        image = Image.open(io.BytesIO(content))
        assert (image.size, image.mode, image.info) == ((128, 128), "RGB", {})
        assert len(re.findall(rb"IHDR|IDAT|IEND", content)) == 3


def test_the_file_beside_the_server_is_the_same_page_without_its_token(asked):
    _, token = asked.answered()
    file = (asked.folder / "ratings" / "page.html").read_text(encoding="utf-8")
    assert file == asked.get().replace(token, "")
    assert "faces-01234567/laptop/tuned_lr/seed-0/ratings" in file
    assert str(asked.folder) not in file, "it may be handed on, and the rest of the path names its machine"


def test_the_page_forbids_all_other_origins_and_any_text_in_it_is_only_text(tmp_path):
    page = rating.page_html(make_sheet(title=HOSTILE), ["data:,", HOSTILE], folder=tmp_path / HOSTILE)
    assert HOSTILE not in page
    assert "default-src 'none'" in page
    assert re.findall(r"https?://", page) == []


# --- who may answer ---


def test_answers_are_kept_with_all_that_is_needed_and_the_reply_tells_both_rates(asked, capsys):
    given, token = asked.answered()
    status, text = asked.post(json.dumps(given).encode(), token)
    assert status == 200
    reply = json.loads(text)
    low, high = wilson(16, 64)
    assert reply["generated"] == {"yes": 16, "n": 64, "low": low, "high": high}
    assert reply["real"]["yes"] == reply["real"]["n"] == 32
    path = asked.path()
    assert path.parent == asked.folder / "ratings"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}Z\.json", path.name)
    assert reply["kept"] == str(path)
    record = json.loads(path.read_text())
    assert record["generated"] == {"yes": 16, "n": 64}
    assert record["real"] == {"yes": 32, "n": 32}
    assert (record["generator"], record["rater"], record["question"]) == ("abc", "A. B.", "Does this face look normal?")
    order = make_sheet(record["seed"]).order
    for place, image in zip(order, record["images"], strict=True):
        if place < GENERATED:
            assert image == {"kind": "generated", "index": place, "answer": "y" if place % 4 == 0 else "n"}
        else:
            assert image == {"kind": "real", "index": REAL_INDICES[place - GENERATED], "answer": "y"}
    assert "25 % [16, 37] of 64 generated, 100 % [89, 100] of 32 real" in capsys.readouterr().out


def test_bad_answers_are_refused_and_not_written(asked):
    given, token = asked.answered()
    good = given["answers"]
    bad = [
        {**given, "answers": good[:-1]},
        {**given, "answers": good + "y"},
        {**given, "answers": good[:-1] + "x"},
        {**given, "answers": good[:-1] + "\n"},
        {**given, "answers": list(good)},
        {**given, "answers": ""},
        {**given, "page": "0" * 16},
        {**given, "rater": "x" * 81},
        {**given, "time": "yesterday"},
        {**given, "time": "2026-01-02T03:04:05"},
        {**given, "more": 1},
        {key: given[key] for key in ("page", "answers", "rater")},
        [given],
        None,
    ]
    bodies = [json.dumps(each).encode() for each in bad] + [b"", b"{", b"\xff", b"[" * 10_000, b'{"rater": "\\ud800"}']
    for body in bodies:
        status, reason = asked.post(body, token)
        assert status == 400, body
        assert reason, body
    assert asked.waits
    assert sorted(path.name for path in (asked.folder / "ratings").iterdir()) == ["page.html", "page.json"]


def test_only_the_page_of_this_command_on_this_machine_is_heard(asked):
    given, token = asked.answered()
    body = json.dumps(given).encode()
    assert asked.post(body, "")[0] == 400
    assert asked.post(body, token[:-1])[0] == 400
    assert asked.post(body, "\xe9")[0] == 400
    assert asked.post(body, token, Host="evil.example:80")[0] == 400
    assert asked.address.startswith("http://127.0.0.1:")
    for place, headers in (("page.json", {}), ("../page.json", {}), ("", {"Host": "evil.example:80"})):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            asked.get(place, **headers)
    assert asked.waits


def test_a_body_of_no_or_too_great_length_is_refused_unread(asked):
    for length in ("100000000", "-1", "many", "9" * 5000, None):
        connection = http.client.HTTPConnection(asked.address.split("/")[2], timeout=30)
        connection.putrequest("POST", "/ratings")
        if length is not None:
            connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == 400, length
    assert asked.waits


def test_a_silent_connection_holds_nobody_up(asked):
    host, port = asked.address.split("/")[2].split(":")
    with socket.create_connection((host, int(port))):
        assert "<!doctype html>" in asked.get()


def test_ctrl_c_ends_the_command_and_its_server_and_leaves_the_page(tmp_path, monkeypatch):
    def interrupted(self, poll_interval):
        raise KeyboardInterrupt

    monkeypatch.setattr(rating._Server, "serve_forever", interrupted)
    addresses = []
    monkeypatch.setattr(rating, "_open", addresses.append)
    with pytest.raises(KeyboardInterrupt):
        rating.rate(tmp_path, **PICTURES, real_indices=REAL_INDICES, generator_hash="abc", title="t")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(addresses[0], timeout=5)
    assert sorted(path.name for path in (tmp_path / "ratings").iterdir()) == ["page.html", "page.json"]
    assert read_ratings(tmp_path) == []


def test_a_browser_is_opened_only_where_there_is_a_screen(monkeypatch):
    opened = []
    monkeypatch.setattr(rating.webbrowser, "open", opened.append)
    monkeypatch.setattr(rating.sys, "platform", "linux")
    for name in ("CI", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    rating._open("a")
    monkeypatch.setenv("DISPLAY", ":0")
    rating._open("b")
    monkeypatch.setenv("CI", "true")
    rating._open("c")
    assert opened == ["b"]


# --- in a browser ---


@pytest.fixture
def visit(browser):
    """Open an address in a window of its own; afterwards: nothing went wrong and nothing else was asked for."""
    contexts, asked, troubles, origins = [], [], [], []

    def visit(address, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options}))
        tab = contexts[-1].new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: troubles.append(message.text))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        origins.append(address)
        tab.goto(address)
        return tab

    visit.expected_troubles = []
    yield visit
    for context in contexts:
        context.close()
    assert [each for each in troubles if not any(text in each for text in visit.expected_troubles)] == []
    assert asked
    assert [url[:60] for url in asked if not url.startswith(("data:", "blob:", *origins))] == []


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_a_person_rates_all_pictures_by_keys_undoes_one_and_sees_the_rates(asked, visit):
    tab = visit(asked.address)
    answers = answers_by_kind(asked.get())
    assert tab.get_by_role("heading").inner_text() == "Does this face look normal?"
    assert tab.locator("#count").inner_text() == "1 of 96"
    for number, letter in enumerate(answers):
        if number == 11:
            assert tab.locator("#count").inner_text() == "12 of 96"
            before = tab.locator("#picture").get_attribute("src")
            tab.keyboard.press("n" if letter == "y" else "y")  # a slip
            assert tab.locator("#picture").get_attribute("src") != before
            tab.keyboard.press("Backspace")
            assert tab.locator("#picture").get_attribute("src") == before
            assert tab.locator("#picture").get_attribute("alt") == "Picture 12 of 96"
        if number == 50:
            tab.reload()  # nothing is lost
            assert tab.locator("#count").inner_text() == "51 of 96"
        tab.keyboard.press(letter)
    assert tab.get_by_role("heading").inner_text() == "All 96 pictures are answered"
    tab.keyboard.press("u")
    assert tab.locator("#count").inner_text() == "96 of 96"
    assert tab.locator("#yes").is_visible()
    tab.keyboard.press(answers[-1].upper())
    tab.get_by_label("Your name or initials").fill("any")  # y and n are letters here
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="This is what looked normal to you").wait_for()
    assert "25 % of the generated pictures" in tab.locator("#generated").inner_text()
    assert "16 of 64; 95 % interval 16 % to 37 %" in tab.locator("#generated").inner_text()
    assert "100 % of the pictures from the training data" in tab.locator("#real").inner_text()
    path = asked.path()
    assert tab.locator("#kept").inner_text() == str(path)
    (found,) = read_ratings(asked.folder)
    assert (found.generated_yes, found.real_yes, found.rater) == (16, 32, "any")
    assert "".join(each["answer"] for each in json.loads(path.read_text())["images"]) == answers
    tab.keyboard.press("u")
    assert tab.locator("#kept").is_visible(), "what is sent is sent"


def test_a_key_that_is_held_down_or_pressed_with_another_is_no_answer(asked, visit):
    tab = visit(asked.address)
    tab.keyboard.down("y")
    tab.keyboard.down("y")  # what a keyboard repeats
    tab.keyboard.up("y")
    tab.keyboard.press("Control+y")
    assert tab.locator("#count").inner_text() == "2 of 96"
    tab.locator("#no").focus()
    tab.keyboard.down("Enter")
    tab.keyboard.down("Enter")
    tab.keyboard.up("Enter")
    assert tab.locator("#count").inner_text() == "3 of 96"
    assert "Your last answer: no" in tab.locator("#last").inner_text()


def test_everything_needed_is_on_the_screen_without_scrolling(asked, visit):
    tab = visit(asked.address)
    for width, height in ((320, 568), (390, 844), (844, 360), (1280, 640)):
        tab.set_viewport_size({"width": width, "height": height})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for part in ("#picture", "#yes", "#no"):
            box = tab.locator(part).bounding_box()
            assert box["y"] + box["height"] <= height, (part, width, height)
            assert min(box["width"], box["height"]) >= 44, "large enough for a thumb"


def test_as_a_file_on_a_phone_the_answers_are_saved_and_understood_when_put_into_the_folder(few_asked, visit):
    asked = few_asked
    file = asked.folder / "ratings" / "page.html"
    tab = visit(file.as_uri(), **PHONE)
    answers = answers_by_kind(file.read_text(encoding="utf-8"))
    for letter in answers[:2]:
        tab.locator("#yes" if letter == "y" else "#no").tap()
    for letter in answers[2:]:
        tab.keyboard.press(letter)
    assert tab.screenshot()[1:4] == b"PNG"
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save the answers").tap()
    name = download.value.suggested_filename
    assert re.fullmatch(r"answers-[0-9a-f]{16}\.json", name)
    assert "faces-01234567/laptop/tuned_lr/seed-0/ratings" in tab.locator("#saved").inner_text()
    download.value.save_as(asked.folder / "ratings" / name)
    (found,) = read_ratings(asked.folder)
    assert (found.generated_yes, found.generated_n, found.real_yes, found.real_n) == (2, 5, 4, 4)
    assert asked.waits


def test_answers_that_the_server_no_longer_takes_can_be_saved(few_asked, visit):
    asked = few_asked
    visit.expected_troubles = ["ERR_CONNECTION_REFUSED"]
    tab = visit(asked.address)
    for letter in answers_by_kind(asked.get()):
        tab.keyboard.press(letter)
    asked.finish()  # somebody was faster
    tab.keyboard.press("Enter")
    tab.get_by_text("They could not be sent").wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Save the answers").click()
    download.value.save_as(asked.folder / "ratings" / download.value.suggested_filename)
    assert len(read_ratings(asked.folder)) == 2
