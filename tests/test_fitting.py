"""Work on all cores: results in order, few of them waiting, settings left as they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info

from clipcleaner_plugin import fitting
from clipcleaner_plugin.fitting import in_order, one_blas_thread


def threads_of_blas() -> list[int]:
    return [torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())]


def test_computations_of_two_threads_leave_the_number_of_threads_as_it_was() -> None:
    before = threads_of_blas()
    first_is_in, second_waits = threading.Event(), threading.Event()
    seen = []

    def first() -> None:
        with one_blas_thread():
            first_is_in.set()
            second_waits.wait(10)
            seen.extend(threads_of_blas())

    def second() -> None:
        first_is_in.wait(10)
        threading.Timer(0.2, second_waits.set).start()
        with one_blas_thread():
            pass

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(seen) == {1}
    assert threads_of_blas() == before


@pytest.mark.parametrize("cores", [1, 3])
def test_results_come_in_order_and_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(fitting, "_cores", lambda: cores)
    drawn = []

    def items() -> Iterator[int]:
        for i in range(30):
            drawn.append(i)
            yield i

    def work(i: int) -> int:
        time.sleep(0.01 if i % 5 == 0 else 0)  # the later ones are done first
        return i * i

    with one_blas_thread():
        for i, result in enumerate(in_order(work, items())):
            assert result == i * i
            assert len(drawn) - i <= 2 * cores + 1
    assert len(drawn) == 30


def test_a_failure_is_raised() -> None:
    with one_blas_thread(), pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // i, [1, 0, 2]))
