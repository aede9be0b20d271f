"""Spectra on a thread of their own, memory that is kept, and numbers on their way."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
import torch

from ssl_lab.diagnostics import LONGEST_QUEUE, Diagnostician
from ssl_lab.spectrum import spectrum
from ssl_lab.transfer import Transfer


def test_a_transfer_is_of_its_moment() -> None:
    tensor = torch.arange(3.0)
    transfer = Transfer([tensor])
    tensor.zero_()
    assert transfer.arrived()
    assert transfer.result()[0].tolist() == [0.0, 1.0, 2.0]


class Held(Transfer):
    """On its way until it is let go."""

    def __init__(self, tensors: list[torch.Tensor], gate: threading.Event) -> None:
        super().__init__(tensors)
        self.gate = gate

    def result(self) -> list[torch.Tensor]:
        assert self.gate.wait(30)
        return super().result()


def matrices(seed: int) -> list[torch.Tensor]:
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed))
    return [x @ x.T, x]


def test_spectra_come_in_order_and_nobody_waits_for_them() -> None:
    gate, diagnostician = threading.Event(), Diagnostician()
    for step in range(3):
        diagnostician.take(step, step / 2, Held(matrices(step), gate))
    assert diagnostician.busy
    assert list(diagnostician.made()) == []
    gate.set()
    made: list[Any] = list(diagnostician.made(all_of_them=True))
    assert [(step, epoch) for step, epoch, _ in made] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    for step, _, found in made:
        f, wp = matrices(step)
        assert found.f_eigenvalues.tolist() == spectrum(f.double().numpy(), wp.double().numpy()).f_eigenvalues.tolist()
    assert not diagnostician.busy
    diagnostician.close()


def test_of_a_matrix_that_is_not_finite_the_reason_comes() -> None:
    diagnostician = Diagnostician()
    f, wp = matrices(0)
    diagnostician.take(1, 0.0, Transfer([f * float("nan"), wp]))
    diagnostician.take(2, 0.0, Transfer([f, wp]))
    (_, _, bad), (_, _, good) = diagnostician.made(all_of_them=True)
    assert isinstance(bad, ValueError)
    assert not isinstance(good, ValueError)
    diagnostician.close()


def test_the_queue_is_bounded() -> None:
    gate, diagnostician = threading.Event(), Diagnostician()
    for step in range(LONGEST_QUEUE + 1):
        diagnostician.take(step, 0.0, Held(matrices(step), gate))
    threading.Timer(0.05, gate.set).start()
    # One more than may wait: its turn is waited for.
    assert next(diagnostician.made())[0] == 0
    diagnostician.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """Page faults of a process of its own, where blocks are allocated and freed as a step does."""
    program = """
import resource, sys
import torch
from ssl_lab.memory import give_back, keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    print("no glibc"); raise SystemExit
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(6):
        blocks = [torch.ones(1 << 24) for _ in range(2)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
give_back()
print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20)
"""

    def run(word: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True)
        return done.stdout.split()

    plain, kept = run("plain"), run("kept")
    if kept[0] == "no":
        pytest.skip("not glibc")
    assert int(kept[0]) < 0.05 * int(plain[0])
    # 128 MB of blocks were held, and are given back.
    assert int(kept[1]) < int(plain[1]) + 64
