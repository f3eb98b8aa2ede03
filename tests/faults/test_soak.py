"""Twenty thousand steps: memory and open files stay as they are, and the history can be read throughout."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT

from dcgan.record.folder import RunFolder

STEPS, WARM = 20_000, 2_000


def _resident_mb(pid):
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmRSS:") + 1]) / 1024


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_twenty_thousand_steps_take_no_more_memory_or_files_than_two_thousand(tmp_path):
    command = [sys.executable, "-m", "dcgan", "run", "tuned_lr", "--profile", "smoke", "--set", f"steps={STEPS}"]
    runs = tmp_path / "runs"
    command += ["--set", "threads=1", "--set", "snapshots=20", "--runs", runs, "--cache", tmp_path / "cache"]
    compare = [sys.executable, "-m", "analysis", "compare", "--runs", runs, "--out", tmp_path / "reports"]
    environment = os.environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        memory, files, compared, steps = [], [], 0, 0
        try:
            while process.poll() is None:
                time.sleep(2)
                if not (found := list(runs.rglob("history.csv"))):
                    continue
                history = RunFolder(found[0].parent).read_history()
                assert history["step"].tolist() == list(range(1, len(history) + 1))
                assert len(history) >= steps, "no row is ever taken back"
                steps = len(history)
                if WARM < steps < STEPS - 100:
                    try:
                        memory.append(_resident_mb(process.pid))
                        files.append(len(list(Path(f"/proc/{process.pid}/fd").iterdir())))
                    except OSError:  # it has just ended
                        continue
                if steps > (compared + 1) * STEPS / 3:
                    done = subprocess.run(compare, cwd=ROOT, env=environment, capture_output=True, text=True)
                    assert done.returncode == 0, done.stderr
                    compared += 1
        finally:
            process.kill()
    assert process.returncode == 0, (tmp_path / "said").read_text()[-2000:]
    print(f"{min(memory):.0f} to {max(memory):.0f} MB, {min(files)} to {max(files)} files, {compared} comparisons")
    assert steps == STEPS
    assert compared >= 2
    assert max(memory) < 1.05 * min(memory)
    assert max(files) - min(files) <= 3, "but for those that are open while a file is written"
