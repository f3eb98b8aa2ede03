"""The load on a run's GPU: W&B's system metrics, from its log in the run's folder."""

import contextlib
import json
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from analysis.runs.run import Run
from dcgan.tools.files import read_plain, save

log = logging.getLogger(__name__)

FOUND = "gpu_use.json"  # beside a log: what was found in it, as reading a long one takes seconds
READ_S = 30  # for one log
USE = re.compile(r"gpu\.\d+\.gpu")  # per cent of the time in which the GPU computed something


def gpu_use(run: Run) -> dict[str, float]:
    """Return median and quartiles of the GPU's use, as shares; nothing for a CPU and without a log."""
    if run.folder is None or run.environment.get("device") not in ("cuda", "mps"):
        return {}
    values = [value for path in sorted(run.folder.path.glob("wandb/*run-*/run-*.wandb")) for value in _found(path)]
    if not values:
        return {}
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)) / 100
    return {"gpu_use": float(median), "gpu_use_low": float(low), "gpu_use_high": float(high)}


def _found(path: Path) -> list[float]:
    """Return the values in a W&B log, which is read once."""
    cache = path.with_name(FOUND)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(read_plain(cache).decode())
        if content["bytes"] == path.stat().st_size:
            return [float(value) for value in content["values"]]
    try:
        values = list(_uses(_records(path)))
        save(cache, json.dumps({"bytes": path.stat().st_size, "values": values}))
    except Exception as error:  # wandb's own, too: the page must not fail because of this
        log.debug("%s: %s", path, error)
        return []
    return values


def _records(path: Path) -> list[str]:
    """Return the records of a W&B log as lines of JSON, as `wandb leet inspect --json` shows them."""
    from wandb.util import get_core_path  # the program behind that command; Python's start takes a second more

    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", str(path)]
    with tempfile.TemporaryDirectory() as home:  # it keeps settings below HOME
        return subprocess.run(
            [*command, str(path.parent.parent)],
            env={**os.environ, "HOME": home},
            capture_output=True, text=True, timeout=READ_S, check=True,
        ).stdout.splitlines()  # fmt: skip


def _uses(records: list[str]) -> Iterator[float]:
    for line in records:
        if '"type":"stats"' in line:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                item = json.loads(line)["stats"]["item"]
                yield from (float(value) for name, value in item.items() if USE.fullmatch(name))
