"""Tuning of a process's C libraries, before torch is imported: their defaults cost a run a tenth of its speed."""

import ctypes
import os

# glibc's mallopt, from <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
SPIN = "20000"  # rounds; libgomp's default is 300,000 and more


def prepare() -> None:
    """Keep freed memory, and let waiting threads spin for a shorter time.

    Call it before torch is imported: libgomp reads its setting then. A user's own settings win.
    """
    keep_memory()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN)


def keep_memory() -> None:
    """Tell glibc's malloc to keep large blocks when they are freed.

    Otherwise each large tensor is given back to the kernel and faulted in again, in every step. Nothing
    changes without glibc, or where the user has set malloc's own variables.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ)
    libc = ctypes.CDLL(None)
    if own or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or not hasattr(libc, "gnu_get_libc_version"):
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
