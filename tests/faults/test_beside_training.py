"""Reading runs while another process trains them: what is seen is a whole beginning of what is written."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import ROOT
from support.made_runs import DATA, make_run

from analysis.compare.build import compare, groups
from analysis.compare.one_run import NOTHING
from analysis.runs.folders import read_folders
from analysis.score import Protocol
from dcgan import UserError

STEPS = 5000
SECONDS = 6

#: Trains, so to say: rows in pieces of every size, now and then torn by hand, a status now and then, an end, a new run.
WRITER = """
import itertools, random, sys, time
from pathlib import Path
import numpy as np
from dcgan.record.folder import RunFolder

folder, steps, config = RunFolder(Path(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3]).read_bytes()
random.seed(7)

def rows(first, last):
    step = np.arange(first, last + 1, dtype=np.float32)
    return np.column_stack([step / 7, step / 14, step / 14, step / 3, 1 / step, 1 / step])

for session in itertools.count(1):
    with folder.locked():
        folder.remove()
        folder.config.write_bytes(config)
        step, resumed = 0, False
        while step < steps:
            upto = min(steps, step + random.choice([1, 10, 99, 1000]))
            folder.append_history(step + 1, rows(step + 1, upto))
            step = upto
            if random.random() < 0.3:
                with folder.history.open("a") as file:
                    file.write(f"{step + 1},0.1,0.2")  # what a reader sees when a row is written in two pieces
                    file.flush()
                    time.sleep(0.002)
                with folder.history.open("r+") as file:
                    file.truncate(folder.history.stat().st_size - len(f"{step + 1},0.1,0.2"))
            if random.random() < 0.5:
                folder.write_status("running", step=step, steps=steps)
            if step > steps // 2 and not resumed:
                resumed = True
                folder.truncate_history(step // 2)  # going on from a checkpoint
                step = step // 2
            time.sleep(random.random() * 0.004)
        folder.write_status("finished", step=steps, steps=steps)
    print(session, flush=True)
    time.sleep(0.01)
"""


@pytest.mark.slow
@pytest.mark.thorough
def test_a_training_that_goes_on_can_be_read_and_compared_throughout(tmp_path):
    make_run(tmp_path / "runs", "baseline", steps=STEPS)
    other = make_run(tmp_path / "elsewhere", "tuned_lr", steps=STEPS, data=DATA)
    trained = tmp_path / "runs" / other.path.relative_to(tmp_path / "elsewhere")
    trained.parent.mkdir(parents=True)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, trained, str(STEPS), other.config], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout.readline(), "a first run was written whole"
        seen, lengths, began = [], set(), time.monotonic()
        while time.monotonic() - began < SECONDS:
            seen.append(_look(tmp_path / "runs", trained, lengths))
        assert writer.poll() is None, "the reader kept it from nothing"
    finally:
        writer.send_signal(signal.SIGKILL)
        sessions = writer.communicate()[0].count(b"\n")
    print(f"read {len(seen)} times over {sessions} trainings: { ({state: seen.count(state) for state in set(seen)}) }")
    assert sessions > 2
    assert seen.count("running") > 5
    assert len(lengths) > 5
    assert set(seen) <= {"running", "finished", "not there", "interrupted", "unknown"}


def _look(runs, trained, lengths):
    """The state of the run that is written to, all of whose rows are right."""
    found, problems = read_folders(runs)
    protocol = Protocol("effnet_lite0", "0" * 16, "real", 200, 200)
    for members in groups(found).values():
        comparison = compare(members, lambda run: (protocol, NOTHING))
        assert "baseline" in set(comparison.table["experiment"])
    (run,) = [run for run in found if run.folder.path == trained] or [None]
    if run is None:  # between two trainings the folder is empty, or begins to be filled
        assert all(str(trained) in line and "not a table" not in line for line in problems)
        return "not there"
    try:
        rows = run.history()
    except UserError:  # of a training that has begun anew since
        return "not there"
    step = np.arange(1, len(rows) + 1, dtype=np.float32)
    np.testing.assert_array_equal(rows["step"], step)
    np.testing.assert_array_equal(rows["loss_d"], (step / 7).astype(np.float64))
    np.testing.assert_array_equal(rows["d_g_z"], (1 / step).astype(np.float64))
    lengths.add(len(rows))
    return run.state


def test_a_reader_holds_up_no_training_that_starts(tmp_path):
    folder = make_run(tmp_path, "baseline", state="interrupted")
    reader = os.fork()
    if reader == 0:  # a child of its own, as a lock is of the process
        while True:
            read_folders(tmp_path)
    try:
        refused = 0
        for _ in range(200):
            try:
                with folder.locked():
                    pass
            except UserError:  # the reader has the lock for some microseconds; the same command then starts
                refused += 1
        assert refused < 20
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
