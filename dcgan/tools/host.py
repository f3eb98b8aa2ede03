"""The host: C-library settings to make before torch is imported, the CPUs, and what counts as out of memory.

The C libraries' own defaults cost a run a tenth of its speed.
"""

import ctypes
import os
import re
import sys

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


def keep_memory() -> bool:
    """Tell glibc's malloc to keep large blocks when they are freed; return whether it does.

    Otherwise each large tensor is given back to the kernel and faulted in again, in every step. Nothing
    changes without glibc, or where the user has set malloc's own variables.
    """
    wishes = [name for name in os.environ if name.startswith("MALLOC_")]
    if wishes or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def cpu_count() -> int:
    """Count the CPUs that this process may use; on a cluster they are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, the host's or the device's: torch has a class for CUDA's only.

    cuBLAS and cuDNN have codes of their own for it: CUBLAS_STATUS_ALLOC_FAILED, ..._ALLOCATION_FAILED.
    """
    words = "out of memory|can't allocate memory|_ALLOC(ATION)?_FAILED"
    said = isinstance(error, RuntimeError) and re.search(words, str(error))
    return isinstance(error, MemoryError) or bool(said)
