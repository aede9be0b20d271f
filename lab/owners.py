"""Whose a run is, who may steer it, and how many somebody may keep: the one place that decides.

A run that a visitor made holds the digest of the visitor's key as ``meta["keeper"]``. One without a keeper, made at the
command line or before there were any, is the host's.
"""

from __future__ import annotations

import os
import shutil
import stat as modes
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lab.catalogue import Entry
from lab.house import House
from ssl_lab import stage
from ssl_lab.errors import SSLLabError
from ssl_lab.store import FILE_NAME, RunStore, check_name, open_run

KEEPER = "keeper"
"""What is kept of a run's keeper, in its file."""

PAUSING = 5.0
"""Seconds that runs get to pause before they are deleted together."""

LETTING_GO = 10.0
"""Seconds that a driver gets to save a run and let go of it."""

FOREIGN = "This run is somebody else's: you may watch it. Fork here to go on with a run of your own."


class CapError(SSLLabError):
    """A visitor keeps as much as the house allows."""


@dataclass(frozen=True)
class Account:
    """What somebody keeps."""

    runs: int
    bytes: int


class Owners:
    """The rules of the house, for one visitor.

    Args:
        house: the rules.
        visitor: digest of the visitor's key; None for somebody who has not said who they are.
    """

    def __init__(self, house: House, visitor: str | None = None) -> None:
        self.house, self.visitor = house, visitor

    @property
    def host(self) -> bool:
        """Whether the visitor is the host, who steers every run and keeps as many as there is room for."""
        return bool(self.house.host_key) and self.visitor == self.house.host_key

    @property
    def known(self) -> bool:
        """Whether the visitor has said who they are, where that matters."""
        return not self.house.keeps_account or bool(self.visitor)

    def may_steer(self, keeper: str) -> bool:
        """Whether the visitor may steer, and delete, a run that is kept by ``keeper`` (empty: the host's)."""
        if not self.house.own_only or self.host:
            return True
        return bool(self.visitor) and keeper == self.visitor

    def minds(self, keeper: str) -> bool:
        """Whether such a run is the visitor's own to look after, so that it pauses when they go to another one."""
        if not self.house.own_only:
            return True
        return keeper == self.visitor or (self.host and not keeper)

    def keeps_awake(self, keeper: str) -> bool:
        """Whether the visitor's look keeps a run going: theirs, and the host's, whose class may watch it alone.

        Another visitor's run pauses when that visitor has left, however many watch it.
        """
        return self.may_steer(keeper) or not keeper or keeper == self.house.host_key

    def account(self, entries: Iterable[Entry]) -> Account:
        """What the visitor keeps of these runs."""
        own = [entry for entry in entries if not entry.recording and entry.keeper and entry.keeper == self.visitor]
        return Account(len(own), weight(*(entry.path.parent for entry in own)))

    def room_for(self, entries: Iterable[Entry], more: int = 0, runs: int = 1) -> None:
        """Has the visitor make more runs.

        Args:
            more: bytes that they begin with, such as those of the record that a fork takes along.
            runs: how many there are to be, all or none.

        Raises:
            CapError: they keep as many as they may; the message says how many, and the way out.
        """
        if not self.known:
            raise CapError("This page has not said whose it is, so that no run can be made from it. Reload it.")
        house = self.house
        if self.host or (house.max_runs is None and house.max_bytes is None):
            return
        has = self.account(entries)
        if house.max_runs is not None and has.runs + runs > house.max_runs and runs > 1:
            raise CapError(
                f"A family of {runs} does not fit: you keep {_runs(has.runs)}, and a visitor may keep "
                f"{house.max_runs} here. Delete some on the shelf (under Runs), then try again."
            )
        if house.max_runs is not None and has.runs >= house.max_runs:
            raise CapError(
                f"You keep {_runs(has.runs)}, and a visitor may keep {house.max_runs} here. Delete one on the shelf "
                "(under Runs), then try again."
            )
        if house.max_bytes is not None and has.bytes + more > house.max_bytes:
            raise CapError(f"{self._heavy(has, more)} Delete one on the shelf (under Runs), then try again.")

    def overweight(self, entries: Iterable[Entry]) -> str:
        """Why the visitor's runs may not grow any more, in words; empty if they may."""
        if self.host or self.house.max_bytes is None:
            return ""
        has = self.account(entries)
        if has.bytes <= self.house.max_bytes:
            return ""
        return f"{self._heavy(has)} This one stands until there is room: delete another one on the shelf (under Runs)."

    def _heavy(self, has: Account, more: int = 0) -> str:
        assert self.house.max_bytes is not None
        new = f", the new one would take {_megabytes(more)}" if more else ""
        return (
            f"Your {_runs(has.runs)} take {_megabytes(has.bytes)} on disk{new}, and {_megabytes(self.house.max_bytes)} "
            "is what a visitor's runs may take here."
        )


