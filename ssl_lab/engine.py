"""The engine process: one torch that steps the runs of everybody, so that a page's kernel stays light.

``python -m ssl_lab.engine --results DIR``. Pages leave requests in ``DIR/engine.sqlite``; the engine gives each
run a thread that calls :func:`ssl_lab.loop.drive`. What a page needs to know of the engine is in
:mod:`ssl_lab.desk`, which does not import torch.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ssl_lab.atomic import CANNOT_WRITE, cannot_write
from ssl_lab.desk import MOST_AWAKE, EngineDesk
from ssl_lab.errors import SSLLabError, WriteError
from ssl_lab.family import FAMILY, Membership, membership
from ssl_lab.pacer import Pacer, Turns
from ssl_lab.store import RunState, RunStore, open_run, results_dir

if TYPE_CHECKING:
    from ssl_lab.datasets import Dataset
    from ssl_lab.together import Families
    from ssl_lab.trainer import Trainer
    from ssl_lab.views import SharedBlocks

log = logging.getLogger("ssl_lab.engine")

NICE = 5
"""How far steps stand back behind pictures when both want the same core."""


class Engine:
    """Hosts many runs, each in a thread of its own, over one results folder."""

    def __init__(self, results: Path, desk: EngineDesk, most_awake: int = MOST_AWAKE) -> None:
        self.results, self.desk, self.most_awake = results, desk, most_awake
        self.stop = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._datasets: dict[tuple[object, ...], Dataset] = {}
        self._building: dict[tuple[object, ...], threading.Lock] = {}
        self.families: dict[str, Pacer] = {}
        """What has the members of each family that is awake step side by side, by the family's id."""
        self._relatives: dict[str, set[str]] = {}
        """Names of the members that are awake, by the family's id."""
        self.companies: Families | None = None
        """What has the members of a family make their steps as one, where that pays; made with the first of them."""
        self._blocks: dict[str, SharedBlocks] = {}
        """Views that the members of a family show, made once for all, by the family's id."""
        self._kinship = threading.Lock()
        self.cpu_threads: int | None = None
        """Threads that torch uses when left alone; a thread begun while another one steps inherits that one's."""

    def serve(self, poll: float = 0.05, idle_end: float | None = None) -> None:
        """Takes requests until :attr:`stop` is set, then has every run saved and let go.

        Args:
            poll: seconds between looks.
            idle_end: seconds without a run awake after which it ends by itself; None for never.
        """
        busy = time.monotonic()
        while not self.stop.is_set():
            try:
                requests = self.desk.take_requests()
            except CANNOT_WRITE as error:
                # They lie there until the disk has room again.
                log.error("No request can be taken: %s", cannot_write(self.results, error))
                self.stop.wait(1.0)
                continue
            for request in requests:
                self.host(request)
            now = time.monotonic()
            if self.awake():
                busy = now
            elif idle_end is not None and now - busy > idle_end:
                self.stop.set()
            time.sleep(poll)
        for thread in list(self._threads.values()):
            thread.join(timeout=30.0)

    def beat(self) -> None:
        """Says once a second that the engine lives, from a thread: loading torch takes longer than patience does."""
        while not self.stop.wait(1.0):
            # While nothing can be written pages say so themselves; the next beat may be heard again.
            with suppress(*CANNOT_WRITE):
                self.desk.beat(self.awake())

    def awake(self) -> int:
        """Runs that are awake."""
        return sum(thread.is_alive() for thread in list(self._threads.values()))

    def host(self, name: str) -> None:
        """Wakes the run ``name`` if it is not awake already."""
        thread = self._threads.get(name)
        if thread is not None and thread.is_alive():
            return
        self._threads = {name: thread for name, thread in self._threads.items() if thread.is_alive()}
        if len(self._threads) >= self.most_awake:
            self._refuse(name)
            return
        thread = threading.Thread(target=self._run, args=(name,), name=f"run-{name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _refuse(self, name: str) -> None:
        message = (
            f"The engine has {self.most_awake} runs awake, which is as many as it takes. Runs that nobody looks at "
            "fall asleep after a while: try again then."
        )
        try:
            with open_run(name, self.results) as store:
                if not store.driven():
                    store.set_status(state="asleep", message=message)
        except (SSLLabError, *CANNOT_WRITE) as error:
            log.warning("%s", error)

    def _run(self, name: str) -> None:
        try:
            store = open_run(name, self.results)
        except SSLLabError as error:
            log.warning("%s", error)
            return
        with store:
            try:
                self._drive(store)
            except WriteError as error:
                # It was left while it could not be written: it goes on from its record.
                log.warning("%s", error)
                self._say(store, "asleep", str(error))
            except SSLLabError as error:
                self._say(store, "failed", str(error))
            except Exception as error:
                log.exception("The run %s could not be hosted", name)
                from ssl_lab.loop import is_out_of_memory

                what = "there was not enough memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
                self._say(store, "failed", f"The run stopped: {what}. Run goes on from its last checkpoint.")

    @staticmethod
    def _say(store: RunStore, state: RunState, message: str) -> None:
        try:
            store.set_status(state=state, message=message)
        except CANNOT_WRITE as error:
            log.error("%s", cannot_write(store.folder, error))

    def _drive(self, store: RunStore) -> None:
        import torch

        from ssl_lab.loop import drive, hosted, in_family, resume
        from ssl_lab.trainer import Trainer

        if self.cpu_threads is not None:
            torch.set_num_threads(self.cpu_threads)
        if store.driven():
            return
        config = store.config()
        store.set_status(state="loading", message=f"Loading {config.dataset}.")
        with self._among_relatives(store) as (family, turns):
            # One at a time for a data set: visitors who open the same one at once share one copy of it.
            key = self._data_key(store)
            with self._building.setdefault(key, threading.Lock()):
                trainer = Trainer(config, self._datasets.get(key))
                self._datasets.setdefault(key, trainer.dataset)
            seen = resume(trainer, store)
            until = None if config.epochs is None else config.epochs * trainer.steps_per_epoch
            if family is not None and turns is not None:
                self._introduce(trainer, family, turns)
            try:
                # A run that was stopped by whatever reason stands still until somebody says go.
                drive(
                    trainer, store, owner="engine", until=until, running=False, stay=True, events_seen=seen,
                    stop=self.stop, pace=in_family(family.size) if family else hosted(), turns=turns,
                )  # fmt: skip
            finally:
                if trainer.company is not None:
                    trainer.company.leave(trainer)

    def _introduce(self, trainer: Trainer, family: Membership, turns: Turns) -> None:
        """Has a member share views with the others, and meet them for its steps where a GPU may make them as one."""
        from ssl_lab.together import Families
        from ssl_lab.views import SharedBlocks

        with self._kinship:
            self.companies = self.companies or Families()
            blocks = self._blocks.setdefault(family.id, SharedBlocks())
        trainer.share_views(blocks)
        if self.companies.admit(trainer, family.id) is not None:
            # Those that meet have to be on their way at the same time.
            turns.pacer.at_once = family.size

    @contextmanager
    def _among_relatives(self, store: RunStore) -> Iterator[tuple[Membership | None, Turns | None]]:
        """The run's family, and its turns there, while it is awake; nothing of either for a run of none."""
        family, parent = membership(store.meta(FAMILY)), store.parent
        if family is None:
            yield None, None
            return
        name = store.name
        with self._kinship:
            pacer = self.families.setdefault(family.id, Pacer(begun=parent.step if parent else 0))
            self._relatives.setdefault(family.id, set()).add(name)
        pacer.expect(name, store.last_step())
        try:
            yield family, Turns(pacer, name)
        finally:
            pacer.leave(name)
            with self._kinship:
                self._relatives[family.id].discard(name)
                if not self._relatives[family.id]:
                    del self._relatives[family.id], self.families[family.id]
                    self._blocks.pop(family.id, None)

    def relatives(self, family: str) -> frozenset[str]:
        """Names of a family's members that are awake."""
        with self._kinship:
            return frozenset(self._relatives.get(family, ()))

    @staticmethod
    def _data_key(store: RunStore) -> tuple[object, ...]:
        c = store.config()
        return (c.dataset, c.data_dir, c.image_size, c.train_limit, c.test_limit)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m ssl_lab.engine``; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ssl_lab.engine", description=__doc__)
    parser.add_argument("--results", default=None, help="folder of the runs (default: SSL_LAB_RESULTS or ./results)")
    parser.add_argument("--parent", type=int, default=None, help="process to end with")
    parser.add_argument("--idle-end", type=float, default=None, help="seconds without a run after which to end")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    _give_way()
    results = results_dir(options.results)
    desk = EngineDesk(results)
    if not desk.take_seat():
        print(f"An engine is already serving {results}.", file=sys.stderr)
        return 0
    engine = Engine(results, desk)

    def end(_signal: int, _frame: FrameType | None) -> None:
        engine.stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, end)
    desk.beat(0, message="Loading torch.")
    threading.Thread(target=engine.beat, name="beat", daemon=True).start()
    if options.parent is not None:
        threading.Thread(target=_end_with, args=(options.parent, engine.stop), daemon=True).start()
    # Threads that wait for each other must not keep the cores from the pages' kernels and the browser.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from ssl_lab import loop  # noqa: F401  (loaded now, so that the first run need not wait for it)
    from ssl_lab.config import preset
    from ssl_lab.trainer import Trainer

    # The first step of a process loads half of torch: let the engine wait for it and not the first visitor.
    Trainer(preset("directpred")).step()
    engine.cpu_threads = torch.get_num_threads()
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    desk.introduce(device=device, torch=str(torch.__version__))
    try:
        engine.serve(idle_end=options.idle_end)
    finally:
        desk.leave_seat()
    return 0


def _give_way() -> None:
    """Lets the pages' kernels go first where cores are few: a picture takes moments, and a person waits for it."""
    with suppress(OSError):
        os.nice(NICE)
    # A system may weigh sessions before it weighs the processes in them, and this one has a session of its own.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


def _end_with(parent: int, stop: threading.Event) -> None:
    """Sets ``stop`` when the process that started the engine is gone, however it went."""
    while not stop.is_set():
        if os.getppid() != parent:
            stop.set()
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
