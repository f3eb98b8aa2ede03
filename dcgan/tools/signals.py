"""One rule for the signals that ask a program to end: those that were ignored when it started stay ignored.

`nohup` ignores SIGHUP, and a shell ignores SIGINT for what it starts in the background.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def heeded(numbers: tuple[signal.Signals, ...] = ENDING) -> list[signal.Signals]:
    """Return those of the signals that this process does not ignore."""
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def handled(numbers: list[signal.Signals], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle the signals while entered; restore what handled them before."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopRequest:
    """While entered, the first signal to end only sets `requested`; the second ends the process at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopRequest":
        self._heeded = heeded()
        self._handling = handled(self._heeded, self._note)
        self._handling.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._handling.__exit__(None, None, None)

    def _note(self, number: int, _frame: object) -> None:
        self.requested = True
        for heeded_number in self._heeded:
            signal.signal(heeded_number, signal.SIG_DFL)


@contextmanager
def as_keyboard_interrupt() -> Iterator[None]:
    """While entered, SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with handled([number for number in heeded() if number != signal.SIGINT], interrupt):
        yield
