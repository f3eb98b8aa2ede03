"""Work on all cores: in order, and with few items in memory."""

import time

import pytest

from dcgan.data import parallel
from dcgan.data.parallel import Held, in_parallel


def test_results_come_in_the_items_order():
    def slower_first(item):
        time.sleep(0.002 * (item % 3))
        return item

    with in_parallel(slower_first, range(200)) as results:
        assert list(results) == list(range(200))


def test_an_error_reaches_whoever_takes_the_results():
    with in_parallel(lambda item: 1 / (item - 57), range(100)) as results, pytest.raises(ZeroDivisionError):
        list(results)


def test_few_large_items_wait_in_memory(monkeypatch):
    monkeypatch.setattr(parallel, "HELD_MB", 1)
    made, done = [], []
    waiting = []

    def items():
        for number in range(100):
            made.append(number)
            waiting.append(len(made) - len(done))
            yield number, Held(bytes(2**18))

    def work(item):
        time.sleep(0.001)
        done.append(item[0])

    with in_parallel(work, items()) as results:
        assert len(list(results)) == 100
    assert max(waiting) <= 12, "of a quarter of a megabyte: half a megabyte a group, as much waits, and one is taken"
