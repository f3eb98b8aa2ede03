"""One task at a time beside the caller, such as writing a large file."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dcgan import first_line

log = logging.getLogger(__name__)


class Background:
    """Runs one task at a time in a thread, in the order they are started. Leaving the context waits for the last one.

    A task's error is raised by the next call.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._task: Future[None] | None = None

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        except Exception as error:  # another error has ended the run, or `wait` had been called
            log.warning("%s", first_line(error))
        finally:
            self._pool.shutdown()

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Start a task once the one before has ended."""
        self.wait()
        self._task = self._pool.submit(work, *arguments)

    def wait(self) -> None:
        """Wait for the task that was started last."""
        task, self._task = self._task, None
        if task is not None:
            task.result()

    def check(self) -> None:
        """Raise the task's error if it has ended with one; don't wait for it."""
        if self._task is not None and self._task.done():
            self.wait()
