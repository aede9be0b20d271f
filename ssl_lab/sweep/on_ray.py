"""A Ray cluster: each task takes its share of a machine's cores and GPUs, wherever there is room.

Needs the extra ``ssl-lab[ray]``; nothing else imports Ray. Ray schedules, starts processes and finds out that a machine
is gone; what was lost is handed to it again (:func:`ssl_lab.sweep.work.work_off`).
"""

from __future__ import annotations

import math
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from ssl_lab import __version__
from ssl_lab.errors import SSLLabError
from ssl_lab.sweep.plan import Resources, Trial
from ssl_lab.sweep.work import Outcome, Task

BEGUN = ".begun-"
"""Before a task's number: a file in the study's folder while it is computed."""

HERE = ".here-"
"""Before a number: a file in the study's folder by which machines know that they see it."""

REACH = 60.0
"""Seconds in which a machine is to say that it reaches the study's folder; a busy one says it when it has begun."""

TRIES = 3
"""To start Ray on this machine."""

OFF = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # What a cluster's machines run is installed there; nothing is fetched for a task.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_SCHEDULER_EVENTS": "0",
}
"""Told to Ray before it is imported; nothing is sent anywhere."""


def the_ray() -> ModuleType:
    """Ray itself.

    Raises:
        SSLLabError: it is not installed.
    """
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise SSLLabError(
            "Ray is not installed here. Install it with: pip install 'ssl-lab[ray]'. Without --ray and --address the "
            "same study runs on this machine alone."
        ) from None
    return ray


