"""A report that is completed while scores come: its page is there at once, says so, and ends as any other."""

import re
from html import unescape

import pandas as pd
import pytest
from support.lab import NO_FIGURES
from support.made_runs import STUB, make_run, write_scores

from analysis.pages import live_report, report
from analysis.pages.live_report import LiveReport
from analysis.runs.folders import read_folders
from analysis.score import Job, Protocol, read


class Slow:
    """A scorer whose scores are there one run at a time."""

    extractor = STUB

    def __init__(self):
        self.seen = []

    def scores_of(self, run):
        protocol = Protocol.of(run, self.extractor, None)
        return protocol, read(run, protocol)

    def missing(self, runs):
        return [
            Job(run, self.scores_of(run)[0], run.folder.generator, run.steps, "0" * 32)
            for run in runs
            if not self.scores_of(run)[1].final
        ]

    def score(self, jobs, *, each):
        for job in jobs:
            write_scores(job.run.folder, seed=job.run.seed)
            each()
            self.seen.append(_page(self.page))
        return []


def _page(path):
    return unescape(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw_figures", lambda comparison, folder: NO_FIGURES)
    for seed in range(3):
        make_run(tmp_path / "runs", "baseline", seed, profile="laptop")
    return read_folders(tmp_path / "runs")[0]


def test_the_page_is_there_before_the_scores_and_ends_as_one_written_after_them(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(live_report, "REWRITE_SECONDS", 0)
    monkeypatch.setattr(live_report, "REST", 0)
    scorer = Slow()
    live = LiveReport(runs, tmp_path / "live", scorer.scores_of, scorer=scorer)
    scorer.page = live.page
    live.write()
    text = _page(live.page)
    assert "Scores are being computed: 0 of 3 generators are scored." in " ".join(text.split())
    assert 'http-equiv="refresh"' in live.page.read_text(encoding="utf-8")
    assert "its scores are being computed: baseline seeds 0, 1, 2" in text
    assert pd.read_csv(live.page.with_name("compare.csv"))["fid"].isna().all()

    live.complete()
    assert ["1 of 3 generators" in scorer.seen[0], "2 of 3 generators" in scorer.seen[1]] == [True, True]
    assert pd.read_csv(live.page.with_name("compare.csv"))["fid"].notna().all()
    after = LiveReport(runs, tmp_path / "after", scorer.scores_of, scorer=scorer)
    assert not after.jobs
    after.complete()
    for name in ("index.html", "compare.csv", "compare.md"):
        assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()
    assert "being computed" not in _page(after.page)
    assert 'http-equiv="refresh"' not in after.page.read_text(encoding="utf-8")


def test_the_page_is_not_drawn_again_for_every_generator(tmp_path, runs, monkeypatch):
    written = []
    monkeypatch.setattr(report, "write", lambda *_, **__: written.append(True))
    scorer = Slow()
    live = LiveReport(runs, tmp_path / "live", scorer.scores_of, scorer=scorer)
    scorer.page = tmp_path / "nothing.html"
    scorer.page.write_text("")
    live.write()
    live.complete()
    assert len(written) == 2, "before and after"
