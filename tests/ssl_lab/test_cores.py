"""Cores that a process may use, by folders as control groups have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssl_lab.cores import usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)


def groups(tmp_path: Path, own: str, **files: str) -> int:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    return usable_cores(tmp_path / "cgroup", tmp_path / "own")


def test_no_groups_at_all(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "nothing") == 8


def test_no_limit(tmp_path: Path) -> None:
    assert groups(tmp_path, "0::/\n", cpu_max="max 100000\n") == 8


@pytest.mark.parametrize(("quota", "cores"), [(100_000, 1), (50_000, 1), (250_000, 2), (3_200_000, 8)])
def test_a_container_of_version_2(tmp_path: Path, quota: int, cores: int) -> None:
    assert groups(tmp_path, "0::/\n", cpu_max=f"{quota} 100000\n") == cores


def test_the_tightest_group_above_holds(tmp_path: Path) -> None:
    found = groups(
        tmp_path, "0::/pods/mine/box\n",
        pods__cpu_max="200000 100000", pods__mine__cpu_max="400000 100000", pods__mine__box__cpu_max="max 100000",
    )  # fmt: skip
    assert found == 2


def test_version_1(tmp_path: Path) -> None:
    folder = tmp_path / "cgroup" / "cpu,cpuacct" / "docker" / "abc"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert groups(tmp_path, "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n") == 3
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert groups(tmp_path, "3:cpu,cpuacct:/docker/abc\n") == 8


def test_nonsense_is_no_limit(tmp_path: Path) -> None:
    assert groups(tmp_path, "nonsense", cpu_max="much\n") == 8
    assert groups(tmp_path, "0::/../../etc\n", cpu_max="1.5 100000") == 8
