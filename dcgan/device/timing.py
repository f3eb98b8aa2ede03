"""Host and device timing: how far ahead the host may run, waits for input, and other programs on the CPU."""

import logging
import time
from collections import deque
from typing import Any

import torch

from dcgan.device.device import Device

log = logging.getLogger(__name__)


class Pace:
    """Keeps the host at most `Device.steps_ahead` steps ahead: a stop must not wait for hundreds of queued steps."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._marks: deque[Any] = deque()

    def __call__(self) -> None:
        """Call after each step. The device never runs dry: it still has steps queued while the host waits."""
        if self._device.steps_ahead is None:
            return
        mark = self._device.event()
        mark.record()
        self._marks.append(mark)
        if len(self._marks) > self._device.steps_ahead:
            self._marks.popleft().synchronize()


class InputWait:
    """Entered while a batch is made: measures how long making it delays the device.

    CUDA itself measures it. While the host makes a batch, the device still has earlier steps to do, which costs no
    time. So the delay begins when the device has done those, and ends with the batch.

    resident: the images are on the device, which then makes the batch itself.
    """

    def __init__(self, device: Device, *, resident: bool) -> None:
        self._type, self._seconds, self._resident = device.type, 0.0, resident
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        if self._type == "cuda":
            self._pairs.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            self._pairs[-1][0].record()
            return
        if self._type == "mps" and not self._resident:
            torch.mps.synchronize()  # the copy waits for earlier steps, which is not waiting for input
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._type == "cuda":
            self._pairs[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._start

    def read(self) -> float:
        """Return the seconds since the last reading; the host must have waited for the device before."""
        seconds = self._seconds + sum(start.elapsed_time(end) for start, end in self._pairs) / 1000
        self._seconds = 0.0
        self._pairs.clear()
        return seconds


class SharedCpu:
    """Warns once when other programs take part of the CPU from a run on several threads.

    The threads of a step wait for each other, so a thread that is descheduled keeps the others waiting. With one other
    busy program on 2 cores a step takes two to three times as long; on one thread it then takes no longer than without
    the program (`make bench WHAT=beside`). One look says nothing: a run that was suspended with Ctrl-Z had less of the
    CPU, too.

    chosen: the settings name the number of threads, which a resumed run keeps.
    """

    LOOK_SECONDS = 30.0
    SHARE = 0.85  # without other programs a run has 0.99 of its threads' time

    def __init__(self, device: Device, *, chosen: bool = False) -> None:
        self._chosen = chosen
        self._threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._silent = self._threads == 1
        self._since = time.perf_counter(), time.process_time()
        self._waited = 0.0  # for input, since then
        self._was_low = False  # at the last look

    def check(self, waited: float) -> None:
        """Call now and then, with the seconds that the run has waited for input since the last call."""
        self._waited += waited
        now = time.perf_counter(), time.process_time()
        wall, cpu = (after - before for before, after in zip(self._since, now, strict=True))
        wall -= self._waited
        if self._silent or wall < self.LOOK_SECONDS:
            return
        self._since, self._waited = now, 0.0
        share = cpu / (wall * self._threads)
        was_low, self._was_low = self._was_low, share <= self.SHARE
        if not (was_low and self._was_low):
            return
        self._silent = True
        threads = max(1, int(share * self._threads))
        if self._chosen:
            remedy = f'give the next run fewer threads, SET="threads={threads}"'
        else:
            remedy = (
                f"stop this run (it loses nothing) and resume it with OMP_NUM_THREADS={threads} before the same command"
            )
        log.warning(
            f"other programs use the CPU too: this run has {100 * share:.0f} % of {self._threads} cores, and it loses "
            f"more than that while its threads wait for each other; end those programs, or {remedy}"
        )
