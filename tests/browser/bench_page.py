"""What a visitor sees and presses on the bench."""

from __future__ import annotations

from tests.browser.conftest import Watched, eventually

BENCH = "/voila/render/01-bench.ipynb"
"""Where the bench is with a new run."""


def ready(page: Watched) -> None:
    page.page.wait_for_selector(".ssl-bench .bqplot", timeout=60_000)
    eventually(lambda: state(page) in ("paused", "running"), "a run that takes commands", 90)


def state(page: Watched) -> str:
    badge = page.page.locator(".ssl-state")
    return str(badge.first.inner_text()) if badge.count() else ""


def step(page: Watched) -> int:
    return int(page.page.locator(".ssl-headline b[data-step]").first.get_attribute("data-step"))


def press(page: Watched, name: str) -> None:
    page.page.locator(".ssl-bench").get_by_role("button", name=name, exact=True).first.click()


def engine_value(page: Watched, knob: str) -> str:
    return str(page.page.locator(f".ssl-knob-{knob} .ssl-engine-value [data-value]").first.get_attribute("data-value"))


def curves(page: Watched, panel: str) -> list[str]:
    """The paths that a panel draws."""
    box = page.page.locator(".ssl-panel", has=page.page.get_by_role("heading", name=panel, exact=True))
    return [str(d) for d in box.locator("svg path.line").evaluate_all("all => all.map(p => p.getAttribute('d'))")]
