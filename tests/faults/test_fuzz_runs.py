"""Run folders with rubbish in them: the broken run is named and left out, the others are compared as ever."""

import contextlib
import copy
import functools
import io
import itertools
import json
import logging
import math
import os
import resource
import shutil
import signal
import socket
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.hostile import mutants
from support.made_runs import DATA, make_run, write_scores

from analysis.__main__ import main
from analysis.compare import build as module
from analysis.compare.build import compare, groups
from analysis.compare.comparison import Note
from analysis.measures import features
from analysis.pages import grids, report, tables
from analysis.runs.folders import read_folders
from analysis.runs.ratings import Answers, Record, Sheet
from analysis.score import Protocol, Scorer
from dcgan import UserError
from dcgan.tools import plain_yaml

pytestmark = pytest.mark.thorough
STUB = features.Extractor("effnet_lite0", features.EFFNET_SHA256[:16], 1280, None)
NO_FIGURES = dict.fromkeys(("losses", "measures", "overview", "quality", "windows", "scatter"), ())
PATIENCE_S = 20  # for one case; the slowest takes a fraction of a second without figures
PAGE_PATIENCE_S = 120
STEPS = 200
#: A page takes seconds to draw, a case of the reading part tens of milliseconds.
READ, DRAWN = max(10, settings().max_examples // 5 - 10), max(2, settings().max_examples // 50)

HOSTILE = [
    None, True, 0, -1, 7, 2**31, 2**53, 2**63, -(2**64), 10**30, 0.0, -0.0, 1e-300, 1e308, -1e308,
    math.nan, math.inf, -math.inf, "", " ", "7", "1e999", "nan", "all", "x" * 300, "a\x00b", "\x1b[2J", "two\nlines",
    "\u2028\u2029\x85", "../../../out", "/tmp/out", "..", ".", "a/b", "~", "-rf", "<script>alert(1)</script>",
    "</script>", "'\"><img src=x onerror=alert(1)>", "${x}", "{{ x }}", "$\\frac{", "%s%n", "=cmd()", "|a|b|",
    "\U0001f600",
    [], [1], [[[]]], ["a", 1.5], {}, {"a": 1}, {"": None}, {"step": 1}, {"a": {"b": [None]}},
]  # fmt: skip
SPICY_CELLS = [
    "", "nan", "NaN", "inf", "-inf", "1e999", "-1e999", "1e-999", "-1", "0", "0x10", "1_000", "9" * 30, "9" * 5000,
    "1e30", "low", "None", "true", "1,2", '"', "'", '"a\nb"', "\x00", "\ufeff", "\u2028", "1.5", " 7", "7 ", "+7",
    "--7", "e", "-", "<b>", "=1+1",
]  # fmt: skip

values = st.sampled_from(HOSTILE) | st.text(max_size=20) | st.integers() | st.floats()


class Hung(Exception):
    """A case took too long."""


@contextlib.contextmanager
def patience(seconds):
    def give_up(*_):
        raise Hung(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def room(more):
    """At most so many bytes more than the process has now: what fills the memory fails and takes nobody along."""
    told = Path("/proc/self/statm")
    if not told.exists():  # not Linux
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(told.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# ---- a lab with a good run and one to break


class Lab:
    """Two scored and rated runs: a good one, and one whose files are put in the place of others."""

    def __init__(self, place):
        self.place, self.runs, self.out = place, place / "runs", place / "reports"
        self.good = make_run(self.runs, "baseline", 0, steps=STEPS)
        self.broken = make_run(self.runs, "tuned_lr", 1, steps=STEPS)
        for folder in (self.good, self.broken):
            ((run,), _) = read_folders(folder.path)
            write_scores(folder, run, Protocol.of(run, STUB, None), seed=3)
            _rate(folder.path)
            folder.sample(STEPS).parent.mkdir()
            Image.new("RGB", (16, 16), "red").save(folder.sample(STEPS))
        self.files = {
            "config.yaml": self.broken.config,
            "history.csv": self.broken.history,
            "status.json": self.broken.status,
            "scores.csv": self.broken.path / "scores.csv",
            "rating": self.broken.path / "ratings" / "20260101T000000Z.json",
            "sheet": self.broken.path / "ratings" / "page.json",
            "generator.params": self.broken.generator,
            "snapshot": self.broken.snapshot(STEPS // 2),
            "sample": self.broken.sample(STEPS),
            ".lock": self.broken.lock,
        }
        self.valid = {name: path.read_bytes() for name, path in self.files.items() if path.exists()}
        self.scorer = Scorer(STUB, cache=place / "cache")
        self.there = self._around()
        self.expected = None
        self.expected = self.look()[1]

    def _around(self):
        """What lies beside the folders that may be written to."""
        outside = [path for path in self.place.rglob("*") if not path.is_relative_to(self.out)]
        return sorted(str(path) for path in outside if not path.is_relative_to(self.place / "cache"))

    @contextlib.contextmanager
    def with_file(self, name, content):
        """The broken run with other bytes in a file, or with something that `content` makes of its path."""
        path = self.files[name]
        path.unlink(missing_ok=True)
        try:
            if callable(content):
                content(path)
            else:
                path.write_bytes(content)
            yield
        finally:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
            if name in self.valid:
                path.write_bytes(self.valid[name])

    def look(self, *, untouched=True):
        """Read and compare everything but draw no figures; return the notes of all and the good run's row."""
        with patience(PATIENCE_S):
            found, problems = read_folders(self.runs)
            told, good = list(problems), None
            for run in found:
                run.snapshots()
                with contextlib.suppress(UserError):
                    run.history()
            for (data, profile), members in groups(found).items():
                assert (self.out / data / profile).resolve().parent.parent == self.out.resolve()
                comparison = compare(
                    members, self.scorer.found, notes=[*map(Note, problems), *self.scorer.score(members)]
                )
                text = tables.csv(comparison.table), tables.markdown(comparison), report.html(comparison, NO_FIGURES)
                for each in text:
                    each.encode()
                told += [*map(str, [*comparison.notes, *comparison.alarms])]
                rows = comparison.table[comparison.table["experiment"] == "baseline"]
                for row in rows[rows["seed"] == 0].to_dict("records"):
                    good = row
        assert any(run.folder.path == self.broken.path for run in found) or any(
            str(self.broken.path) in line for line in problems
        )
        assert [line for line in told if not line.isprintable()] == []
        assert self._around() == self.there if untouched else True
        if self.expected:
            assert {key: good[key] for key in ("fid", "interleaving_ratio", "status", "precision")} == {
                key: self.expected[key] for key in ("fid", "interleaving_ratio", "status", "precision")
            }
        return told, good


def _rate(run_folder):
    sheet = Sheet(seed=1, generator="0" * 32, generated_indices=(0, 1, 2), real_indices=(0, 1), title="a run")
    answers = Answers(page=sheet.page, answers="yynyn", rater="me", time="2026-01-01T00:00:00Z")
    (run_folder / "ratings").mkdir()
    (run_folder / "ratings" / "page.json").write_text(sheet.model_dump_json())
    record = Record.of(answers, sheet)
    (run_folder / "ratings" / "20260101T000000Z.json").write_text(record.model_dump_json())
    (run_folder / "ratings" / "answers-1.json").write_text(answers.model_dump_json())


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    logging.getLogger("analysis").setLevel(logging.CRITICAL)  # thousands of lines
    with pytest.MonkeyPatch.context() as patched:
        # Neither is what is looked at here, and they take most of a case's time: the template is compiled once, and
        # the repository's own experiments are read once.
        patched.setattr(report, "template", functools.cache(report.template))
        patched.setattr("analysis.compare.build._in_repository", functools.cache(module._in_repository))
        yield Lab(tmp_path_factory.mktemp("lab"))
    logging.getLogger("analysis").setLevel(logging.NOTSET)


# ---- mutations


def records(valid):
    """A mapping with up to three things in it that do not belong there: changed, gone, new, or of another type."""

    @st.composite
    def changed(draw):
        record = copy.deepcopy(valid)
        for _ in range(draw(st.integers(1, 3))):
            node = record
            while True:
                keys = list(node) if isinstance(node, dict) else list(range(len(node)))
                key = draw(st.sampled_from(keys)) if keys else None
                inner = node[key] if keys else None
                if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                    node = inner
                    continue
                break
            what = draw(st.sampled_from(["value", "value", "value", "gone", "new"]))
            if what == "value" and keys:
                node[key] = draw(values)
            elif what == "gone" and keys:
                del node[key]
            elif isinstance(node, dict):
                node[draw(st.text(max_size=8) | st.sampled_from(["state", "wandb_url", "overrides"]))] = draw(values)
        return record

    return changed()


def broken_tables(valid):
    """A CSV file with cells, rows and columns that do not belong there, in another order, twice, or torn."""
    rows = [line.split(",") for line in valid.decode().splitlines()]

    @st.composite
    def changed(draw):
        table = [list(row) for row in rows]
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.sampled_from([0, 1, len(table) - 1]) | st.integers(0, len(table) - 1))
            column = draw(st.integers(0, len(table[0]) - 1))
            what = draw(st.sampled_from(["cell", "cell", "cell", "swap", "twice", "gone", "column", "less", "header"]))
            if what == "cell" and column < len(table[at]):
                table[at][column] = draw(st.sampled_from(SPICY_CELLS) | st.text(max_size=8))
            elif what == "swap":
                other = draw(st.integers(0, len(table) - 1))
                table[at], table[other] = table[other], table[at]
            elif what == "twice":
                table.insert(at, list(table[at]))
            elif what == "gone" and len(table) > 1:
                del table[at]
            elif what == "column":
                cell = draw(st.sampled_from([*SPICY_CELLS, *table[0]]))
                table = [[*row, cell] for row in table]
            elif what == "less":
                table = [row[:column] + row[column + 1 :] for row in table]
            elif what == "header":
                table[0][column % len(table[0])] = draw(st.sampled_from([*table[0], "", "step", " step"]))
            assume(table and all(table[:1]))
        text = "\n".join(",".join(row) for row in table) + draw(
            st.sampled_from(["\n", "", "\n\n", "\r\n", ",", "\n1,2"])
        )
        return text.encode("utf-8", "surrogatepass")

    return changed()


def yaml_bytes(record):
    """YAML of anything: the lab's own writer would refuse some of it."""
    with contextlib.suppress(Exception):
        return yaml.dump(record, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    return json_bytes(record)


def json_bytes(record):
    return json.dumps(record).encode()


def _bomb(inside):
    """Ten lines that stand for a thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    return "\n".join([*lines, inside]).encode()


def _config(lab, **changed):
    return plain_yaml.dump({**plain_yaml.read(lab.good.config), "seed": 1, "name": "tuned_lr", **changed})


TAGS = [
    "!!python/object/apply:os.system ['touch {place}/owned']",
    "!!python/object/new:os.system ['touch {place}/owned']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!binary aGVsbG8=",
    "!!set {{a, b}}",
    "!!timestamp 2026-01-01",
    "!!int ''",
    "&a [*a]",
    "!<tag:yaml.org,2002:python/object/apply:os.getcwd> []",
    "!!float 1e999",
]

# ---- the reading part, thousands of times


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "rating", "sheet"])
def test_a_record_with_values_that_do_not_belong_there_stops_no_other_run(lab, name):
    read = {"config.yaml": yaml.safe_load}.get(name, json.loads)
    written = {"config.yaml": yaml_bytes}.get(name, json_bytes)

    @settings(max_examples=READ, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(records(read(lab.valid[name])))
    def holds(record):
        with lab.with_file(name, written(record)):
            lab.look()

    holds()


@pytest.mark.parametrize("name", ["history.csv", "scores.csv"])
def test_a_table_with_cells_that_do_not_belong_there_stops_no_other_run(lab, name):
    @settings(max_examples=READ, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(broken_tables(lab.valid[name]))
    def holds(content):
        with lab.with_file(name, content):
            lab.look()

    holds()


@pytest.mark.parametrize(
    "name", ["config.yaml", "history.csv", "status.json", "scores.csv", "rating", "sheet", "sample"]
)
def test_any_bytes_in_a_file_stop_no_other_run(lab, name):
    @settings(max_examples=READ)
    @given(mutants(lab.valid[name]))
    @example(b"")
    @example(b"\x00" * 1000)
    @example(b"\xff\xfe" + "step,loss_d".encode("utf-16-le"))
    @example(b"[" * 100_000)
    @example(b'{"state":' * 50_000)
    def holds(content):
        with lab.with_file(name, content):
            lab.look()

    holds()


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("key", ["question", "environment", "overrides"])
def test_a_tag_in_a_record_makes_and_runs_nothing(lab, tag, key):
    lines = [line for line in lab.valid["config.yaml"].decode().splitlines() if not line.startswith(f"{key}:")]
    content = "\n".join([*lines, f"{key}: {tag.format(place=lab.place)}"]).encode()
    with lab.with_file("config.yaml", content):
        lab.look()
    assert not (lab.place / "owned").exists()


@pytest.mark.parametrize("key", ["environment", "overrides", "profile_changes", "question", "data", "more"])
@pytest.mark.parametrize("bomb", ["lists", "merged"])
def test_ten_lines_that_stand_for_gigabytes_are_refused_in_no_time(lab, key, bomb):
    lines = [line for line in lab.valid["config.yaml"].decode().splitlines() if not line.startswith(f"{key}:")]
    if bomb == "lists":
        content = _bomb("\n".join([*lines, f"{key}: *a8", "environment: {torch: *a8, threads: *a8, python: *a8}"]))
    else:
        links = ["m0: &m0 {a: 1, b: 2}"]
        links += [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}" for i in range(1, 9)]
        content = "\n".join([*lines, *links, f"{key}: *m8"]).encode()
    with lab.with_file("config.yaml", content):
        lab.look()


# ---- files that are no files


def _fifo(path):
    os.mkfifo(path)


def _loop(path):
    path.symlink_to(path.name)


def _dangling(path):
    path.symlink_to("nowhere")


def _endless(path):
    path.symlink_to("/dev/zero")


def _folder(path):
    path.mkdir()


def _socket(path):
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # an address has room for 100 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _huge(path):
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk


KINDS = [_fifo, _loop, _dangling, _endless, _folder, _socket, _huge]
PLACES = ["config.yaml", "history.csv", "status.json", "scores.csv", "rating", "sheet", "sample"]
PLACES += ["generator.params", "snapshot"]


# Weights may be large; reading them is dcgan.checkpoint's.
NO_PLAIN_FILES = [
    (name, kind)
    for name, kind in itertools.product(PLACES, KINDS)
    if kind is not _huge or name not in ("generator.params", "snapshot")
]


@pytest.mark.parametrize(("name", "kind"), NO_PLAIN_FILES)
def test_what_is_no_plain_file_is_not_waited_for(lab, name, kind):
    with lab.with_file(name, kind), room(2 * 2**30):
        lab.look(untouched=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_no_plain_file_is_not_waited_for(lab, kind):
    running = _status(lab, state="running")  # else nobody asks for the lock
    with lab.with_file("status.json", running), lab.with_file(".lock", kind):
        lab.look(untouched=False)


def test_a_folder_of_runs_that_leads_into_itself_is_walked_through_once(lab):
    loop = lab.runs / "faces-01234567" / "loop"
    loop.symlink_to(lab.runs, target_is_directory=True)
    try:
        told, good = lab.look(untouched=False)
        assert good["experiment"] == "baseline"
        assert len(told) < 10
    finally:
        loop.unlink()


@pytest.mark.parametrize(
    "seconds",
    [
        {"input": math.inf, "compute": -math.inf},
        {"input": 1e308, "compute": 1e308},
        {"input": math.nan},
        {"input": -1.0},
    ],
)
def test_spent_seconds_that_have_no_sum_make_the_status_unknown(lab, seconds):
    with lab.with_file("status.json", _status(lab, seconds=seconds)):
        told, _ = lab.look()
    assert any("status.json: can't be read" in line for line in told)


SCORES_THAT_ARE_NONE = {
    "more faces than images": {"face_found": "3000"},
    "faces in no images": {"face_n": "0", "face_found": "0"},
    "endless faces": {"face_n": "inf", "face_found": "inf"},
    "an endless distance": {"fid": "inf"},
    "a distance as large as numbers go": {"fid": "1.7e308", "kid_mean": "-1.7e308"},
    "no distance": {"fid": None},
    "no count of real images and no floor": {"n_real": None, "fid_floor": None},
}


@pytest.mark.parametrize("changed", SCORES_THAT_ARE_NONE.values(), ids=SCORES_THAT_ARE_NONE)
def test_a_score_that_is_none_stops_no_other_run(lab, changed):
    lines = []
    for line in lab.valid["scores.csv"].decode().splitlines():
        cells = line.split(",")
        value = changed.get(cells[2].rpartition("_200_")[0], cells[3])
        lines += [] if value is None else [",".join([*cells[:3], value, *cells[4:]])]
    with lab.with_file("scores.csv", "\n".join([*lines, ""]).encode()):
        lab.look()
        ((run,), _) = read_folders(lab.broken.path)
        _, found = lab.scorer.found(run)
    assert all(abs(value) < 1e9 for value in found.final.values())


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "TIFF", "PDF"])
def test_a_grid_that_is_another_kind_of_file_is_not_opened(lab, kind):
    """Pillow would run Ghostscript on an EPS."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, format=kind)
    with lab.with_file("sample", content.getvalue()):
        lab.look()
        assert grids._encode(lab.files["sample"], STEPS, 60) is None


# ---- names that would lead elsewhere


@pytest.mark.parametrize("name", ["../../../../out", "/tmp/out", "..", "a/b", "\x00", "", "x" * 300, "\x1b[2J", "a\nb"])
@pytest.mark.parametrize("key", ["data", "profile", "name", "fingerprint"])
def test_a_name_that_leads_out_of_the_report_is_refused_and_named(lab, key, name):
    record = yaml.safe_load(lab.valid["config.yaml"])
    if key == "data":
        record["data"] = {**DATA, "name": name}
    elif key == "fingerprint":
        record["data"] = {**DATA, "fingerprint": name}
    else:
        record[key] = name
    with lab.with_file("config.yaml", yaml_bytes(record)):
        told, _ = lab.look()
        found, _ = read_folders(lab.runs)
    if key == "fingerprint" and name in ("x" * 300, ".."):  # 'faces-xxxxxxxx', 'faces-..': they lead nowhere else
        return
    assert [run.folder.path for run in found] == [lab.good.path]
    assert any("config.yaml" in line for line in told)


def test_a_folder_whose_name_steers_terminals_is_told_without_steering_one(tmp_path):
    folder = make_run(tmp_path / "\x1b[2J\u2028runs", "baseline", steps=STEPS)
    folder.status.write_text("{")
    _, (line,) = read_folders(folder.path)
    assert line.isprintable()
    assert "\\x1b[2J" in line


# ---- the whole command, tens of times


def _command(lab, *words, seconds):
    """Exit code and both outputs of a command, which may only write where it should."""
    out, err = io.StringIO(), io.StringIO()
    with patience(seconds), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*map(str, words)])
        except SystemExit as stopped:
            code = stopped.code
    assert code in (0, 2)
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue(), err.getvalue()


def _compared(lab):
    shutil.rmtree(lab.out, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("analysis.measures.features.choose", lambda *_, **__: STUB)
        patched.setenv("WANDB_MODE", "disabled")
        words = ["compare", "--runs", lab.runs, "--out", lab.out, "--no-open", "--device", "cpu"]
        code, out, err = _command(lab, *words, "--cache", lab.place / "cache", seconds=PAGE_PATIENCE_S)
    assert code == 0, "the good run is compared whatever the other is"
    page = lab.out / "faces-01234567" / "smoke" / "index.html"
    assert str(page) in out
    assert "baseline,0," in page.with_name("compare.csv").read_text()
    assert lab._around() == lab.there
    return err


@pytest.mark.slow
def test_the_whole_command_holds_whatever_a_run_folder_has_in_it(lab):
    cases = [
        *[st.tuples(st.just(name), broken_tables(lab.valid[name])) for name in ("history.csv", "scores.csv")],
        st.tuples(
            st.just("status.json"), records(json.loads(lab.valid["status.json"])).map(json.dumps).map(str.encode)
        ),
        st.tuples(st.just("config.yaml"), records(yaml.safe_load(lab.valid["config.yaml"])).map(yaml_bytes)),
    ]

    @settings(max_examples=DRAWN, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(st.one_of(cases))
    def holds(case):
        with lab.with_file(*case):
            _compared(lab)

    holds()


def _status(lab, **changed):
    return json.dumps({**json.loads(lab.valid["status.json"]), **changed}).encode()


@pytest.mark.parametrize(
    "url",
    [7, None, [], "", "x", "javascript:alert(1)", "file:///etc/passwd", "--help", "https://\x1b[2J/runs/1", "a" * 9999],
)
def test_the_dashboard_opens_no_address_that_is_none(lab, url, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("WANDB_MODE", "online")
    with lab.with_file("status.json", _status(lab, wandb_url=url)):
        code, out, err = _command(lab, "dashboard", "--runs", lab.runs, "--out", lab.out, seconds=PATIENCE_S)
    assert opened == []
    assert code == 2
    assert err.count("\n") == 1
    assert all(line.isprintable() for line in out.splitlines())


def test_the_dashboard_opens_the_page_that_a_run_tells_of(lab, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("WANDB_MODE", "online")
    with lab.with_file("status.json", _status(lab, wandb_url="https://wandb.ai/me/faces/runs/abc")):
        code, _, _ = _command(lab, "dashboard", "--runs", lab.runs, "--out", lab.out, seconds=PATIENCE_S)
    assert (code, opened) == (0, ["https://wandb.ai/me/faces"])


@settings(max_examples=READ)
@given(records({"state": "finished", "step": STEPS, "wandb_url": None, "seconds": {"input": 1.0}}))
def test_the_dashboard_holds_whatever_a_status_says(lab, record):
    with pytest.MonkeyPatch.context() as patched, lab.with_file("status.json", json.dumps(record).encode()):
        patched.setattr("webbrowser.open", lambda url: None)
        patched.setenv("WANDB_MODE", "online")
        _command(lab, "dashboard", "--runs", lab.runs, "--out", lab.out, seconds=PATIENCE_S)
