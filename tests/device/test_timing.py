"""The host beside the device: waiting for input, and other programs on the CPU. The devices are stand-ins."""

import pytest
import torch

from dcgan.device import timing
from dcgan.device.device import Device

CUDA, MPS = (Device.of(torch.device(kind)) for kind in ("cuda", "mps"))


def test_on_cuda_the_wait_for_a_batch_begins_when_the_device_has_done_what_it_had(monkeypatch):
    class Event:
        """As CUDA's: its time is when the device comes to it, which may be after the host has asked for it."""

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = max(now["host"], now["device is free"])

        def elapsed_time(self, later):
            return 1000 * (later.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    now, wait = {"host": 0.0, "device is free": 0.0}, timing.InputWait(CUDA, resident=False)
    waits = []
    for busy_for in (0.0, 2.0, 9.0):  # seconds that the device is at earlier steps while the host makes a batch in 5
        now["device is free"] = now["host"] + busy_for
        with wait:
            now["host"] += 5
        waits.append(wait.read())
    assert waits == [5, 3, 0]
    for _ in range(2):
        with wait:
            now["host"] += 5
    assert (wait.read(), wait.read()) == (10 - 4, 0), "of a reading, all batches since the last; 4 s were left of 9"


@pytest.mark.parametrize(
    ("threads", "cores", "chosen", "advice"),
    [
        (2, 1.2, False, "resume it with OMP_NUM_THREADS=1 before the same command"),
        (8, 6.5, False, "resume it with OMP_NUM_THREADS=6 before the same command"),
        (2, 1.0, True, 'end those programs, or give the next run fewer threads, SET="threads=1"'),
        (2, 1.98, False, None),
        (1, 0.5, False, None),
    ],
    ids=["shared", "most is left", "the settings name the threads", "alone", "one thread waits for none"],
)
def test_a_run_whose_cores_others_use_names_the_remedy_once(monkeypatch, caplog, threads, cores, chosen, advice):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: cores * now[0])
    shared_cpu = timing.SharedCpu(Device.of(torch.device("cpu")), chosen=chosen)
    with caplog.at_level("WARNING", logger="dcgan"):
        for now[0] in range(1, 29):
            shared_cpu.check(waited=0)
        assert not caplog.records, "a moment says nothing"
        for now[0] in range(29, 200):
            shared_cpu.check(waited=0)
    assert len(caplog.messages) == (advice is not None)
    for message in caplog.messages:
        assert f"this run has {100 * cores / threads:.0f} % of {threads} cores" in message
        assert message.endswith(advice)


@pytest.mark.parametrize(
    ("cpu_s", "waited_s"),
    [(lambda now: 2 * (now - 10 * (now >= 45)), 0), (lambda now: 2 * 0.6 * now, 0.4)],
    ids=["suspended for 10 s with Ctrl-Z", "waits for a slow disk"],
)
def test_no_other_program_is_blamed_for_time_in_which_the_run_did_nothing(monkeypatch, caplog, cpu_s, waited_s):
    now = [0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: cpu_s(now[0]))
    shared_cpu = timing.SharedCpu(Device.of(torch.device("cpu")))
    for now[0] in [*range(1, 35), *range(45, 300)]:
        shared_cpu.check(waited=waited_s * (11 if now[0] == 45 else 1))
    assert not caplog.records


@pytest.mark.parametrize(("resident", "waits"), [(True, 0), (False, 1)])
def test_on_mps_the_host_waits_for_the_steps_before_a_batch_only_where_the_copy_would(monkeypatch, resident, waits):
    asked = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: asked.append("a wait"))
    with timing.InputWait(MPS, resident=resident):
        pass
    assert len(asked) == waits


@pytest.mark.parametrize("device", [CUDA, MPS], ids=["cuda", "mps"])
def test_the_host_runs_eight_steps_ahead_of_a_gpu_and_no_further(monkeypatch, device):
    class Event:
        """The device has done nothing; waiting for an event is what makes it do the steps up to there."""

        def record(self):
            self.step = launched[-1]

        def synchronize(self):
            done.append(self.step)

    monkeypatch.setattr(torch.get_device_module(device.torch), "Event", Event)
    keep_pace, launched, done, ahead = timing.Pace(device), [], [0], []
    for step in range(1, 31):
        launched.append(step)
        keep_pace()
        ahead.append(step - done[-1])
    assert max(ahead) == ahead[-1] == 8
