"""What a run tells while it trains: history, sample grids, status, Weights & Biases, the progress bar, warnings."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dcgan import sample
from dcgan.adversarial import MEASURES
from dcgan.config import Experiment
from dcgan.networks import Generator
from dcgan.record import trouble, weights
from dcgan.record.folder import RunFolder, State
from dcgan.record.losses_png import draw_losses
from dcgan.record.wandb_log import Tracker
from dcgan.tools.files import replacing

log = logging.getLogger(__name__)

PREVIEW_SEEDS = range(64)
LIVE_WINDOW = 100  # steps


class Stopwatch:
    """Seconds by what they were spent on, over all the sessions of a run.

    What comes before the loop and after it (packing, recording the step, W&B's last upload, the figure, the floor) is
    not among them.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("input", "compute", "samples", "logging"), 0.0)

    @contextmanager
    def __call__(self, part: str):
        """The time within goes to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def move(self, seconds: float, part: str, to: str) -> None:
        """So much of a part, or all of it, was spent on another."""
        seconds = min(seconds, self.seconds[part])
        self.seconds[part] -= seconds
        self.seconds[to] += seconds


def speed(seconds: Mapping[str, float], *, steps: int, batch_size: int) -> dict[str, float | None]:
    """How fast so many steps went, from the `Stopwatch`'s seconds: of all time, and of what it was spent on.

    images_per_s counts all parts, step_ms the computing alone (milliseconds), and data_wait_fraction is the share of
    the input. None for what no time or no step tells.
    """
    spent = sum(seconds.values())
    return {
        "images_per_s": round(steps * batch_size / spent, 1) if spent else None,
        "step_ms": round(1000 * seconds["compute"] / steps, 3) if steps else None,
        "data_wait_fraction": round(seconds["input"] / spent, 5) if spent else None,
    }


class Chronicle:
    """Keeps the run folder and the tracker up to date with what the trainer hands over now and then.

    Entered while the run trains; an error leaves its mark on the run before it goes on its way.

    start: the step that the run goes on from; what the history has after it is dropped.
    interleaving: (loss_d, loss_g, window=) -> a number for each LIVE_WINDOW steps, charted in W&B.
    d_has_won: loss_d of all steps so far -> whether it has stayed at 0 for long, which is warned of once.

    Raises UserError for a history that can't be gone on with.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        record: Mapping[str, Any],
        *,
        start: int,
        steps_per_epoch: int,
        clock: Stopwatch,
        interleaving: Callable[..., float] | None = None,
        d_has_won: Callable[[np.ndarray], bool] | None = None,
    ) -> None:
        self._experiment, self._folder, self._clock = experiment, folder, clock
        self._steps_per_epoch, self._step, self._taken = steps_per_epoch, start, start
        self._told_at = dict(clock.seconds)
        history = folder.truncate_history(start)
        self._loss_d = np.full(experiment.total_steps, np.nan, np.float32)
        self._loss_d[:start] = [row["loss_d"] for row in history]
        self._d_has_won = d_has_won
        if d_has_won is not None and d_has_won(self._loss_d[:start]):
            self._d_has_won = None  # an earlier start has said so
        self._live = LiveInterleaving(interleaving)
        self._tracker = Tracker(
            folder.path,
            run_id=record["wandb_id"],
            name=f"{experiment.slug}-{experiment.seed}",
            group=experiment.name,
            config=record,
            history=self._live(self._with_samples(history)),
        )
        self._facts: dict[str, Any] = {}
        self._write_status("running")

    def __enter__(self) -> "Chronicle":
        self._entered = ExitStack()
        self._entered.enter_context(logging_redirect_tqdm())
        self._bar = tqdm(
            total=self._experiment.total_steps,
            initial=self._step,
            unit="step",
            desc=self._experiment.slug,
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._entered.enter_context(self._bar)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._entered.close()
        if isinstance(error, Exception):
            self._tracker.finish(state="failed")
            facts = {key: value for key, value in self._folder.read_status().items() if key != "state"}
            self._folder.write_status("failed", **facts | {"wandb_url": self._tracker.url, "error": repr(error)})

    def snapshot(self, generator: Generator, step: int) -> None:
        """Keep the generator's weights and a grid of its images, always from the same latents."""
        with self._clock("samples"):
            weights.save(self._folder.snapshot(step), generator)
            with replacing(self._folder.sample(step)) as aside:
                sample.grid(sample.images(generator, PREVIEW_SEEDS)).save(aside, format="PNG")

    def tell(self, measures: np.ndarray, *, taken: int, state: State) -> None:
        """The `MEASURES` (n, 6) of the next n steps, and how the run stands after them.

        taken: how many steps the time went into; when a run diverges, some more than count.
        """
        experiment = self._experiment
        with self._clock("logging"):
            first, self._step = self._step + 1, self._step + len(measures)
            rows = [
                dict(zip(("step", *MEASURES), (step, *row), strict=True))
                for step, row in enumerate(measures.tolist(), first)
            ]
            now = dict(self._clock.seconds)
            since = {part: seconds - self._told_at[part] for part, seconds in now.items()}
            rows[-1] |= speed(since, steps=taken, batch_size=experiment.batch_size)
            self._taken, self._told_at = self._taken + taken, now
            self._folder.append_history(first, measures)
            self._tracker.log(self._live(self._with_samples(rows)))
            self._show(rows[-1])
            self._loss_d[first - 1 : self._step] = measures[:, 0]
            if self._d_has_won is not None and self._d_has_won(self._loss_d[: self._step]):
                self._d_has_won = None
                log.warning(trouble.remedy_for_d_that_has_won(self._step, experiment))
            if state == "diverged":
                good = trouble.last_good_snapshot(self._folder, experiment.snapshot_steps, before=self._step)
                self._facts["last_good_snapshot"] = good
            self._write_status(state)

    def end(self, state: State, **facts: Any) -> None:
        """The run is over, or interrupted: the figure, the end of the tracker's run, the last status."""
        self._bar.close()
        self._facts |= facts
        if state != "interrupted":  # who asked to stop does not wait for a figure
            draw_losses(self._folder.read_history(), self._folder.losses, title=self._experiment.slug)
        generator = self._folder.generator if state == "finished" else None
        self._tracker.finish(state=state, generator=generator, summary=self._told())
        self._write_status(state)

    @property
    def speed(self) -> dict[str, float | None]:
        """Of the whole run so far, see `speed`."""
        return speed(self._clock.seconds, steps=self._taken, batch_size=self._experiment.batch_size)

    def _told(self) -> dict[str, Any]:
        """The facts of the status: how fast the whole run was, where the time went, and what came up."""
        return {
            "steps": self._experiment.total_steps,
            "wandb_url": self._tracker.url,  # which comes when W&B has answered
            **self.speed,
            "seconds": {part: round(each, 2) for part, each in self._clock.seconds.items()},
            **self._facts,
        }

    def _write_status(self, state: State) -> None:
        self._folder.write_status(state, step=self._step, **self._told())

    def _with_samples(self, rows: list[dict]) -> list[dict]:
        """The rows of history, each step that has a sample grid with the grid's path."""
        snapshot_steps = set(self._experiment.snapshot_steps)
        for row in rows:
            if row["step"] in snapshot_steps and (grid := self._folder.sample(row["step"])).exists():
                row["samples"] = grid
        return rows

    def _show(self, row: Mapping[str, float]) -> None:
        """Bring the progress bar up to `row`."""
        self._bar.set_postfix_str(
            f"epoch {row['step'] / self._steps_per_epoch:.1f}, loss_d {row['loss_d']:.3f}, "
            f"loss_g {row['loss_g']:.3f}, {row['images_per_s']:.0f} images/s",
            refresh=False,
        )
        self._bar.update(row["step"] - self._bar.n)


class LiveInterleaving:
    """Rows of history -> the same rows, the last one of each window with the window's `interleaving_ratio`."""

    def __init__(self, ratio: Callable[..., float] | None):
        self._ratio = ratio
        self._losses: list[tuple[float, float]] = []  # of the window that is not full yet

    def __call__(self, rows: Iterable[dict]) -> Iterator[dict]:
        for row in rows:
            if self._ratio is not None:
                self._losses.append((row["loss_d"], row["loss_g"]))
                if row["step"] % LIVE_WINDOW == 0:
                    value = self._ratio(*np.array(self._losses).T, window=LIVE_WINDOW)
                    self._losses.clear()
                    if np.isfinite(value):
                        row["interleaving_ratio"] = value
            yield row
