"""What a command asks of malloc and of libgomp, in processes of its own."""

import json
import os
import subprocess
import sys

import pytest
from support import ROOT

# Large blocks are taken and given back; each page that the kernel hands out is a fault.
CHILD = """
import ctypes, json, os, resource
from dcgan.tools import host
host.prepare()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps({"faults": faults, "spin": os.environ.get("GOMP_SPINCOUNT")}))
"""


def prepared(**variables):
    theirs = ("OMP_", "GOMP_", "MALLOC_", "GLIBC_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, cwd=ROOT, env=plain | variables, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()), reason="no glibc here")
def test_memory_that_is_freed_is_kept_unless_the_user_has_set_malloc():
    pages = (64 << 20) // os.sysconf("SC_PAGESIZE")
    kept = prepared()["faults"]
    for own in ({"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}):
        assert prepared(**own)["faults"] > 5 * kept
    assert kept < 2 * pages


@pytest.mark.parametrize(
    ("own", "spin"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, None)],
    ids=["nothing set", "a count of one's own", "a policy of one's own"],
)
def test_waiting_threads_spin_for_a_shorter_time_unless_the_user_says_how(own, spin):
    assert prepared(**own)["spin"] == spin
