"""The rules of the house survive the way through a kernel's environment."""

from __future__ import annotations

import pytest

from lab.house import House, digest

RULES = House(served=True, own_only=True, host_key=digest("k"), max_visitors=30, max_runs=12, max_bytes=5_000_000)


@pytest.mark.parametrize("house", [House(), RULES, House(served=True), House(max_visitors=0)])
def test_a_kernel_hears_what_the_server_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RULES.environment():
        monkeypatch.delenv(name, raising=False)
    for name, value in house.environment().items():
        monkeypatch.setenv(name, value)
    assert House.here() == house


def test_a_digest_tells_keys_apart_and_of_nothing_is_nothing() -> None:
    assert digest("") == ""
    assert len({digest(key) for key in ("a", "b", "A", "\ud800")}) == 4