class RayCrew:
    """A Ray cluster as a crew.

    Args:
        folder: of the study; all machines must reach it by this path.
        resources: what a task takes.
        address: of the cluster: ``auto`` for the one that this machine is part of, or ``HOST:PORT``; None for one that
            is started on this machine, for as long as the study goes on.

    Raises:
        SSLLabError: Ray is not installed, there is no such cluster, or a machine of it does not reach the folder or has
            another version of ssl-lab.
    """

    with_ray = True
    slots: int | None = None
    pause = 2.0

    def __init__(self, folder: Path, resources: Resources, address: str | None) -> None:
        self._ray = ray = the_ray()
        self._folder, self._resources = folder, resources
        self._own = not ray.is_initialized()
        if self._own:
            _connect(ray, address, resources)
        self._remote = ray.remote(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0, retry_exceptions=False
        )(_compute)  # fmt: skip
        self._running: dict[Any, tuple[str, str]] = {}
        self._stuck_since: float | None = None
        try:
            self._token = self._check_reach()
        except BaseException:
            self._leave()
            raise

    # ------------------------------------------------------------ as a crew

    @property
    def machines(self) -> int:
        """That compute now."""
        return len(self._nodes())

    def hand(self, task: Task) -> None:
        """Has a task computed."""
        ticket = uuid.uuid4().hex[:12]
        reference = self._remote.remote(self._folder, self._token, ticket, task.do, task.arguments)
        self._running[reference] = task.name, ticket

    def ended(self, seconds: float) -> list[Outcome]:
        """The tasks that ended; waits for one, so long at most."""
        ray = self._ray
        if not self._running:
            time.sleep(seconds)
            return []
        references = list(self._running)
        finished, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if not finished:
            finished, _ = ray.wait(references, num_returns=1, timeout=seconds)
        return [self._outcome(reference) for reference in finished]

    def _outcome(self, reference: Any) -> Outcome:
        ray = self._ray
        name, ticket = self._running.pop(reference)
        with suppress(OSError):
            (self._folder / f"{BEGUN}{ticket}").unlink(missing_ok=True)
        try:
            return Outcome(name, ray.get(reference))
        except ray.exceptions.TaskCancelledError:
            return Outcome(name)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(getattr(error, "cause", None), Exception) else error
            if isinstance(cause, SSLLabError):
                return Outcome(name, str(cause))
            return Outcome(name, f"{type(cause).__name__}: {_first_line(cause)}")
        except (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.TaskUnschedulableError) as error:
            return Outcome(name, f"Ray cannot run it: {_first_line(error)}")
        except ray.exceptions.OutOfMemoryError:
            return Outcome(name, "Its machine ran out of memory, and Ray ended its process.", lost=True)
        except ray.exceptions.RayError as error:
            return Outcome(name, f"Its process or its machine was lost ({type(error).__name__}).", lost=True)

    def let_go(self) -> None:
        """Drops the tasks that wait and have not begun; those that have are told by their flag."""
        for reference, (_, ticket) in list(self._running.items()):
            if not (self._folder / f"{BEGUN}{ticket}").exists():
                # One that begins this very moment sees the flag, and does nothing.
                with suppress(self._ray.exceptions.RayError, ValueError):
                    self._ray.cancel(reference, force=False)

    def trouble(self) -> str:
        """Why nothing moves, in words; empty if there is nothing to say."""
        if not self._running or any(self._fits(node) for node in self._nodes()):
            return ""
        needs = f"{self._resources.cpus:g} CPU" + (f" and {self._resources.gpus:g} GPU" if self._resources.gpus else "")
        return (
            f"No machine of the cluster has room for a trial, which takes {needs}. It begins when one joins that has."
        )

    def close(self) -> None:
        """Ends it; waits for what is under way."""
        self.let_go()
        deadline = time.monotonic() + 300.0
        while self._running and time.monotonic() < deadline:
            for reference, (_, ticket) in list(self._running.items()):
                if not (self._folder / f"{BEGUN}{ticket}").exists():
                    del self._running[reference]
            if self._running:
                self.ended(0.5)
        for leftover in self._folder.glob(f"{BEGUN}*"):
            leftover.unlink(missing_ok=True)
        with suppress(OSError):
            (self._folder / self._token).unlink(missing_ok=True)
        self._leave()

    def _leave(self) -> None:
        if self._own:
            self._ray.shutdown()

    # ------------------------------------------------------------ the cluster

    def _nodes(self) -> list[dict[str, Any]]:
        try:
            found = self._ray.nodes()
        except self._ray.exceptions.RayError:
            # The cluster does not answer; whether that lasts, the tasks will tell.
            return []
        return [node for node in found if node.get("Alive") and node.get("Resources", {}).get("CPU")]

    def _fits(self, node: dict[str, Any]) -> bool:
        has = node["Resources"]
        slack = 1e-6
        return bool(
            has.get("CPU", 0) + slack >= self._resources.cpus and has.get("GPU", 0) + slack >= self._resources.gpus
        )

    def _check_reach(self) -> str:
        """Whether every machine sees the study's folder; gives the name of the file that tells it from others."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray = self._ray
        # What one that was killed has left.
        for leftover in (*self._folder.glob(f"{HERE}*"), *self._folder.glob(f"{BEGUN}*")):
            leftover.unlink(missing_ok=True)
        token = f"{HERE}{uuid.uuid4().hex[:12]}"
        (self._folder / token).touch()
        asked = {}
        for node in self._nodes():
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ask = ray.remote(num_cpus=0, max_retries=0)(_reaches).options(scheduling_strategy=where)
            asked[ask.remote(self._folder, token, __version__)] = node.get("NodeManagerHostname") or node.get(
                "NodeManagerAddress"
            )
        finished, _ = ray.wait(list(asked), num_returns=len(asked), timeout=REACH) if asked else ([], [])
        for reference in finished:
            try:
                problem = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                problem = f"cannot load ssl-lab ({_first_line(error.cause)}). Install the same version on every machine"
            except ray.exceptions.RayError:
                # It has just gone; what it would have computed goes elsewhere.
                continue
            if problem:
                (self._folder / token).unlink(missing_ok=True)
                raise SSLLabError(f"The machine {asked[reference]} of the cluster {problem}.")
        return token


def _connect(ray: ModuleType, address: str | None, resources: Resources) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is not None:
        quiet.pop("include_dashboard")
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise SSLLabError(
                f"There is no Ray cluster at {address!r}: {_first_line(error)} Start one with: ray start --head, and "
                "on each further machine: ray start --address HOST:PORT"
            ) from None
        return
    from ssl_lab.cores import usable_cores

    # Logical cores: a trial that asks for more than there are runs all the same, as without Ray.
    cores = max(usable_cores(), math.ceil(resources.cpus))
    for left in reversed(range(TRIES)):
        try:
            ray.init(address="local", num_cpus=cores, **quiet)
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                raise SSLLabError(
                    f"Ray could not be started on this machine: {_first_line(error)} A machine that is very busy is "
                    "the usual reason: its parts wait 15 s for each other. Try again, or leave --ray away."
                ) from None


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


# ------------------------------------------------------------------ on a machine of the cluster


def _reaches(folder: Path, token: str, version: str) -> str:
    """What is wrong with this machine; empty if nothing is."""
    if not (folder / token).is_file():
        return f"does not see the study's folder {folder}. {SHARED}"
    return "" if __version__ == version else f"has ssl-lab {__version__}, and this one {version}"


SHARED = "Give a folder by --out that lies on storage which all machines reach by the same path, such as an NFS share"


def _compute(folder: Path, token: str, ticket: str, do: Callable[..., str], arguments: tuple[Any, ...]) -> str:
    """Runs a task here, with a file in the study's folder meanwhile that says that it has begun."""
    if not (folder / token).is_file():
        raise SSLLabError(f"The machine {socket.gethostname()} does not see the study's folder {folder}. {SHARED}.")
    mark = folder / f"{BEGUN}{ticket}"
    mark.touch()
    try:
        return do(*arguments)
    finally:
        mark.unlink(missing_ok=True)


def here() -> str:
    """What this machine of a cluster is called: its name, and the beginning of Ray's number of it."""
    import ray

    return f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:6]})"


def run_trial_here(trial: Trial, folder: Path, threads: int, flag: Path, device: str | None = None) -> str:
    """:func:`ssl_lab.sweep.trial.run_trial` on a machine of a cluster."""
    from ssl_lab.sweep.trial import run_trial

    return run_trial(trial, folder, threads, flag, device, here())
