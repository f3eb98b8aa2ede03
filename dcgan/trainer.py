"""The loop, the one place where all parts meet: batches -> adversarial step -> run folder and tracker."""

import hashlib
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dcgan import UserError
from dcgan.adversarial import MEASURES, Players, adversarial_step
from dcgan.config import Experiment
from dcgan.data import Batches
from dcgan.device import flops
from dcgan.device.cuda_graph import CapturedStep
from dcgan.device.ranks import ALONE, Ranks
from dcgan.networks import Discriminator, Generator, normal_init_
from dcgan.players import Adam
from dcgan.record import checkpoint, weights
from dcgan.record.folder import RunFolder, State
from dcgan.record.recorder import Chronicle, Stopwatch
from dcgan.record.trouble import SharedCpu
from dcgan.tools.files import sync

log = logging.getLogger(__name__)

RING = 500  # steps whose measures wait on the device at most; reading them is the loop's one host sync
READ_SECONDS = 1.0  # and they are read about this often, for the progress bar
CHECKPOINT_SECONDS = 60.0  # a kill loses at most this much work


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
    parallel = isinstance(players.generator, DistributedDataParallel)  # which would need a stream of its own
    if real.is_cuda and not parallel:
        try:
            return CapturedStep(players, real=real, latents=latents, bf16=bf16)
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            log.warning(
                "the step can't be recorded as a CUDA graph, so it is slower (%s)", str(error).partition("\n")[0]
            )
    return partial(adversarial_step, players, real=real, latents=latents, bf16=bf16)


class Due(IntEnum):
    """What is to be done after a step; processes agree on the largest."""

    NOTHING = 0
    READING = 1  # the measures, from the device
    STOPPING = 2


def train(
    experiment: Experiment,
    batches: Batches,
    folder: RunFolder,
    *,
    bf16: bool,
    record: Mapping[str, Any],
    ranks: Ranks = ALONE,
    interleaving: Callable[..., float] | None = None,
    d_has_won: Callable[[np.ndarray], bool] | None = None,
) -> State:
    """Train to the end, or from the folder's checkpoint on; return how it ended.

    record: the content of `config.yaml`, also W&B's config. Trains on the device of the batches.
    ranks: the processes that train this run; each calls this with its share of the batches.
    interleaving, d_has_won: analysis for the `Chronicle`, handed in.
    The first SIGINT, SIGTERM or SIGHUP saves and returns "interrupted"; a second one kills.

    Raises UserError for a checkpoint or history that can't be gone on with. What else goes wrong leaves the
    status "failed" and is raised on; the checkpoint is there to go on from.
    """
    device = batches.device
    snapshot_steps, total = set(experiment.snapshot_steps), experiment.total_steps
    players, clock = build(experiment, device), Stopwatch()
    with ranks.first_goes_first():  # it removes what is damaged
        start = go_on(players, clock, folder, device)
    if ranks.most(start) != -ranks.most(-start):
        raise UserError(f"{folder.path}: not the same for all processes; put runs into a folder that they share")
    chronicle = None
    if ranks.first:
        chronicle = Chronicle(
            experiment,
            folder,
            record,
            start=start,
            steps_per_epoch=batches.steps_per_epoch,
            clock=clock,
            interleaving=interleaving,
            d_has_won=d_has_won,
        )

    # What ends a run badly is still written down while the signals are held: who started it may send one just then.
    with StopRequest() as stop, chronicle or nullcontext():
        ring = torch.empty(RING, len(MEASURES), device=device)
        real, latents = batches.empty(), torch.empty(experiment.batch_size, experiment.latent_dim, device=device)
        take_step = step_taker(
            ranks.together(players, statistics=experiment.batchnorm_over),
            real=real,
            latents=latents.chunk(ranks.count)[ranks.rank],
            bf16=bf16,
        )
        keep_pace, input_wait = Pace(device), InputWait(device, resident=batches.on_device)
        shared_cpu = SharedCpu(torch.get_num_threads() if device.type == "cpu" else 1)
        state: State = "running"
        step, filled = start, 0
        read_at = saved_at = time.perf_counter()
        while state == "running" and step < total:
            step += 1
            with clock("compute"):
                with input_wait:
                    batches(step - 1, out=real)
                latents.normal_(generator=stream(experiment.seed, "latents", step, device))
                ring[filled] = take_step()
                keep_pace()
            filled += 1
            snapshot = step in snapshot_steps
            due = Due.NOTHING
            if step == total or stop.requested:
                due = Due.STOPPING
            elif snapshot or filled == RING or time.perf_counter() - read_at > READ_SECONDS:
                due = Due.READING
            with clock("compute"):
                due = ranks.most(due)
            if due == Due.NOTHING:
                continue

            with clock("compute"):
                measures = ranks.mean(ring[:filled].cpu()).numpy()  # host sync: waits for all that was launched
                waited = ranks.most(input_wait.read())  # all wait for the slowest
            clock.move(waited, "compute", "input")
            taken = filled
            finite = np.isfinite(measures).all(axis=1)
            if not finite.all():
                state = "diverged"
                measures = measures[: int(finite.argmin()) + 1]  # up to the first step that is not finite
                step += len(measures) - filled
            if chronicle is not None:
                if snapshot and state == "running":
                    chronicle.snapshot(players.generator, step)
                chronicle.tell(measures, taken=taken, state=state)
                if (told := shared_cpu()) is not None:
                    log.warning(told)
                now = time.perf_counter()
                if state == "running" and (due == Due.STOPPING or now - saved_at > CHECKPOINT_SECONDS):
                    with clock("logging"):
                        sync(folder.history)  # a checkpoint must not outlive the rows that it covers
                        checkpoint.save(folder.checkpoints, vars(players), step=step, seconds=clock.seconds)
                    saved_at = now
            filled, read_at = 0, time.perf_counter()
            if due == Due.STOPPING and step < total and state == "running":
                state = "interrupted"

        del take_step  # and what a recorded one holds on the device
        if state == "running":
            state = "finished"
        if chronicle is not None:
            facts = {}
            if state == "finished":
                weights.save(folder.generator, players.generator)
                images_per_s = chronicle.speed["images_per_s"] / ranks.count
                try:
                    facts = beside_floor(experiment, device, bf16=bf16, images_per_s=images_per_s)
                except RuntimeError as error:  # it takes memory of its own, and the run has all that it was for
                    log.warning("the floor could not be measured (%s)", str(error).partition("\n")[0])
            chronicle.end(state, **facts)
    ranks.most(0)  # all leave together: what the devices say to each other may not be torn down while one is at work
    return state


