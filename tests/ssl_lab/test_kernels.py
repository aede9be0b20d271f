"""cuDNN's setting is the process's: who compares in full digits does so however many others step meanwhile."""

from __future__ import annotations

import threading
import time

import torch

from ssl_lab.kernels import FASTEST, IN_FULL, Kernels, Way


def how() -> Way:
    cudnn = torch.backends.cudnn
    return bool(cudnn.benchmark), bool(cudnn.deterministic), bool(cudnn.allow_tf32)


def test_every_thread_has_it_its_own_way_and_it_is_left_as_it_was() -> None:
    before, kernels = how(), Kernels()
    wrong: list[Way] = []
    done: dict[Way, int] = {FASTEST: 0, IN_FULL: 0}
    over = threading.Event()

    def go(way: Way, pause: float) -> None:
        while not over.is_set():
            with kernels.having(way):
                for _ in range(3):
                    time.sleep(pause)
                    if how() != way:
                        wrong.append(how())
            done[way] += 1

    # Those that step overlap, so that there is always one of them.
    threads = [threading.Thread(target=go, args=(FASTEST, 1e-4 * (i + 1))) for i in range(4)]
    threads += [threading.Thread(target=go, args=(IN_FULL, 1e-3)) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while min(done.values()) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
    assert min(done.values()) >= 20, "nobody waits for ever"
    assert how() == before


def test_within_another_it_waits_for_nobody() -> None:
    before, kernels = how(), Kernels()
    with kernels.having(IN_FULL):
        with kernels.having(FASTEST):
            assert how() == FASTEST
        assert how() == IN_FULL
        with kernels.having(IN_FULL):
            assert how() == IN_FULL
    assert how() == before
