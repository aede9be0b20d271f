"""What axe-core finds on our pages, and whether they can be used without a mouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Watched, axe, axe_faults


def written(tmp_path: Path, body: str) -> str:
    """The address of a page that holds ``body``."""
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><html lang=en><title>A page</title><body><main><h1>A page</h1>{body}</main>")
    return path.as_uri()


def test_axe_finds_what_is_wrong_and_says_where(open_page: Callable[..., Watched], tmp_path: Path) -> None:
    good = open_page(written(tmp_path, "<label>Rate <input></label>"))
    axe(good)
    bad = open_page(written(tmp_path, "<input id=nameless><p id=faint style='color:#ccc;background:#fff'>Hardly seen"))
    assert {fault.rule for fault in axe_faults(bad)} == {"label", "color-contrast"}
    with pytest.raises(AssertionError, match=r"(?s)^2 that axe finds grave.*#nameless"):
        axe(bad)
    axe(bad, within="h1")
