"""Waiting for other processes, and finding them; and a bound on how long anything may take."""

import contextlib
import signal
import time
from pathlib import Path


class TooSlow(BaseException):
    """Not an Exception, which the code under test may catch."""


@contextlib.contextmanager
def patience(seconds):
    """Raise TooSlow when what happens within takes longer."""

    def give_up(*_):
        raise TooSlow(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def until(condition, *, seconds=60, alive=None):
    """Wait until the condition is true, at most so long, and only while the process `alive` lives; return it."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert alive is None or alive.poll() is None, alive.communicate()
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
    return result


def with_variable(entry):
    """The live processes that have this NAME=value in their environment, and their parents: {pid: parent's pid}."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"\0{entry}\0".encode() in b"\0" + (place / "environ").read_bytes():
                state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(place.name)] = int(parent)
        except OSError:
            continue
    return found


def worker(launcher, rank):
    """The pid of a launcher's process by rank."""
    (pid,) = [pid for pid, parent in with_variable(f"RANK={rank}").items() if parent == launcher]
    return pid
