"""Two scored and rated runs, one of them to break: whatever is in its files, the other is compared as before."""

import contextlib
import io
import json
import resource
import shutil
from pathlib import Path

import pytest
from PIL import Image

from analysis.__main__ import main
from analysis.compare.build import compare, groups
from analysis.compare.comparison import Note
from analysis.pages import report, tables
from analysis.pages.figures import SECTIONS
from analysis.runs.folders import read_folders
from analysis.runs.ratings import Answers, Sheet
from analysis.score import Scorer
from dcgan import UserError
from support.made_runs import STUB, make_run, write_scores
from support.waiting import patience

NO_FIGURES = dict.fromkeys(SECTIONS, ())  # drawing them takes most of a page's time
STEPS = 200
PATIENCE_S = 20  # for one case; the slowest takes a fraction of a second without figures
PAGE_PATIENCE_S = 120
COMPARED = ("fid", "interleaving_ratio", "status", "precision")


@contextlib.contextmanager
def room(more):
    """Limit the process to so many bytes more than it has now: what fills the memory fails and takes nobody along."""
    statm = Path("/proc/self/statm")
    if not statm.exists():  # not Linux
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Lab:
    """Two scored and rated runs: a good one, and one whose files are replaced."""

    def __init__(self, place):
        self.place, self.runs, self.out, self.cache = place, place / "runs", place / "reports", place / "cache"
        self.good = make_run(self.runs, "baseline", 0, steps=STEPS)
        self.broken = make_run(self.runs, "tuned_lr", 1, steps=STEPS)
        for folder in (self.good, self.broken):
            write_scores(folder, seed=3)
            _rate(folder.path)
            folder.sample(STEPS).parent.mkdir()
            Image.new("RGB", (16, 16), "red").save(folder.sample(STEPS))
        self.files = {
            "config.yaml": self.broken.config,
            "history.csv": self.broken.history,
            "status.json": self.broken.status,
            "scores.csv": self.broken.path / "scores.csv",
            "rating": self.broken.path / "ratings" / "answers-1.json",
            "sheet": self.broken.path / "ratings" / "page.json",
            "generator.params": self.broken.generator,
            "snapshot": self.broken.snapshot(STEPS // 2),
            "sample": self.broken.sample(STEPS),
            ".lock": self.broken.lock,
        }
        self.valid = {name: path.read_bytes() for name, path in self.files.items() if path.exists()}
        self.scorer = Scorer(STUB, cache=self.cache)
        self.before = self._beside()
        self.expected = None
        self.expected = self.look()[1]

    def _beside(self):
        """List what lies beside the folders that may be written to."""
        written = (self.out, self.cache)
        return sorted(
            str(path) for path in self.place.rglob("*") if not any(path.is_relative_to(folder) for folder in written)
        )

    @contextlib.contextmanager
    def with_file(self, name, content):
        """Replace a file of the broken run by other bytes, or by what `content` makes of its path."""
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

    def status(self, **changed):
        """The broken run's status.json with other values in it."""
        return json.dumps({**json.loads(self.valid["status.json"]), **changed}).encode()

    def look(self, *, untouched=True):
        """Read and compare everything but draw no figures; return all notes and the good run's row."""
        with patience(PATIENCE_S):
            found, problems = read_folders(self.runs)
            notes, good = list(problems), None
            for run in found:
                run.snapshots()
                with contextlib.suppress(UserError):
                    assert run.history()["step"].tolist() == list(range(1, run.steps + 1))
            for (data, profile), members in groups(found).items():
                assert (self.out / data / profile).resolve().parent.parent == self.out.resolve()
                before = [*map(Note, problems), *self.scorer.score(self.scorer.missing(members))]
                comparison = compare(members, self.scorer.scores_of, notes=before)
                page = report.html(comparison, NO_FIGURES)
                for text in (page, tables.csv(comparison.table), tables.markdown(comparison)):
                    text.encode()
                notes += map(str, [*comparison.notes, *comparison.alarms])
                rows = comparison.table[comparison.table["experiment"] == "baseline"]
                for row in rows[rows["seed"] == 0].to_dict("records"):
                    good = row
        read = any(run.folder.path == self.broken.path for run in found)
        assert read or any(str(self.broken.path) in line for line in problems)
        assert [line for line in notes if not line.isprintable()] == []
        if untouched:
            assert self._beside() == self.before
        if self.expected:
            assert {key: good[key] for key in COMPARED} == {key: self.expected[key] for key in COMPARED}
        return notes, good

    def command(self, *words, seconds=PATIENCE_S):
        """Exit code and both outputs of a command on these runs, which never ends in a traceback."""
        out, err = io.StringIO(), io.StringIO()
        words = [*words, "--runs", self.runs, "--out", self.out]
        with patience(seconds), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([*map(str, words)])
            except SystemExit as stopped:
                code = stopped.code
        assert code in (0, 2)
        assert "Traceback" not in err.getvalue()
        return code, out.getvalue(), err.getvalue()

    def compare(self):
        """Run the whole command; it may write only where it should."""
        shutil.rmtree(self.out, ignore_errors=True)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("analysis.measures.features.choose", lambda *_, **__: STUB)
            patched.setenv("WANDB_MODE", "disabled")
            words = ("compare", "--no-open", "--device", "cpu", "--cache", self.cache)
            code, out, _ = self.command(*words, seconds=PAGE_PATIENCE_S)
        assert code == 0, "the good run is compared whatever the other is"
        page = self.out / "faces-01234567" / "smoke" / "index.html"
        assert str(page) in out
        assert "baseline,0," in page.with_name("compare.csv").read_text()
        assert self._beside() == self.before


def _rate(run_folder):
    places = {"generated_indices": (0, 1, 2), "real_indices": (0, 1), "damaged_indices": (2,)}
    sheet = Sheet(seed=1, generator="0" * 32, **places, title="a run")
    answers = Answers(page=sheet.page, answers="yynynn", rater="me", time="2026-01-01T00:00:00Z")
    ratings = run_folder / "ratings"
    ratings.mkdir()
    (ratings / "page.json").write_text(sheet.model_dump_json())
    (ratings / "answers-1.json").write_text(answers.model_dump_json())
