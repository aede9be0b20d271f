"""The pictures of the README and the docs, taken again from the real bench: ``python -m benchmarks.pictures``.

A run of DirectPred on the digits whose predictor is turned to none and back, in Chromium, as anybody could do it.
Writes ``bench.png``, ``bench-dark.png`` and ``knob.webp`` to docs/images.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from benchmarks.app import NO_BROWSER, app, executable, press

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH, HEIGHT, TALL = 1200, 760, 1090
"""Of the window, in pixels: for the animation, and for the still pictures."""
LARGEST = 1_500_000
"""Bytes of the animation."""

TURNS = ((150, "none"), (300, "DirectPred"))
"""After so many steps the predictor's mode becomes this."""
END = 560
EVERY = 10
"""Steps from frame to frame."""

BENCH = "voila/render/01-bench.ipynb?preset=directpred&dataset=digits&seed=0"


def step(page: Page) -> int:
    """The step that the page shows."""
    return int(page.locator(".ssl-headline b[data-step]").first.get_attribute("data-step") or 0)


def frame(page: Page) -> Image.Image:
    """The window as it is."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def turned(page: Page) -> list[Image.Image]:
    """Runs the bench, turns the knob, and looks all the while."""
    frames, turns, due = [frame(page)], list(TURNS), 0
    press(page, "Run")
    while (now := step(page)) < END:
        if turns and now >= turns[0][0]:
            page.locator(".ssl-knob-predictor select").select_option(label=turns.pop(0)[1])
        if now >= due:
            frames.append(frame(page))
            due = now + EVERY
        time.sleep(0.02)
    press(page, "Pause")
    page.wait_for_selector(".ssl-state.ssl-paused")
    page.wait_for_timeout(1500)
    frames.append(frame(page))
    return frames


def write_picture(picture: Image.Image, path: Path) -> None:
    """A PNG of 256 colours, which is all that the page has, but for soft edges."""
    picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def write_animation(frames: list[Image.Image], path: Path) -> None:
    """An endless animation of at most ``LARGEST`` bytes; its last picture stands for a while."""
    for quality in (80, 70, 60, 50, 40, 30):
        durations = [800, *[160] * (len(frames) - 2), 3000]
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=quality, method=4
        )
        if path.stat().st_size <= LARGEST:
            return
    sys.exit(f"{path} has {path.stat().st_size:,} bytes: take fewer frames.")


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder to write to; default docs/images")
    out: Path = parser.parse_args().out
    chromium = executable()
    if chromium is None:
        sys.exit(f"Pictures cannot be taken: {NO_BROWSER}.")
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, app(Path(folder)) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(served.url + BENCH)
        page.wait_for_selector(".ssl-state.ssl-paused", timeout=90_000)
        page.wait_for_selector(".ssl-bench .bqplot", timeout=60_000)
        write_animation(turned(page), out / "knob.webp")
        # A window, not the whole page: the bar of the timeline stays at the window's foot.
        page.set_viewport_size({"width": WIDTH, "height": TALL})
        looks: tuple[tuple[Literal["light", "dark"], str], ...] = (("light", "bench.png"), ("dark", "bench-dark.png"))
        for scheme, name in looks:
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(2000)
            write_picture(frame(page), out / name)
        browser.close()
    for path in sorted(out.iterdir()):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
