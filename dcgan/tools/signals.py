"""One rule for the signals that ask a program to end: those that were ignored when it started stay ignored.

`nohup` ignores SIGHUP, and a shell ignores SIGINT for what it starts in the background.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heeded(numbers: tuple[signal.Signals, ...] = ENDING) -> list[signal.Signals]:
    """Return those of the signals that this process does not ignore."""
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def handled(numbers: list[signal.Signals], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle the signals while entered; restore what handled them before."""
    earlier_handlers = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier_handler in earlier_handlers.items():
            signal.signal(number, earlier_handler)


class StopRequest:
    """A request to end this process, if somebody has made one."""

    requested = False


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """While entered, the first signal to end is a request, and the second ends the process at once."""
    stop, numbers = StopRequest(), heeded()

    def note(*_: object) -> None:
        stop.requested = True
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)

    with handled(numbers, note):
        yield stop


@contextmanager
def as_keyboard_interrupt() -> Iterator[None]:
    """While entered, SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with handled([number for number in heeded() if number != signal.SIGINT], interrupt):
        yield
