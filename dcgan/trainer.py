"""The loop, the one place where all parts meet: batches -> adversarial step -> run folder and tracker."""

import hashlib
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dcgan import checkpoint, floor, sample, trouble
from dcgan.adversarial import MEASURES, Players, adversarial_step
from dcgan.atomic import replacing, sync
from dcgan.captured import CapturedStep
from dcgan.config import Experiment
from dcgan.data import Batches
from dcgan.lossplot import draw_losses
from dcgan.networks import Discriminator, Generator, normal_init_
from dcgan.optimizer import Adam
from dcgan.runlog import RunFolder, State
from dcgan.tracking import Tracker

log = logging.getLogger(__name__)

RING = 500  # steps whose measures wait on the device at most; reading them is the loop's one host sync
FLUSH_SECONDS = 1.0  # and they are read about this often, for the progress bar
CHECKPOINT_SECONDS = 60.0  # a kill loses at most this much work
PREVIEW_SEEDS = range(64)
LIVE_WINDOW = 100  # steps


def stream(seed: int, owner: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """The random generator that `owner` uses at `step`.

    A function of its arguments alone: going on from step n needs no stored generator state.
    """
    digest = hashlib.blake2b(f"{seed} {owner} {step}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def build(experiment: Experiment, device: torch.device) -> Players:
    """Both networks and optimisers as the experiment starts them.

    Weights are drawn on the CPU: equal on every device.
    """
    init = experiment.weight_init
    with torch.random.fork_rng(devices=[]):  # PyTorch's own initialisation knows only the global generator
        torch.manual_seed(stream(experiment.seed, "init").initial_seed())
        generator = Generator(experiment.image_size, experiment.latent_dim, experiment.generator_channels)
        discriminator = Discriminator(experiment.image_size, experiment.discriminator_channels)
    if init.kind == "normal":
        rng = stream(experiment.seed, "normal init")
        for network in (generator, discriminator):
            normal_init_(network, std=init.std, batchnorm_mean=init.batchnorm_mean, rng=rng)
    generator.to(device, memory_format=torch.channels_last)
    discriminator.to(device, memory_format=torch.channels_last)

    def adam(network, wanted):
        return Adam(
            network.parameters(),
            lr=wanted.learning_rate,
            betas=experiment.adam.betas,
            weight_decay=wanted.weight_decay,
            fused=True,
            capturable=device.type == "cuda",
        )

    return Players(
        generator,
        discriminator,
        adam(generator, experiment.generator),
        adam(discriminator, experiment.discriminator),
    )


def step_taker(players: Players, *, real: Tensor, latents: Tensor, bf16: bool) -> Callable[[], Tensor]:
    """A function that takes one adversarial step on these very tensors and returns its measures."""
    if real.is_cuda:
        try:
            return CapturedStep(players, real=real, latents=latents, bf16=bf16)
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            log.warning(
                "the step can't be recorded as a CUDA graph, so it is slower (%s)", str(error).partition("\n")[0]
            )
    return partial(adversarial_step, players, real=real, latents=latents, bf16=bf16)


def train(
    experiment: Experiment,
    batches: Batches,
    folder: RunFolder,
    *,
    bf16: bool,
    record: Mapping[str, Any],
    interleaving: Callable[..., float] | None = None,
    d_has_won: Callable[[np.ndarray], bool] | None = None,
) -> State:
    """Train to the end, or from the folder's checkpoint on; return how it ended.

    record: the content of `config.yaml`, also W&B's config. Trains on the device of the batches.
    interleaving: (loss_d, loss_g, window=) -> a number for each LIVE_WINDOW steps, charted in W&B; handed in, since
        it is analysis.
    d_has_won: loss_d of all steps so far -> whether it has stayed at 0 for long, which is warned of once; likewise.
    The first SIGINT, SIGTERM or SIGHUP saves and returns "interrupted"; a second one kills.

    Raises UserError for a checkpoint or history that can't be gone on with. What else goes wrong leaves the
    status "failed" and is raised on; the checkpoint is there to go on from.
    """
    device = batches.device
    snapshot_steps, total = set(experiment.snapshot_steps), experiment.total_steps
    players = build(experiment, device)
    clock = Stopwatch()
    start = 0
    if (earlier := checkpoint.load(folder.checkpoints, vars(players))) is not None:
        start, clock.seconds = earlier
        log.info("going on after step %d", start)
        for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
            for group in optimizer.param_groups:  # what was saved on a CPU says that it need not be
                group["capturable"] = device.type == "cuda"
    elif folder.history.exists():
        log.warning("%s: no checkpoint to go on from, so it begins anew", folder.path)
    history = folder.truncate_history(start)
    loss_d = np.full(total, np.nan, np.float32)
    loss_d[:start] = [row["loss_d"] for row in history]
    warned = d_has_won is not None and d_has_won(loss_d[:start])  # by an earlier start
    live = LiveInterleaving(interleaving)
    tracker = Tracker(
        folder.path,
        run_id=record["wandb_id"],
        name=f"{experiment.slug}-{experiment.seed}",
        group=experiment.name,
        config=record,
        history=live(with_samples(history, folder, snapshot_steps)),
    )
    facts = {"steps": total, "wandb_url": None, **speed(clock, start, experiment.batch_size)}  # the URL comes later
    folder.write_status("running", step=start, **facts)

    ring = torch.empty(RING, len(MEASURES), device=device)
    real, latents = batches.empty(), torch.empty(experiment.batch_size, experiment.latent_dim, device=device)
    take_step, keep_pace = step_taker(players, real=real, latents=latents, bf16=bf16), Pace(device)
    state: State = "running"
    step, filled = start, 0
    flushed_at = saved_at = time.perf_counter()
    bar = tqdm(total=total, initial=start, unit="step", desc=experiment.slug, dynamic_ncols=True, smoothing=0.1)
    with StopRequest() as stop, recording_failure(folder, tracker), logging_redirect_tqdm(), bar:
        while state == "running" and step < total:
            step += 1
            # Resident images are gathered by the device, in the queue of its work: the host waits for nothing.
            with clock("compute" if batches.on_device else "input"):
                batches(step - 1, out=real)
            with clock("compute"):
                latents.normal_(generator=stream(experiment.seed, "latents", step, device))
                ring[filled] = take_step()
                keep_pace()
            filled += 1
            last = step == total or stop.requested
            snapshot = step in snapshot_steps
            if not (last or snapshot or filled == RING or time.perf_counter() - flushed_at > FLUSH_SECONDS):
                continue

            with clock("compute"):
                measures = ring[:filled].cpu().numpy()  # host sync: waits for all that was launched
            finite = np.isfinite(measures).all(axis=1)
            if not finite.all():
                state = "diverged"
                measures = measures[: int(finite.argmin()) + 1]  # up to the first step that is not finite
                step += len(measures) - filled
                facts["last_good_snapshot"] = trouble.last_good_snapshot(folder, snapshot_steps, before=step)
            elif snapshot:
                with clock("samples"):
                    keep_snapshot(players.generator, folder, step)
            with clock("logging"):
                now = time.perf_counter()
                rows = [
                    dict(zip(("step", *MEASURES), (n, *row), strict=True))
                    for n, row in enumerate(measures.tolist(), step - len(measures) + 1)
                ]
                rows[-1]["images_per_s"] = len(rows) * experiment.batch_size / (now - flushed_at)
                rows[-1]["data_wait_fraction"] = clock.fraction("input")
                folder.append_history(step - len(measures) + 1, measures)
                tracker.log(live(with_samples(rows, folder, snapshot_steps)))
                show(bar, rows[-1], epoch=step / batches.steps_per_epoch)
                loss_d[step - len(measures) : step] = measures[:, 0]
                if d_has_won is not None and not warned and d_has_won(loss_d[:step]):
                    warned = True
                    log.warning(trouble.remedy_for_d_that_has_won(step, experiment))
            filled, flushed_at = 0, now
            if state == "running" and (last or now - saved_at > CHECKPOINT_SECONDS):
                with clock("logging"):
                    sync(folder.history)  # a checkpoint must not outlive the rows that it covers
                    checkpoint.save(folder.checkpoints, vars(players), step=step, seconds=clock.seconds)
                saved_at = now
            facts |= {"wandb_url": tracker.url, **speed(clock, step, experiment.batch_size)}
            folder.write_status(state, step=step, **facts)
            if last and step < total and state == "running":  # not `stop.requested`, which may be newer than the save
                state = "interrupted"

    with recording_failure(folder, tracker):
        if state == "running":
            state = "finished"
            checkpoint.save_weights(folder.generator, players.generator)
            facts |= beside_floor(experiment, device, bf16=bf16, images_per_s=facts["images_per_s"])
        if state != "interrupted":  # who asked to stop does not wait for a figure
            draw_losses(folder.read_history(), folder.losses, title=experiment.slug)
        tracker.finish(state=state, generator=folder.generator if state == "finished" else None, summary=facts)
        folder.write_status(state, step=step, **facts | {"wandb_url": tracker.url})
    return state


@contextmanager
def recording_failure(folder: RunFolder, tracker: Tracker):
    """Let an error leave its mark on the run before it goes on its way."""
    try:
        yield
    except Exception as error:
        tracker.finish(state="failed")
        facts = {key: value for key, value in folder.read_status().items() if key != "state"}
        folder.write_status("failed", **facts | {"wandb_url": tracker.url, "error": repr(error)})
        raise


def keep_snapshot(generator: Generator, folder: RunFolder, step: int) -> None:
    """Keep the generator's weights and a grid of its images, always from the same latents."""
    checkpoint.save_weights(folder.snapshot(step), generator)
    with replacing(folder.sample(step)) as aside:
        sample.grid(sample.images(generator, PREVIEW_SEEDS)).save(aside, format="PNG")


def with_samples(rows: list[dict], folder: RunFolder, snapshot_steps: set[int]) -> list[dict]:
    """The rows of history, each step that has a sample grid with the grid's path."""
    for row in rows:
        if row["step"] in snapshot_steps and folder.sample(row["step"]).exists():
            row["samples"] = folder.sample(row["step"])
    return rows


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


def speed(clock: "Stopwatch", steps: int, batch_size: int) -> dict[str, Any]:
    """Images a second over the whole run, and where the time went."""
    spent = sum(clock.seconds.values())
    return {
        "images_per_s": round(steps * batch_size / spent, 1) if spent else None,
        "data_wait_fraction": round(clock.fraction("input"), 5),
        "seconds": {part: round(seconds, 2) for part, seconds in clock.seconds.items()},
    }


def beside_floor(experiment: Experiment, device: torch.device, *, bf16: bool, images_per_s: float) -> dict[str, float]:
    """What share of the time the arithmetic alone would have taken, and the two numbers that say so."""
    players = build(experiment, device)  # the run's own would train on
    work = floor.flops_per_image(players, image_size=experiment.image_size, latent_dim=experiment.latent_dim)
    rate = floor.matmul_flops_per_s(device, bf16=bf16)
    return {
        "gflop_per_image": round(work / 1e9, 4),
        "matmul_gflop_per_s": round(rate / 1e9, 1),
        "floor_share": round(images_per_s * work / rate, 4),
    }


def show(bar: tqdm, row: Mapping[str, float], *, epoch: float) -> None:
    """Bring the progress bar up to `row`."""
    bar.set_postfix_str(
        f"epoch {epoch:.1f}, loss_d {row['loss_d']:.3f}, loss_g {row['loss_g']:.3f}, "
        f"{row['images_per_s']:.0f} images/s",
        refresh=False,
    )
    bar.update(row["step"] - bar.n)


class Stopwatch:
    """Seconds by what they were spent on, over all the sessions of a run."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("input", "compute", "samples", "logging"), 0.0)

    @contextmanager
    def __call__(self, part: str):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def fraction(self, part: str) -> float:
        """Share of all time so far."""
        return self.seconds[part] / (sum(self.seconds.values()) or 1.0)


class Pace:
    """Keeps the host at most AHEAD steps before a CUDA device: a stop must not wait for hundreds that are queued."""

    AHEAD = 8

    def __init__(self, device: torch.device) -> None:
        self._marks: deque[torch.cuda.Event] | None = deque() if device.type == "cuda" else None

    def __call__(self) -> None:
        """Called after each step; the device never runs dry, since it has AHEAD steps left when the host waits."""
        if self._marks is not None:
            mark = torch.cuda.Event()
            mark.record()
            self._marks.append(mark)
            if len(self._marks) > self.AHEAD:
                self._marks.popleft().synchronize()


class StopRequest:
    """While entered, the first signal to end is a request, and the second ends the process at once."""

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopRequest":
        # What is ignored stays ignored: nohup does that to SIGHUP.
        heard = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.requested = True
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
