"""The page that shows runs while they train, in the look of the report: a whole page, and its body to renew it with."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import numpy as np

from analysis.measures import interleaving
from analysis.pages.html import template
from analysis.pages.watch import WatchedRun, bands
from analysis.pages.words import number
from dcgan import counted
from dcgan.tools.clock import duration
from dcgan.tools.loss_style import COLORS, LABELS

RENEW_SECONDS = 3
MOST_CARDS = 6  # runs shown at full size; more become rows of a table
ORDER = ("running", "starting", "interrupted", "failed", "unknown", "diverged", "finished")
#: The badge of a state: its class in report.css.
BADGES = {"finished": "better", "diverged": "worse", "failed": "worse", "interrupted": "open", "unknown": "open"}
HINTS = {
    "interrupted": "It isn't being trained now. The command that started it, without FRESH=1, resumes it.",
    "failed": "The command that started it, without FRESH=1, resumes it.",
    "diverged": "A loss is no longer a finite number.",
}
POINTS, SMALL_POINTS = 400, 60  # of a curve
STRETCHES = 60  # of the strips of crossings and ratios
WIDTH, LEFT, RIGHT = 340, 26, 334  # of a figure; its axes go from LEFT to RIGHT
LOSS_TOP, LOSS_BOTTOM, STRIP_TOP, STRIP_BOTTOM, RATIO_TOP, RATIO_BOTTOM = 18, 160, 165, 180, 202, 246  # from the top

Scale = Callable[[Any], Any]  # from values to places in a figure


class LivePage:
    """Makes the page of the runs as they stand. What has not changed since the last time is not redrawn."""

    def __init__(self) -> None:
        self._page, self._runs = template("live.html"), template("live_runs.html")
        self._drawn: dict[tuple[str, bool], dict[str, Any]] = {}

    def html(
        self,
        runs: Sequence[WatchedRun],
        problems: Sequence[str],
        *,
        folder: str,
        only: str | None = None,
        whole: bool,
    ) -> str:
        """The whole page, or only what renews it.

        folder: the runs' folder as the user calls it. only: the one run to show.
        """
        ordered = sorted(runs, key=lambda run: (ORDER.index(run.state), run.place))
        chosen = [run for run in ordered if run.key == only] if only else ordered
        large = len(chosen) <= MOST_CARDS
        return (self._page if whole else self._runs).render(
            renew_ms=1000 * RENEW_SECONDS,
            colors=COLORS,
            labels=LABELS,
            folder=folder,
            only=only,
            runs=[self._shown(run, large=large) for run in chosen],
            large=large,
            problems=problems,
            summary=summary(chosen),
            ended=bool(chosen) and all(run.state in ("finished", "diverged") for run in chosen),
        )

    def _shown(self, run: WatchedRun, *, large: bool) -> dict[str, Any]:
        """Return what the template shows of a run."""
        status = run.status
        key = quote(run.key, errors="surrogateescape")
        data, profile = run.place[:2]
        return {
            "title": run.title,
            "place": f"{data}, {profile}",
            "question": _text(run.record.get("question")),
            "overrides": _overrides(run.record.get("overrides")),
            "link": f"?run={key}",
            "state": run.state,
            "badge": BADGES.get(run.state, ""),
            "step": len(run.history),
            "steps": run.steps,
            "left": duration(run.seconds_left),
            "speed": number(status.get("images_per_s"), 0),
            "waiting": number(status.get("data_wait_fraction"), percent=True),
            "hint": f"{_text(status.get('error'))} {HINTS[run.state]}".strip() if run.state in HINTS else "",
            "fid": run.fid,
            "sample": run.sample and {"step": run.sample[0], "url": f"faces?run={key}&v={run.sample[2]}"},
            **self._figures(run, large=large),
        }

    def _figures(self, run: WatchedRun, *, large: bool) -> dict[str, Any]:
        """The figure of a run and the numbers from its losses, made again only when it has new rows."""
        losses = run.history.losses
        drawing = self._drawn.get((run.key, large))
        if drawing is None or drawing["losses"] is not losses:  # new rows make a new array
            windows = interleaving.windows(*losses)
            drawing = self._drawn[run.key, large] = {
                "losses": losses,
                "figure": figure(run, windows) if large else small_figure(losses),
                "ratio": windows.ratio,
                "crossings": len(interleaving.crossing_positions(*losses)),
                "winner": interleaving.winner(*losses),
            }
        return drawing


def summary(runs: Sequence[WatchedRun]) -> str:
    """'4 runs: 2 running, 2 finished; the last of them ends in about 12 min'."""
    counts = Counter(run.state for run in runs)
    states = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    times = [run.seconds_left for run in runs if run.seconds_left is not None]
    ending = ""
    if times:
        ending = f"; {'the last of them ends' if len(times) > 1 else 'it ends'} in about {duration(max(times))}"
    return f"{counted(len(runs), 'run')}: {states}{ending}" if runs else ""


def figure(run: WatchedRun, windows: interleaving.Windows) -> dict[str, Any] | None:
    """The loss curves, where they cross and the interleaving ratio, as shapes for the template; None without losses."""
    losses = run.history.losses
    if not np.isfinite(losses).any():
        return None
    n = losses.shape[1]
    ends, values = bands(losses, POINTS)
    top = _top(values)
    step: Scale = partial(np.interp, xp=(0, n), fp=(LEFT, RIGHT))
    loss: Scale = partial(np.interp, xp=(0, top), fp=(LOSS_BOTTOM, LOSS_TOP))
    ratio: Scale = partial(np.interp, xp=(0, 1.25), fp=(RATIO_BOTTOM, RATIO_TOP))
    return {
        "width": WIDTH,
        "left": LEFT,
        "right": RIGHT,
        "strip": (STRIP_TOP, STRIP_BOTTOM),
        "bands": {name: _band(step(ends), loss(values[i])) for i, name in enumerate(COLORS)},
        "lines": {name: _line(step(ends), loss(values[i, 1])) for i, name in enumerate(COLORS)},
        "loss_ticks": [(f"{tick:g}", _at(loss(tick))) for tick in _ticks(top, 3)],
        "step_ticks": [(f"{tick:,.0f}", _at(step(tick))) for tick in _ticks(n, 3)],
        "crossings": _crossings(losses, step),
        "ratio": _ratios(windows, step, ratio),
        "ratio_ticks": [(f"{tick:g}", _at(ratio(tick))) for tick in (0, 1)],
        "ratio_top": RATIO_TOP,
        "bottom": RATIO_BOTTOM,
        "now": [number(value) for value in losses[:, -1]],
    }


def small_figure(losses: np.ndarray) -> dict[str, Any] | None:
    """The two loss curves, for a row of a table; None without losses."""
    if not np.isfinite(losses).any():
        return None
    ends, values = bands(losses, SMALL_POINTS)
    step: Scale = partial(np.interp, xp=(0, losses.shape[1]), fp=(1, 159))
    loss: Scale = partial(np.interp, xp=(0, _top(values)), fp=(39, 2))
    return {"lines": {name: _line(step(ends), loss(values[i, 1])) for i, name in enumerate(COLORS)}}


def _top(values: np.ndarray) -> float:
    """The greatest loss to leave room for: a few extreme steps do not flatten the curves."""
    high = values[:, 2][np.isfinite(values[:, 2])]
    return 1.08 * max(0.1, float(np.nanmax(values[:, 1])), float(np.quantile(high, 0.98)))


def _crossings(losses: np.ndarray, step: Scale) -> list[tuple[str, str, str]]:
    """Left edge, width and darkness of each stretch of steps in which the curves cross."""
    n = losses.shape[1]
    edges = np.linspace(0, n, min(3 * STRETCHES, n) + 1)
    counts, _ = np.histogram(interleaving.crossing_positions(*losses) + 1, edges)
    width = (RIGHT - LEFT) / (len(edges) - 1)
    # White noise crosses at every second step: that is black, and a tenth of it is still seen.
    dark = np.clip(2 * counts / np.diff(edges), 0, 1) ** 0.5
    return [
        (_at(step(edge)), f"{width:.2f}", f"{share:.2f}") for edge, share in zip(edges, dark, strict=False) if share > 0
    ]


def _ratios(windows: interleaving.Windows, step: Scale, ratio: Scale) -> str:
    """The interleaving ratio over the steps, as a line."""
    blocks = np.array_split(np.arange(len(windows)), min(STRETCHES, len(windows)) or 1)
    parts = [windows[block] for block in blocks if len(block)]
    return _line(step([part.last_step[-1] for part in parts]), ratio([part.ratio for part in parts]))


def _line(x: np.ndarray, y: np.ndarray) -> str:
    """The points as the data of a path, broken where a value is not known."""
    parts, pen = [], "M"
    for left, top in zip(x, y, strict=True):
        if np.isfinite(top):
            parts.append(f"{pen}{left:.1f} {top:.1f}")
            pen = "L"
        else:
            pen = "M"
    # A single point is drawn as a dot, by the line's round end.
    return "".join(parts) + ("h.1" if len(parts) == 1 else "")


def _band(x: np.ndarray, values: np.ndarray) -> str:
    """The range from low to high of `values` (3, m) as the data of a closed path."""
    finite = np.isfinite(values).all(axis=0)
    low_edge, high_edge = _line(x[finite], values[0, finite]), _line(x[finite][::-1], values[2, finite][::-1])
    return f"{low_edge}L{high_edge[1:]}Z" if finite.any() else ""


def _ticks(end: float, count: int) -> list[float]:
    """Round numbers from 0 to `end`, about `count` beside the 0."""
    raw = max(end, 1e-9) / count
    size = 10 ** np.floor(np.log10(raw))
    unit = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw)
    return [unit * i for i in range(int(end / unit) + 1)]


def _at(place: Any) -> str:
    return f"{float(place):.1f}"


def _text(value: Any) -> str:
    return value[:500] if isinstance(value, str) else ""


def _overrides(value: Any) -> list[str]:
    """Return the changes made with SET=, as the user wrote them."""
    return [f"{key}={setting}" for key, setting in value.items()] if isinstance(value, dict) else []
