"""``Sweeps``: the sweeps of the results folder, trial by trial and label by label, while they run and afterwards."""

from __future__ import annotations

import base64
import html
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as w

from lab.controls import guarded
from lab.doors import is_text
from lab.house import House
from lab.links import linked_text
from lab.page import Page
from lab.style import CSS
from lab.sweeping.chart import LabelChart
from lab.sweeping.example import FILE, Example
from lab.sweeping.finder import Finder
from lab.sweeping.style import CSS as OWN_CSS
from lab.sweeping.summary import lines, measure, sentence, standing, table
from lab.sweeping.table import SweepTable, fixed, listed, moving
from lab.words import READING, Changes, mark
from lab.work import State
from ssl_lab.atomic import cannot_write
from ssl_lab.errors import ConfigError, SSLLabError
from ssl_lab.store import check_name, results_dir
from ssl_lab.sweep.progress import STOP, SweepState, SweepView, TrialView
from ssl_lab.sweep.table import as_csv, results

LIST_PAUSE = 3.0
"""Seconds between looks at the folder of sweeps."""
WATCH_ONLY = "In a class the host starts and stops sweeps; everybody sees them grow."
BUSY = ("starting", "working", "stopping")

START: Mapping[State, str] = {
    "none": "Run the example here",
    "begun": "Go on with the example",
    "starting": "Starting…",
    "working": "Running…",
    "stopping": "Stopping…",
    "done": "Run the example again",
}

STANDS: Mapping[SweepState, str] = {"waiting": "not begun", "failed": "some failed"}
"""What is said of a sweep's state, where it is not the word for it."""

NOTHING = (
    "<h2>No sweep yet</h2><p>A sweep is one small file that asks for many runs: every combination of some settings, "
    "each with several seeds. Run the example here, or give the command; what is in the results folder shows up by "
    "itself.</p>"
)


