"""Spectra, decomposed beside the run and not between its steps.

An eigendecomposition of 128 x 128 matrices takes milliseconds, in which a GPU would stand still. One thread does all of
them, one after the other, with one BLAS thread (see :func:`ssl_lab.spectrum.one_blas_thread`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ssl_lab.spectrum import Spectrum, spectrum
from ssl_lab.transfer import Transfer

LONGEST_QUEUE = 8
"""Spectra that may wait; the next one has the run wait for the first of them."""


class Diagnostician:
    """Takes F and Wp at a step, gives their spectrum later; in the order in which they were taken."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="diagnostics")
        self._waiting: deque[tuple[int, float, Future[Spectrum]]] = deque()

    @property
    def busy(self) -> bool:
        """Whether spectra are on their way."""
        return bool(self._waiting)

    def take(self, step: int, epoch: float, matrices: Transfer) -> None:
        """Has the spectrum of ``matrices`` (F and Wp at ``step``) made."""
        self._waiting.append((step, epoch, self._thread.submit(decompose, matrices)))

    def made(self, *, all_of_them: bool = False) -> Iterator[tuple[int, float, Spectrum | ValueError]]:
        """(step, epoch, spectrum) of those that are ready; of one that there is not, why.

        Args:
            all_of_them: wait for those on their way.
        """
        while self._waiting:
            step, epoch, future = self._waiting[0]
            if not (all_of_them or future.done() or len(self._waiting) > LONGEST_QUEUE):
                return
            self._waiting.popleft()
            try:
                yield step, epoch, future.result()
            except ValueError as error:
                yield step, epoch, error

    def drop(self) -> None:
        """Forgets those on their way."""
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def close(self) -> None:
        """Ends the thread; what was not fetched is dropped."""
        self.drop()
        self._thread.shutdown(cancel_futures=True)


def decompose(matrices: Transfer) -> Spectrum:
    """The spectrum of F and Wp, in float64; waits for them.

    Raises:
        ValueError: an entry is not finite.
    """
    f, wp = matrices.result()
    return spectrum(f.double().numpy(), wp.double().numpy())
