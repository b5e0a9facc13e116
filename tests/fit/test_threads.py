"""Threads of a fit: torch's are given back, and as many of Numba's are used as are faster."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from prancimg.fit import threads
from prancimg.fit.threads import AdaptiveThreads, one_torch_thread


def test_torch_gets_its_threads_back_from_fits_that_overlap():
    with one_torch_thread():  # the first one starts Numba's threads, which may change the number of torch's
        pass
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        inside, go_on = threading.Event(), threading.Event()

        def other() -> None:
            with one_torch_thread():
                inside.set()
                go_on.wait()

        thread = threading.Thread(target=other)
        with one_torch_thread():
            thread.start()
            inside.wait()
            assert torch.get_num_threads() == 1
        go_on.set()
        thread.join()
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:  # what starts later
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("alone", "together", "chosen"), [(2.0, 1.2, 2), (2.0, 7.0, 1)])
def test_as_many_threads_as_are_faster(monkeypatch, alone, together, chosen):
    """Of two threads, both are used while they are the faster way, and it is tried again whether they are."""
    counts, clock = [2], [0.0]
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(threads.numba, "set_num_threads", counts.append)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    chosen_by_time, used = AdaptiveThreads(), []
    for _ in range(2 * threads.RETRY_EVERY):
        with chosen_by_time.step(True):
            used.append(counts[-1])
            clock[0] += alone if counts[-1] == 1 else together
        with chosen_by_time.step(False):  # what takes another time tells nothing
            clock[0] += 100
    trial = threads.RETRY_EVERY
    assert used[1:3] == used[trial + 1 : trial + 3] == [2, 1]
    assert set(used[3 : trial + 1] + used[trial + 3 :]) == {chosen}
