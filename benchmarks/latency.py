"""Section ``latency``: from a knob turned in the page to its effect, and to the pictures that show it.

Everything on the page is timed inside it, from the event of the control to the first frame that shows what was waited
for; the engine's side is by the times that it writes into the run's file, on the same machine's clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.app import NO_BROWSER, executable, open_bench, press, run_name
from benchmarks.plan import Plan
from benchmarks.table import Entry, Missing, Row, high
from ssl_lab.store import RunStore, open_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

WHERE = "digits, DirectPred, training at full speed"

# (knob, value as the control has it, value as the engine's echo has it)
_TURNS = (
    ("predictor", 3, "directcopy"),
    ("centred", True, "True"),
    ("predictor", 2, "directpred"),
    ("centred", False, "False"),
)

_TURN = """([knob, value, echoed, number]) => new Promise((done, fail) => {
  const row = document.querySelector(`.ssl-knob-${knob}`);
  const timeline = document.querySelector('.ssl-timeline');
  const panel = [...document.querySelectorAll('.ssl-panel')]
    .find((box) => box.querySelector('h3')?.textContent === 'Loss');
  const waited = {
    echo: [row, () => row.querySelector('.ssl-engine-value [data-value]')?.dataset.value === echoed],
    mark: [timeline, () => timeline.querySelector('.ssl-event-list li b')?.textContent === number],
    // The number that a panel writes at the event, in the colour of events: an axis may have the same at a tick.
    panel: [panel, () => [...panel.querySelectorAll('svg text')]
      .some((text) => text.textContent === number && getComputedStyle(text).fill === 'rgb(213, 94, 0)')],
  };
  const found = {};
  const watches = [];
  const end = (how, what) => { for (const watch of watches) watch.disconnect(); clearTimeout(late); how(what); };
  const late = setTimeout(() => end(fail, new Error(`not shown: ${knob} ${echoed} ${JSON.stringify(found)}`)), 20000);
  const begun = performance.now();
  found.at = Date.now();
  for (const [name, [root, there]] of Object.entries(waited)) {
    const watch = new MutationObserver(() => {
      if (!there()) return;
      watch.disconnect();
      requestAnimationFrame(() => {
        found[name] = performance.now() - begun;
        if (Object.keys(waited).every((each) => each in found)) end(done, found);
      });
    });
    watch.observe(root, { childList: true, subtree: true, attributes: true, characterData: true });
    watches.push(watch);
  }
  const control = row.querySelector('select, input[type=checkbox]');
  if (control.type === 'checkbox') control.click();
  else {
    control.selectedIndex = value;
    control.dispatchEvent(new Event('change', { bubbles: true }));
  }
})"""


@dataclass(frozen=True)
class Turn:
    """Milliseconds from a control's event in the page, and what the record says of it."""

    effect: float
    """Until the event is logged; the next step follows the new rule."""
    taken: float
    """From the command in the file until the event is logged."""
    echo: float
    """Until the page shows the engine's new value beside the knob."""
    mark: float
    """Until the page lists the event under the timeline."""
    panel: float
    """Until a panel shows the event."""


def measure(plan: Plan) -> Iterator[Entry]:
    """Medians and 95th percentiles over many turns at random moments."""
    if executable() is None:
        yield Missing("knob to effect and to picture", NO_BROWSER)
        return
    count = 8 if plan.quick else 60
    served, browser = plan.stage.up()
    page = open_bench(browser, served.bench)
    served.settle(opened=True)
    press(page, "Run")
    page.wait_for_selector(".ssl-state.ssl-running")
    page.wait_for_timeout(1500)
    with open_run(run_name(page), served.results, readonly=True) as store:
        first = store.status()
        turns = list(_turns(page, store, count))
        last = store.status()
    press(page, "Pause")
    page.wait_for_selector(".ssl-state.ssl-paused")
    page.close()
    rate = (last.step - first.step) / (last.heartbeat - first.heartbeat)
    besides = [f"a step takes {1000 / rate:.1f} ms here"]
    yield _row("knob to effect: control in the page to the event in the record", [t.effect for t in turns], besides)
    yield _row("command in the file to the event in the record", [t.taken for t in turns], besides)
    why = "a command's answer and its event are written at once, so that the record's count is 0 whatever happens"
    yield Missing("steps between a command's taking and its effect", why)
    yield _row("knob to picture: to the engine's value beside the knob", [t.echo for t in turns])
    yield _row("knob to picture: to the event under the timeline", [t.mark for t in turns])
    yield _row("knob to picture: to the event in a panel", [t.panel for t in turns])


def _row(what: str, values: list[float], besides: list[str] | None = None) -> Row:
    return Row(f"{what}, {WHERE}", "ms", values, [high(values, "ms"), *(besides or [])])


def _turns(page: Page, store: RunStore, count: int) -> Iterator[Turn]:
    chance = random.Random(0)
    # The first turn makes the marks, of which there are none before it: it is a rehearsal.
    for number in range(1, count + 2):
        knob, value, echoed = _TURNS[(number - 1) % len(_TURNS)]
        # Not in step with the page's own rhythm.
        page.wait_for_timeout(1000 * chance.uniform(0.4, 1.1))
        seen: dict[str, Any] = page.evaluate(_TURN, [knob, value, echoed, str(number)])
        event = store.events(after=number - 1)[0]
        (sent,) = next(store.rows("SELECT time FROM commands WHERE kind = 'set' ORDER BY id DESC LIMIT 1"))
        if number == 1:
            continue
        yield Turn(
            effect=1000 * event.time - seen["at"], taken=1000 * (event.time - sent),
            echo=seen["echo"], mark=seen["mark"], panel=seen["panel"],
        )  # fmt: skip
