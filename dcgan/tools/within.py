"""Run an action for a limited time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return what `action` returns, or raise its error.

    Raises TimeoutError after `seconds`; the action then continues in its daemon thread.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:  # wandb exits when its process has died
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([outcome], seconds).done:
        raise TimeoutError(f"no answer for {seconds:g} s")
    return outcome.result()
