"""Apply a function to many items in parallel, keeping few in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from dcgan.tools.cpus import cpu_count

T = TypeVar("T")

AT_ONCE = 16  # items that a thread takes at a time: one by one, small files take noticeably longer
HELD_MB = 256  # of files that may wait in memory for a thread, as those of a tar do; half of it in one group


class Held:
    """A reader of bytes that are in memory already; not too many of them may wait at a time."""

    def __init__(self, data: bytes):
        self.data = data

    def __call__(self) -> bytes:
        return self.data


@contextmanager
def in_parallel(work: Callable[[Any], T], items: Iterable) -> Iterator[Iterator[T]]:
    """Yield an iterator over work(item), in order, computed by one thread per core with few items in flight.

    A context manager, not a plain generator: an abandoned generator would join its threads wherever the garbage
    collector runs, which deadlocks if a thread is being started just then.
    """
    cores = cpu_count()

    def results() -> Iterator[T]:
        waiting: deque[tuple[Future[list[T]], int]] = deque()
        for group, held in _groups(items):
            waiting.append((pool.submit(lambda group: [work(item) for item in group], group), held))
            while len(waiting) > 2 * cores or sum(held for _, held in waiting) > HELD_MB * 2**19:
                yield from waiting.popleft()[0].result()
        for future, _ in waiting:
            yield from future.result()

    with ThreadPoolExecutor(cores) as pool:
        try:
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)


def _groups(items: Iterable) -> Iterator[tuple[list, int]]:
    """Yield groups of AT_ONCE items, or fewer large ones, each with the bytes that it holds in memory."""
    group, held = [], 0
    for item in items:
        group.append(item)
        held += len(item[-1].data) if isinstance(item, tuple) and isinstance(item[-1], Held) else 0
        if len(group) == AT_ONCE or held > HELD_MB * 2**19:
            yield group, held
            group, held = [], 0
    yield group, held
