"""One rule for what counts as running out of memory."""

import re


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, the host's or the device's: torch has a class for CUDA's only."""
    said = isinstance(error, RuntimeError) and re.search("out of memory|can't allocate memory", str(error))
    return isinstance(error, MemoryError) or bool(said)