class Sweeps(Page):
    """The page; display it as the last line of a cell.

    Args:
        sweep: the sweep to open, by the name of its folder; default the newest, or the one that runs.
        results: folder of runs and studies; default ``SSL_LAB_RESULTS`` or ``./results``.
        house: the rules of the house; default as the kernel's environment says.
        example: the study that is run from the page; default the one that comes with the lab.
    """

    def __init__(
        self,
        sweep: str = "",
        *,
        results: str | Path | None = None,
        house: House | None = None,
        example: str | Path | None = None,
    ) -> None:
        super().__init__("Sweeps", results_dir(results), house)
        self.finder = Finder(self.results)
        self.example = Example(self.results, None if example is None else Path(example))
        self._name = check_name(sweep) if sweep else ""
        """Of the sweep that is shown; empty where there is none."""
        self._asked = bool(sweep)
        """Whether somebody asked for this one."""
        self._came = False
        self._list_due = 0.0
        self._view: SweepView | None = None
        self._spoken: tuple[str, float] = ("", float("-inf"))
        self._choose_lock = threading.RLock()
        self._build()
        # With all that may come to be on it.
        self._open()
        self._show()
        # After the doors are closed, which give each control a way in of its own.
        self._choose_lock = guarded(self.choose)
        self._begin_to_publish()
        self.table.on_msg(self._on_table)

    def _build(self) -> None:
        self.choose = w.Dropdown(options=[], description="Sweep", layout=w.Layout(width="auto", min_width="0"))
        self.choose.add_class("ssl-choose")
        self.choose.observe(lambda _: self._do(self._choose), names="value")
        self.nothing, self.status, self.bar, self.standing, self.lines = (w.HTML() for _ in range(5))
        self.stop = w.Button(description="Stop", disabled=True, tooltip="Has whoever works on this sweep save and stop")
        self.stop.on_click(lambda _: self._do(self._stop))
        head = w.HBox([self.status, self.stop])
        head.add_class("ssl-standing")
        self.chart = LabelChart()
        # The bench's page looks into the usual folder alone; a cell can name another one.
        self.table = SweepTable(folder="" if self.results == results_dir() else str(self.results))
        self.lines_box = w.Box([self.lines])
        self.lines_box.add_class("ssl-lines")
        summary = w.GridBox([self.chart.widget, self.lines_box])
        summary.add_class("ssl-summary")
        self.summary = summary
        self.shown = w.VBox(
            [self.choose, head, self.bar, self.standing, summary, self.table],
            layout=w.Layout(width="100%", overflow="visible"),
        )
        self.main = w.VBox([self.banner, self.nothing, self.shown])
        self.main.add_class("ssl-main")

        self.begin = w.Button(description=START["none"])
        self.begin.on_click(lambda _: self._do(self._begin))
        buttons = w.HBox([self.begin])
        buttons.add_class("ssl-buttons")
        self.words = w.HTML()
        side = w.VBox([w.HTML(_about(self.example.file)), buttons, self.words, w.HTML(COMMAND)])
        side.add_class("ssl-side")
        self.body = w.GridBox([self.main, side])
        self.body.add_class("ssl-body")
        self.widget = w.VBox([w.HTML(f"<style>{CSS}{OWN_CSS}</style>"), self.browser, self.body])
        for name in ("ssl-bench", "ssl-sweeps"):
            self.widget.add_class(name)

    # ------------------------------------------------------------ what a person does: leaves word, no more

    def _on_table(self, _table: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if is_text(name := content.get("error")):
            self._do(lambda: self._tell_error(name))
        elif content.get("csv") is True:
            self._do(self._save)

    # ------------------------------------------------------------ what the publisher's thread does

    def _come(self) -> None:
        """The sweep of the address, or the one that runs here."""
        if self._came:
            return
        self._came = True
        try:
            linked = linked_text(self.browser.query or {}, "sweep")
            if linked:
                self._turn_to(check_name(linked))
                self.finder.get(linked)
        except SSLLabError as error:
            self._name, self._asked = "", False
            raise ConfigError(f"The link cannot be followed. {error}") from None

    def _choose(self) -> None:
        with self._choose_lock:
            chosen = self.choose.value
        # What is written here is heard here too.
        if chosen is not None and chosen != self._name:
            self._complaint = ""
            self._turn_to(str(chosen))

    def _turn_to(self, name: str) -> None:
        """Shows a sweep, as soon as it is there."""
        self._name, self._asked, self._look_due, self._list_due = name, True, 0.0, 0.0

    def _begin(self) -> None:
        self._allowed()
        if self.example.state(self.example.finished) == "done":
            self.example.set_aside()
        self.example.start()
        self._complaint = ""
        self._turn_to(self.example.name)

    def _stop(self) -> None:
        self._allowed()
        if self._name == self.example.name:
            self.example.stop()
        elif self._view is not None and self._view.working:
            try:
                (self._view.folder / STOP).touch()
            except OSError as error:
                raise cannot_write(self._view.folder, error) from None

    def _allowed(self) -> None:
        if not self._may_work():
            raise SSLLabError(WATCH_ONLY)

    def _tell_error(self, name: str) -> None:
        trial = next((t for t in self._view.trials if t.name == name), None) if self._view is not None else None
        if trial is not None:
            self.table.send({"error": trial.name, "text": trial.error})

    def _save(self) -> None:
        if self._view is not None:
            # What the command line writes as results.csv once it ends.
            self.table.send({"save": f"{self._name}.csv", "text": as_csv(results(self._view)).decode()})

    def _show(self) -> bool:
        if time.monotonic() >= self._list_due:
            self._list_due = time.monotonic() + LIST_PAUSE
            self._list()
        error = self._look()
        drawn = self._show_example()
        self._warn(self._complaint or self.example.trouble, error)
        view = self._view
        by = measure(view) if view is not None else None
        self._arrange(view is not None, by is not None)
        self.browser.sweep = self._name
        if view is None:
            return drawn
        found = lines(view, by)
        said = sentence(view, found)
        self._speak(said)
        badge = f"<span class='ssl-state ssl-{view.state}'>{STANDS.get(view.state, view.state)}</span>"
        drawn |= self._set(self.status, f"<p class='ssl-sentence'>{badge} {html.escape(said)}</p>")
        self._set(self.bar, f"<progress max='1' value='{view.share:.3f}' aria-label='The whole sweep'></progress>")
        words = [standing(view), view.runner.message]
        rows = listed(view)
        if len(rows) < len(view.trials):
            which = f"{rows[0] + 1:,} to {rows[-1] + 1:,} of {len(view.trials):,}"
            words.append(f"The trials {which} are listed below; the CSV has all.")
        self._set(self.standing, "".join(f"<p>{html.escape(line)}</p>" for line in dict.fromkeys(words) if line))
        if by is not None:
            drawn |= self.chart.update(found, by.name)
        self._set(self.lines, table(found, by))
        # In one message.
        with self.table.hold_sync():
            state = Changes(self.table)
            state.set("sweep", self._name)
            state.set("trials", fixed(view))
            live = moving(view)
            drawn |= bool(live != self.table.live)
            state.set("live", live)
        return drawn

    def _arrange(self, there: bool, measured: bool) -> None:
        """Puts on the page what there is to see: a figure without a place cannot be laid out."""
        Changes(self.nothing).set("value", "" if self._name else NOTHING)
        Changes(self.summary).set("children", (self.chart.widget, self.lines_box) if measured else ())
        tail = (self.shown,) if there else (self.choose,) if self._name else ()
        Changes(self.main).set("children", (self.banner, self.nothing, *tail))
        mark(self.body, "ssl-none", not self._name)

    def _look(self) -> str:
        """Reads how the sweep stands that is shown; what is wrong, in words."""
        self._view = None
        if not self._name:
            return ""
        try:
            self._view = self._for_the_visitor(self.finder.get(self._name))
        except (SSLLabError, OSError) as error:
            if self._name == self.example.name and self.example.state(False) in BUSY:
                return ""
            return str(error)
        return ""

    def _for_the_visitor(self, view: SweepView) -> SweepView:
        """The same with what the visitor is told of its errors, on the page as in the CSV."""

        def told(trial: TrialView) -> TrialView:
            words = self._told(trial.error)
            if words == trial.error:
                return trial
            return replace(trial, record=trial.record.model_copy(update={"error": words}))

        runner = view.runner.model_copy(update={"message": self._told(view.runner.message)})
        return replace(view, runner=runner, trials=tuple(told(trial) for trial in view.trials))

    def _list(self) -> None:
        """The list of sweeps, with the one that is shown."""
        names = self.finder.names()
        if not self._asked:
            self._name = self._usual(names)
        options = names if not self._name or self._name in names else [self._name, *names]
        with self._choose_lock:
            if list(self.choose.options) != options:
                with self.choose.hold_sync():
                    self.choose.options = options
                    self.choose.value = self._name or None
            elif self.choose.value != (self._name or None) and self._actions.empty():
                self.choose.value = self._name or None

    def _usual(self, names: list[str]) -> str:
        """What is shown to somebody who asked for nothing: the newest."""
        return names[0] if names else ""

    def _show_example(self) -> bool:
        state, allowed = self.example.state(self.example.finished), self._may_work()
        Changes(self.begin).set("description", START[state])
        Changes(self.begin).set("disabled", state in BUSY or not allowed)
        mine = self._name == self.example.name and state in ("starting", "working")
        works = mine or (self._view is not None and self._view.working and self._name != self.example.name)
        Changes(self.stop).set("disabled", not works or not allowed)
        words = "" if allowed else f"<p class='ssl-hint'>{WATCH_ONLY}</p>"
        if state == "starting":
            words += "<p>A process is starting; it loads torch.</p>"
        elif state in ("working", "stopping") and self._name != self.example.name:
            words += f"<p>It runs: choose {self.example.name} to see it.</p>"
        return self._set(self.words, words)

    def _speak(self, said: str) -> None:
        """Has a screen reader read the sentence, when it has read the one before."""
        last, when = self._spoken
        if said != last and time.monotonic() - when > READING:
            self._spoken = said, time.monotonic()
            self.browser.announce = said

    def close(self) -> None:
        """Stops publishing and frees the widgets; a sweep that runs goes on."""
        self.publisher.stop()
        self.chart.close()
        super().close()


COMMAND = (
    "<h2>Your own</h2><p>Change the file, give your study a name, and give the command in a terminal; on a Ray cluster "
    "it uses all machines. What was cut goes on with the same command.</p>"
    "<textarea readonly rows='1' spellcheck='false' aria-label='The command'>ssl-lab sweep study.toml</textarea>"
)


def _about(file: Path) -> str:
    """The example's file, as it is, and a way to have it."""
    text = file.read_text(encoding="utf-8")
    data = base64.b64encode(text.encode()).decode()
    return (
        "<h2>A sweep is one file</h2><p>What all trials have, what is tried in every combination, and the seeds. Each "
        f"trial is a run like any other.</p><pre class='ssl-toml' tabindex='0' aria-label='The example’s file'>"
        f"{html.escape(text.strip())}</pre>"
        f"<p><a download='{FILE}' href='data:text/plain;base64,{data}'>Save {FILE}</a></p>"
    )