def keeper_of(store: RunStore) -> str:
    """Digest of the key of a run's keeper; empty if it is the host's."""
    said = store.meta(KEEPER)
    return said if isinstance(said, str) else ""


def weight(*folders: Path) -> int:
    """Bytes of runs' folders on disk; what is there under two names, as the checkpoints of forks are, counts once."""
    seen: set[tuple[int, int]] = set()
    total, waiting = 0, [str(folder) for folder in folders]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # Gone this moment.
                    if modes.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
                    elif (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        total += found.st_size
        except OSError:
            continue
    return total


def delete_run(name: str, results: Path, owners: Owners) -> None:
    """Deletes a run and all that it keeps; a driver that has it awake is asked to let go of it first.

    Raises:
        SSLLabError: there is none, it is not the visitor's, it is running, or nobody lets go of it.
    """
    folder = results / check_name(name)
    if folder.is_symlink():
        raise SSLLabError(f"{name} is a link to another place: delete it where it lies.")
    with open_run(name, results) as store:
        if not owners.may_steer(keeper_of(store)):
            raise SSLLabError(f"The run {name} is somebody else's, so that you cannot delete it.")
        _let_go(store)
        identity = str(store.meta("id"))
    # Out of sight as a whole, so that nobody meets half a run.
    grave = results / f".deleted-{uuid.uuid4().hex}"
    os.rename(folder, grave)
    with RunStore.open(grave / FILE_NAME, readonly=True) as store:
        woken = store.driven()
    if woken:
        os.rename(grave, folder)
        raise SSLLabError(f"The run {name} was just woken by somebody. It is still there.")
    (grave / FILE_NAME).unlink(missing_ok=True)
    shutil.rmtree(grave)
    stage.forget(results, name, identity)


def delete_runs(names: Sequence[str], results: Path, owners: Owners) -> None:
    """Deletes several runs, which pause first: none of them goes before each of them may.

    Raises:
        SSLLabError: as for :func:`delete_run`.
    """
    with ExitStack() as stack:
        stores = []
        for name in names:
            if (results / check_name(name)).is_symlink():
                raise SSLLabError(f"{name} is a link to another place: delete it where it lies.")
            stores.append(stack.enter_context(open_run(name, results)))
            if not owners.may_steer(keeper_of(stores[-1])):
                raise SSLLabError(f"The run {name} is somebody else's, so that you cannot delete it.")
        running = [store for store in stores if store.driven() and store.status().state == "running"]
        for store in running:
            store.send("pause")
        deadline = time.monotonic() + PAUSING
        while any(store.status().state == "running" for store in running) and time.monotonic() < deadline:
            time.sleep(0.02)
        _let_go(*stores)
    for name in names:
        delete_run(name, results, owners)


def _let_go(*stores: RunStore) -> None:
    """Waits until nobody drives runs that stand."""
    driven = [store for store in stores if store.driven()]
    for store in driven:
        if store.status().state == "running":
            raise SSLLabError(f"The run {store.name} is running: pause it first, then delete it.")
    for store in driven:
        store.send("sleep")
    deadline = time.monotonic() + LETTING_GO
    for store in driven:
        while store.driven():
            if time.monotonic() > deadline:
                raise SSLLabError(f"Whoever steps the run {store.name} does not let go of it. It is still there.")
            time.sleep(0.02)


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 10_000_000 else f"{count / 1e6:,.0f} MB"
