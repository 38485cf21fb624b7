"""Fits in several threads at once, as in the App's server."""

from __future__ import annotations

import threading
import warnings

from clipcleaner_plugin.fitting import convergence_logged, one_blas_thread


def test_fits_of_two_threads_leave_warnings_as_they_were() -> None:
    before = warnings.showwarning, warnings.filters
    first_is_in, second_waits = threading.Event(), threading.Event()

    def first() -> None:
        with convergence_logged("first"), one_blas_thread():
            first_is_in.set()
            second_waits.wait(10)

    def second() -> None:
        first_is_in.wait(10)
        threading.Timer(0.2, second_waits.set).start()
        with convergence_logged("second"), one_blas_thread():
            pass

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (warnings.showwarning, warnings.filters) == before
    assert warnings.filters is before[1]
