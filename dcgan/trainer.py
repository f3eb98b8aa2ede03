"""The loop, where all parts meet: batches -> adversarial step -> run folder and Weights & Biases."""

import logging
import time
from collections.abc import Mapping
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcgan import MEASURES, UserError
from dcgan.config import Experiment
from dcgan.data import Batches
from dcgan.device.cuda_graph import step_taker
from dcgan.device.device import Device
from dcgan.device.flops import share_of_floor
from dcgan.device.ranks import ALONE, Ranks
from dcgan.device.timing import InputWait, Pace, SharedCpu
from dcgan.players import Players, build, stream
from dcgan.record import checkpoint
from dcgan.record.folder import RunFolder, State
from dcgan.record.recorder import Recorder, Silent
from dcgan.tools.clock import Stopwatch
from dcgan.tools.signals import stop_request

log = logging.getLogger(__name__)

RING = 500  # steps whose measures may wait on the device
READ_SECONDS = 1.0  # they are read about this often, for the progress bar


class Due(IntEnum):
    """The work to do after a step; processes agree on the largest."""

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
) -> State:
    """Train to the end, from the folder's checkpoint if there is one; return how the run ended.

    Trains on the device of the batches. The first SIGINT, SIGTERM or SIGHUP saves and returns "interrupted"; a second
    one kills the process.

    record: the content of `config.yaml`, also W&B's config.
    ranks: the processes that train this run; each calls this with its share of the batches.

    Raises UserError for a checkpoint or history that can't be resumed. Any other error leaves the status "failed" and
    is re-raised; the checkpoint is there to resume from.
    """
    device = Device.of(batches.device)
    players = build(experiment, device.torch, memory_format=device.memory_format, capturable=device.records_steps)
    clock = Stopwatch()
    start = resume(players, clock, folder, device, ranks)
    recorder: Recorder | Silent = Silent()
    if ranks.first:
        recorder = Recorder(
            experiment, folder, record, start=start, steps_per_epoch=batches.steps_per_epoch, clock=clock
        )
    snapshot_steps, total = set(experiment.snapshot_steps), experiment.total_steps
    state: State = "running"
    step = start

    # An error is recorded while signals are still held: the parent process may send one just then.
    with stop_request() as stop, recorder:
        real, latents = batches.empty(), torch.empty(experiment.batch_size, experiment.latent_dim, device=device.torch)
        ranks.together(players, statistics=experiment.batchnorm_over)
        take_step = step_taker(
            players, device, real=real, latents=latents.chunk(ranks.count)[ranks.rank], bf16=bf16,
            make_room=batches.move_to_host if batches.on_device and ranks.count == 1 else None,
        )  # fmt: skip
        pending, keep_pace = Pending(device, ranks), Pace(device)
        shared_cpu = SharedCpu(device, chosen=experiment.threads != "auto")
        input_wait = InputWait(device, resident=batches.on_device)
        while state == "running" and step < total:
            # The step: launched, not waited for.
            step += 1
            with clock("compute"):
                with input_wait:
                    batches(step - 1, out=real)
                latents.normal_(generator=stream(experiment.seed, "latents", step, device.torch))
                pending.add(take_step())

            # Is anything due? All processes must do the same.
            wish = Due.READING if step in snapshot_steps or pending.is_due() else Due.NOTHING
            if step == total or stop.requested:
                wish = Due.STOPPING
            with clock("compute"):
                due = ranks.most(wish)
                keep_pace()  # after agreeing: once another process is lost, waiting for the device could hang
            if due == Due.NOTHING:
                continue

            # About once a second: read the losses, the loop's one host sync.
            with clock("compute"):
                measures, taken = pending.read()
                waited = ranks.most(input_wait.read())  # all processes wait for the slowest
            clock.move(waited, "compute", to="input")
            if not np.isfinite(measures[-1]).all():
                state = "diverged"

            # Write down what came out.
            if step in snapshot_steps and state == "running":
                recorder.snapshot(players.generator, step)
            recorder.write(measures, taken=taken, state=state)
            shared_cpu.check(waited)
            if state == "running":
                recorder.checkpoint(players, step, now=due == Due.STOPPING)
                if due == Due.STOPPING and step < total:
                    state = "interrupted"

        del take_step  # frees what a recorded step holds on the device
        if state == "running":
            state = "finished"
        floor = partial(share_of_floor, experiment, device, bf16=bf16, processes=ranks.count)
        recorder.end(state, players.generator, floor=floor)
    ranks.most(0)  # all leave together: no process may close a connection that another still uses
    return state


class Pending:
    """The measures of steps that were launched and not read yet, in a ring on the device."""

    def __init__(self, device: Device, ranks: Ranks) -> None:
        self._ring = torch.empty(RING, len(MEASURES), device=device.torch)
        self._ranks, self._filled, self._since = ranks, 0, 0.0

    def add(self, measures: Tensor) -> None:
        """Keep one step's measures, (6,) on the device."""
        if not self._filled:
            self._since = time.perf_counter()  # time spent writing doesn't count
        self._ring[self._filled] = measures
        self._filled += 1

    def is_due(self) -> bool:
        """Return whether the ring is full, or its first step was some time ago."""
        return self._filled == RING or time.perf_counter() - self._since > READ_SECONDS

    def read(self) -> tuple[np.ndarray, int]:
        """Wait for the device; return (measures, steps taken) since the last reading.

        The measures (n, 6) are means over all processes, and end with the first row that is not finite.
        """
        measures = self._ranks.mean(self._ring[: self._filled].cpu()).numpy()
        taken, self._filled = self._filled, 0
        finite = np.isfinite(measures).all(axis=1)
        return (measures if finite.all() else measures[: int(finite.argmin()) + 1]), taken


def resume(players: Players, clock: Stopwatch, folder: RunFolder, device: Device, ranks: Ranks) -> int:
    """Load the newest checkpoint into the players and the clock; return its step, 0 where there is none.

    Raises UserError for a checkpoint of another run, and where processes don't see the same one.
    """
    with ranks.first_goes_first():  # it removes damaged checkpoints
        saved = checkpoint.load(folder.checkpoints, vars(players))
    start = 0
    if saved is not None:
        start, clock.seconds = saved
        log.info("resuming after step %d", start)
        for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
            for group in optimizer.param_groups:  # False in a checkpoint saved on a CPU
                group["capturable"] = device.records_steps
            for parameter, state in optimizer.state.items():  # of another memory format in one saved on MPS
                for moment in ("exp_avg", "exp_avg_sq"):
                    state[moment] = torch.empty_like(parameter).copy_(state[moment])
    elif folder.history.exists():
        log.warning("%s: no checkpoint to resume from, so the run starts again", folder.path)
    if ranks.most(start) != -ranks.most(-start):  # the highest is not the lowest
        raise UserError(f"{folder.path}: processes see different files; put --runs on a disk that they share")
    return start
