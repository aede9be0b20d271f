"""How many CPU cores a process may really use: in a container the machine's count is not the answer."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores by the process's affinity and its control groups' quota (Docker, Kubernetes, Binder), at least 1.

    A quota of half a core counts as one, of 1.5 as one too: a second thread would mostly wait.

    Args:
        root: where control groups are mounted.
        own: which of them this process is in.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # neither macOS nor Windows has it
        cores = os.cpu_count() or 1
    quotas = [quota for folder in _groups(root, own) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *(math.floor(quota) for quota in quotas)]))


def _groups(root: Path, own: Path) -> list[Path]:
    """The folders of the process's group and of all groups above it: the tightest quota holds."""
    folders = [root, root / "cpu", root / "cpu,cpuacct"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for top in (root, root / "cpu", root / "cpu,cpuacct"):
            folders += [top.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    return folders


def _quota(folder: Path) -> float | None:
    """Cores that a group may use: version 2's ``cpu.max``, or version 1's pair; None for no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
    except ValueError:  # "max": no limit
        return None
