"""The CPUs of this process."""

import os


def cpu_count() -> int:
    """Count the CPUs that this process may use; on a cluster they are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