def go_on(players: Players, clock: Stopwatch, folder: RunFolder, device: torch.device) -> int:
    """Bring the players and the clock to where the folder's newest checkpoint has them; return its step, or 0."""
    earlier = checkpoint.load(folder.checkpoints, vars(players))
    if earlier is None:
        if folder.history.exists():
            log.warning("%s: no checkpoint to go on from, so it begins anew", folder.path)
        return 0
    start, clock.seconds = earlier
    log.info("going on after step %d", start)
    for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
        for group in optimizer.param_groups:  # what was saved on a CPU says that it need not be
            group["capturable"] = device.type == "cuda"
    return start


def beside_floor(experiment: Experiment, device: torch.device, *, bf16: bool, images_per_s: float) -> dict[str, float]:
    """What share of the time the arithmetic alone would have taken, and the two numbers that say so."""
    players = build(experiment, device)  # the run's own would train on
    work = flops.flops_per_image(players, image_size=experiment.image_size, latent_dim=experiment.latent_dim)
    rate = flops.matmul_flops_per_s(device, bf16=bf16)
    return {
        "gflop_per_image": round(work / 1e9, 4),
        "matmul_gflop_per_s": round(rate / 1e9, 1),
        "floor_share": round(images_per_s * work / rate, 4),
    }


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


class InputWait:
    """Entered while a batch is made: for how long is the device kept waiting, or busy, by that?

    CUDA tells it itself. While the host makes a batch, the device has earlier steps to do, which costs no time; so
    what counts begins where the device has done those, and ends with the batch.

    resident: the images are on the device, which then makes the batch itself.
    """

    def __init__(self, device: torch.device, *, resident: bool) -> None:
        self._type, self._seconds, self._resident = device.type, 0.0, resident
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        if self._type == "cuda":
            self._pairs.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            self._pairs[-1][0].record()
            return
        if self._type == "mps" and not self._resident:
            torch.mps.synchronize()  # a copy to it waits for earlier steps, which is not waiting for input
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._type == "cuda":
            self._pairs[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._began

    def read(self) -> float:
        """Seconds since the last reading, for which the host must have waited for the device."""
        seconds = self._seconds + sum(start.elapsed_time(end) for start, end in self._pairs) / 1000
        self._seconds = 0.0
        self._pairs.clear()
        return seconds


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
