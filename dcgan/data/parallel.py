"""One function over many items, on all cores, with few of them in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from dcgan.tools.cpus import cpu_count

T = TypeVar("T")

AT_ONCE = 16  # items that a thread takes at a time: one by one, small files take noticeably longer
HELD_MB = 256  # of files that may wait in memory for a thread, as those of a tar do


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
        waiting: deque[Future[list[T]]] = deque()
        group: list[Any] = []
        held = 0  # bytes
        for item in items:
            group.append(item)
            if isinstance(item, tuple) and isinstance(item[-1], Held):
                held += len(item[-1].data)
            full = held > HELD_MB * 2**20
            if full or len(group) == AT_ONCE:
                waiting.append(pool.submit(lambda group: [work(item) for item in group], group))
                group = []
            while waiting and (full or len(waiting) > 2 * cores):
                yield from waiting.popleft().result()
            held = 0 if full else held
        waiting.append(pool.submit(lambda group: [work(item) for item in group], group))
        while waiting:
            yield from waiting.popleft().result()

    with ThreadPoolExecutor(cores) as pool:
        try:
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)
