"""``python -m benchmarks.record``: is all that is done on record, and is a long run drawn as fast as a short one?

Two tables. The first counts: random sessions through the real widgets, each replayed, and replayed without each of its
knob events. The second measures a run of a million steps with ten thousand spectra in a real Chromium.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.app import app, chromium, executable, kernels_of, open_bench
from benchmarks.long_run import DIM, SPECTRA, STEPS, long_run
from benchmarks.machine import hardware, versions
from ssl_lab import RunStore


def sessions(count: int) -> str:
    """Random sessions: tried and failed."""
    from ssl_lab.datasets import load_dataset
    from tests.lab.random_scripts import session
    from tests.ssl_lab.conftest import small_config

    data = load_dataset(small_config())
    unequal = unnoticed = events = steps = 0
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            found = session(seed, Path(folder), data)
        unequal += not found.bit_equal
        unnoticed += len(found.unnoticed)
        events, steps = events + found.events, steps + found.steps
        if not found.bit_equal or found.unnoticed:
            print(f"  session {seed}: {found}", flush=True)
    return (
        "| test | tried | failed |\n| --- | --- | --- |\n"
        f"| session through the widgets replays bit-equal ({steps:,} steps in all) | {count} | {unequal} |\n"
        f"| a dropped knob event makes the replay differ | {events} | {unnoticed} |\n"
    )


_OPEN = """async (name) => {
  const row = [...document.querySelectorAll('.ssl-shelf tr')]
    .find((tr) => tr.querySelector('.ssl-name b')?.textContent === name).querySelector('button');
  const begun = performance.now();
  row.click();
  return await drawn(name, null, begun);
}"""

_SCRUB = """async ([name, step]) => {
  const bar = document.querySelector('.ssl-timeline input[type=range]');
  const begun = performance.now();
  bar.value = step;
  bar.dispatchEvent(new Event('input', { bubbles: true }));
  return await drawn(name, step, begun);
}"""

# The headline is written after all pictures: when it says the step, they have all been drawn, but for the next frame.
_DRAWN = """() => {
window.drawn = async (name, step, begun) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  while (performance.now() - begun < 20000) {
    const text = document.querySelector('.ssl-headline')?.textContent ?? '';
    const now = document.querySelector('.ssl-headline b[data-step]')?.dataset.step;
    if (text.startsWith(name) && (step === null ? Number(now) > 0 : now === String(step))) {
      await frame();
      await frame();
      return performance.now() - begun;
    }
    await frame();
  }
  throw new Error(`not drawn: ${name} ${step}`);
};
}"""


def scrubbing(steps: int, opens: int, positions: int) -> str:
    """A long run and a short one, opened from the shelf and scrubbed through: milliseconds until all is drawn."""
    rows = ["| measure | n | median | 95th percentile | most |", "| --- | --- | --- | --- | --- |"]

    def row(name: str, values: list[float], unit: str = "ms") -> None:
        high = sorted(values)[max(0, -(-95 * len(values) // 100) - 1)]
        rows.append(
            f"| {name} | {len(values)} | {statistics.median(values):.0f} {unit} | {high:.0f} {unit} | "
            f"{max(values):.0f} {unit} |"
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = long_run(folder, steps)
        short = RunStore.open(folder / "long").fork("short", 1000)
        short.set_status(state="done")
        short.close()
        size = (folder / "long" / "run.sqlite").stat().st_size / 1e6
        rng = np.random.default_rng(1)
        with app(folder) as served:
            served.settle()
            with chromium() as browser:
                shown = open_bench(browser, served.bench)
                shown.evaluate(_DRAWN)
                shown.wait_for_selector(".ssl-shelf >> text=long", timeout=20_000)
                for run, last in (("long", steps), ("short", 1000)):
                    opened = []
                    for _ in range(opens):
                        other = "short" if run == "long" else "long"
                        shown.evaluate(_OPEN, other)
                        time.sleep(1.0)
                        opened.append(shown.evaluate(_OPEN, run))
                        time.sleep(1.0)
                    row(f"opening a run of {last:,} steps from the shelf", opened)
                    scrubbed = []
                    for step in rng.integers(1, last, positions):
                        scrubbed.append(shown.evaluate(_SCRUB, [run, int(step)]))
                        time.sleep(0.25)
                    row(f"a scrub position of a run of {last:,} steps", scrubbed)
                    if run == "long":
                        pss, rss = kernels_of(folder / "long" / "run.sqlite")[0]
    rows.append(
        f"| file of {steps:,} steps, {SPECTRA:,} spectra of {DIM} | 1 | {size:.0f} MB | | written in {written:.0f} s |"
    )
    rows.append(f"| memory of the page's kernel after scrubbing it | 1 | {pss:.0f} MB | | resident {rss:.0f} MB |")
    return "\n".join(rows)


def main() -> None:
    """Tries, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sessions and positions")
    parser.add_argument("--only", choices=("sessions", "scrubbing"), help="one of the two")
    options = parser.parse_args()
    print(hardware(), versions(), time.strftime("%Y-%m-%d"), sep="\n", end="\n\n")
    if options.only != "scrubbing":
        print(sessions(5 if options.quick else 50), flush=True)
    if options.only != "sessions":
        if executable() is None:
            print("No chromium here: the measurements in the browser are left out.")
            return
        print(scrubbing(STEPS, 3 if options.quick else 10, 20 if options.quick else 100))


if __name__ == "__main__":
    main()
