"""The record of a run while it trains: history, sample grids, checkpoints, status, W&B, the progress bar, warnings."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from analysis.measures.interleaving import interleaving_ratio, winner
from dcgan import UserError, first_line, sample
from dcgan.config import Experiment
from dcgan.networks import Generator
from dcgan.players import Players
from dcgan.record import checkpoint, weights
from dcgan.record.folder import HISTORY, RunFolder, State
from dcgan.record.losses_png import draw_losses
from dcgan.record.wandb_client import identity
from dcgan.record.wandb_log import Tracker
from dcgan.tools.clock import Stopwatch, speed
from dcgan.tools.files import replacing, sync

log = logging.getLogger(__name__)

PREVIEW_SEEDS = range(64)
LIVE_WINDOW = 100  # steps
_BOTH_LOSSES = [HISTORY.index(loss) - 1 for loss in ("loss_d", "loss_g")]  # columns of the measures
CHECKPOINT_SECONDS = 60.0  # a kill loses about this much work, plus the time to write a checkpoint


class Recorder:
    """Keeps the run folder and W&B up to date with what the trainer hands over now and then.

    Entered while the run trains. An error is recorded as the run's state before it is re-raised. Checkpoints and
    snapshots are copied, and a thread brings them to the host and writes them while training continues; an error of
    that thread is raised by the next call.

    record: the content of `config.yaml`, also W&B's config.
    start: the step that the run resumes from; later rows of the history are dropped.

    Raises UserError for a history that can't be resumed.
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
    ) -> None:
        self._experiment, self._folder, self._clock = experiment, folder, clock
        self._steps_per_epoch, self._step, self._steps_timed = steps_per_epoch, start, start
        self._seconds_before = dict(clock.seconds)
        self._saved_at = time.perf_counter()
        history = folder.truncate_history(start)
        self._losses = np.array([[row[loss] for row in history] for loss in ("loss_d", "loss_g")], np.float32)
        self._warned = winner(*self._losses) is not None  # by an earlier session
        self._snapshot_steps = set(experiment.snapshot_steps)
        self._window: list[tuple[float, float]] = []  # losses of the window that is not full yet
        self._tracker = Tracker(folder.path, identity=identity(experiment, record), history=self._for_wandb(history))
        self._name = f"{experiment.slug} seed {experiment.seed}"
        self._facts: dict[str, Any] = {}
        self._write_status("running")

    def __enter__(self) -> "Recorder":
        self._entered = ExitStack()
        self._entered.enter_context(logging_redirect_tqdm())
        self._background = self._entered.enter_context(Background())
        self._bar = _Bar(
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
            self._tracker.alert(f"{self._name} failed", f"After step {self._step:,}: {first_line(error)}")
            self._tracker.finish(state="failed")
            failure = {"state": "failed", "wandb_url": self._tracker.url, "error": repr(error)}
            self._folder.write_status(**{**self._folder.read_status(), **failure})

    def snapshot(self, generator: Generator, step: int) -> None:
        """Keep the generator's weights and a grid of its images, always from the same latents."""
        with self._clock("samples"):
            with replacing(self._folder.sample(step)) as aside:
                sample.grid(sample.images(generator, PREVIEW_SEEDS)).save(aside, format="PNG")
            fetch = weights.copied(generator.state_dict())
            self._background.start(lambda: weights.write_state(self._folder.snapshot(step), fetch()))

    def write(self, measures: np.ndarray, *, taken: int, state: State) -> None:
        """Write down the `MEASURES` (n, 6) of the next n steps, and the run's state after them.

        taken: the number of steps taken in that time; a run that diverges takes a few more than it keeps.
        """
        with self._clock("logging"):
            first, self._step = self._step + 1, self._step + len(measures)
            rows = [dict(zip(HISTORY, (step, *row), strict=True)) for step, row in enumerate(measures.tolist(), first)]
            seconds = {part: total - self._seconds_before[part] for part, total in self._clock.seconds.items()}
            rows[-1] |= speed(seconds, steps=taken, batch_size=self._experiment.batch_size)
            self._steps_timed, self._seconds_before = self._steps_timed + taken, dict(self._clock.seconds)
            self._folder.append_history(first, measures)
            self._tracker.log(self._for_wandb(rows))
            self._show(rows[-1])
            self._losses = np.concatenate([self._losses, measures[:, _BOTH_LOSSES].T], axis=1)
            self._warn_once_of_a_winner()
            if state == "diverged":
                self._tracker.alert(f"{self._name} diverged", f"A loss is no longer finite at step {self._step:,}.")
                self._background.wait()  # or a snapshot may be missing
                good_step = last_good_snapshot(self._folder, self._snapshot_steps, before=self._step)
                self._facts["last_good_snapshot"] = good_step
            self._write_status(state)

    def checkpoint(self, players: Players, step: int, *, now: bool) -> None:
        """Save the whole state of the run, now or if the last time was CHECKPOINT_SECONDS ago."""
        self._background.check()
        if not now and time.perf_counter() - self._saved_at < CHECKPOINT_SECONDS:
            return
        with self._clock("logging"):
            self._background.wait()  # so that no two checkpoints are in memory
            fetch = weights.copied({name: part.state_dict() for name, part in vars(players).items()})
            self._background.start(self._write_checkpoint, fetch, step, dict(self._clock.seconds))
        self._saved_at = time.perf_counter()

    def _write_checkpoint(
        self, fetch: Callable[[], Mapping[str, Any]], step: int, seconds: Mapping[str, float]
    ) -> None:
        sync(self._folder.history)  # a checkpoint must not outlive the rows that it covers
        checkpoint.write(self._folder.checkpoints, fetch(), step=step, seconds=seconds)

    def end(self, state: State, generator: Generator, *, floor: Callable[..., dict[str, float]]) -> None:
        """End the run's session: the final weights, the figure, W&B's run and the last status, in this order.

        floor: images_per_s= -> facts about the least time that the run could have taken, asked for a finished run.
        """
        self._bar.close()
        with self._clock("logging"):
            self._background.wait()
        weights_path = None
        if state == "finished":
            weights_path = self._folder.generator
            weights.save(weights_path, generator)
            self._facts |= floor(images_per_s=self._speed()["images_per_s"])
        if state != "interrupted":  # whoever asked to stop should not wait for a figure
            title = f"{self._experiment.slug}, seed {self._experiment.seed}"
            draw_losses(self._folder.read_history(), self._folder.losses, title=title)
        self._tracker.finish(state=state, generator=weights_path, summary=self._status())
        self._write_status(state)

    def _speed(self) -> dict[str, float | None]:
        """Return the speed of the whole run so far."""
        return speed(self._clock.seconds, steps=self._steps_timed, batch_size=self._experiment.batch_size)

    def _status(self) -> dict[str, Any]:
        """Return the facts of the status: how fast the whole run was, where the time went, and what came up."""
        return {
            "steps": self._experiment.total_steps,
            "wandb_url": self._tracker.url,  # known once W&B has answered
            **self._speed(),
            "seconds": {part: round(seconds, 2) for part, seconds in self._clock.seconds.items()},
            **self._facts,
        }

    def _write_status(self, state: State) -> None:
        self._folder.write_status(state, step=self._step, **self._status())

    def _for_wandb(self, rows: Iterable[dict]) -> Iterator[dict]:
        """Add to rows the grid of a snapshot's step, and to the last of each LIVE_WINDOW its `interleaving_ratio`."""
        for row in rows:
            if row["step"] in self._snapshot_steps and (grid := self._folder.sample(row["step"])).exists():
                row["samples"] = grid
            self._window.append((row["loss_d"], row["loss_g"]))
            if row["step"] % LIVE_WINDOW == 0:
                with suppress(ValueError):  # losses below 0 have no ratio: somebody tries another loss
                    ratio = interleaving_ratio(*np.array(self._window).T, window=LIVE_WINDOW)
                    if np.isfinite(ratio):
                        row["interleaving_ratio"] = ratio
                self._window.clear()
            yield row

    def _show(self, row: Mapping[str, float]) -> None:
        """Move the progress bar to `row`."""
        self._bar.set_postfix_str(
            f"epoch {row['step'] / self._steps_per_epoch:.1f}, loss_d {row['loss_d']:.3f}, "
            f"loss_g {row['loss_g']:.3f}, {row['images_per_s']:.0f} images/s",
            refresh=False,
        )
        self._bar.update(row["step"] - self._bar.n)

    def _warn_once_of_a_winner(self) -> None:
        if self._warned or not (who := winner(*self._losses)):
            return
        self._warned = True
        network, effect = {
            "D": ("discriminator", "G has little to learn from"),
            "G": ("generator", "D takes nearly all generated images for real"),
        }[who]
        rate = getattr(self._experiment, network).learning_rate / 2
        warning = (
            f"{who} has won for good, as of step {self._step:,}: its loss has stayed near 0 for a long time, "
            f"and {effect}; "
            f'try a slower {who}, SET="{network}.learning_rate={rate:g}"'
        )
        log.warning("%s", warning)
        self._tracker.alert(f"{who} has won in {self._name}", warning)


class _Bar(tqdm):
    """A bar that falls silent once nobody reads it: Ctrl-C also ends the `tee` of `make run 2>&1 | tee log`."""

    def display(self, *arguments: Any, **options: Any) -> None:
        with suppress(OSError):
            super().display(*arguments, **options)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class Silent:
    """The recorder of a process that is not the run's first: only the first one writes."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _nothing(self, *_: Any, **__: Any) -> None:
        pass

    snapshot = write = checkpoint = end = _nothing


class Background:
    """Runs one task at a time in a thread, in the order they are started. Leaving the context waits for the last one.

    A task's error is raised by the next call.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._task: Future[None] | None = None

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        except Exception as error:  # another error has ended the run, or `wait` had been called
            log.warning("%s", first_line(error))
        finally:
            self._pool.shutdown()

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Start a task once the one before has ended."""
        self.wait()
        self._task = self._pool.submit(work, *arguments)

    def wait(self) -> None:
        """Wait for the task that was started last."""
        task, self._task = self._task, None
        if task is not None:
            task.result()

    def check(self) -> None:
        """Raise the task's error if it has ended with one; don't wait for it."""
        if self._task is not None and self._task.done():
            self.wait()


def last_good_snapshot(folder: RunFolder, steps: Iterable[int], *, before: int) -> int | None:
    """Return the last of these steps whose snapshot has only finite weights.

    The loss shows one step later what happened to G's weights.
    """
    for step in sorted((step for step in steps if step < before), reverse=True):
        with suppress(UserError):  # missing or damaged
            if all(value.isfinite().all() for value in weights.load(folder.snapshot(step)).values()):
                return step
    return None
