"""One rule for what counts as running out of memory."""

import re


def out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that the host's or the device's memory ran out: torch has a class for CUDA's only.

    cuBLAS and cuDNN have codes of their own for it: CUBLAS_STATUS_ALLOC_FAILED, ..._ALLOCATION_FAILED.
    """
    pattern = "out of memory|can't allocate memory|_ALLOC(ATION)?_FAILED"
    match = isinstance(error, RuntimeError) and re.search(pattern, str(error))
    return isinstance(error, MemoryError) or bool(match)
