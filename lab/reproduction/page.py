"""``Reproduction``: the papers' table 1 and figure 1, in print and as a study has them, and a study that runs here."""

from __future__ import annotations

import base64
import html
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as w

from lab.controls import guarded
from lab.house import House
from lab.page import Page
from lab.reproduction.bets import BETS, Bet
from lab.reproduction.chart import Shown, StudyChart
from lab.reproduction.command import CommandBox
from lab.reproduction.numbers import BASELINES, FIGURE1, TABLE1, Sample, in_print, line
from lab.reproduction.pipeline import Pipeline, Size
from lab.reproduction.studies import SHIPPED, Studies, Study
from lab.reproduction.style import CSS as OWN_CSS
from lab.reproduction.table import table
from lab.reproduction.words import about, legend, verdict
from lab.style import CSS
from lab.words import Changes
from lab.work import State
from ssl_lab.errors import SSLLabError
from ssl_lab.store import results_dir

LIST_PAUSE = 3.0
"""Seconds between looks at the folder of studies."""
LARGEST_REPORT = 1_500_000
"""Bytes of a report that is put into the page to be saved."""
WATCH_ONLY = "In a class the host starts and stops the study; everybody sees it grow."

START: Mapping[State, str] = {
    "none": "Run the study here",
    "begun": "Go on with the study",
    "starting": "Starting…",
    "working": "Running…",
    "stopping": "Stopping…",
    "done": "Run it again",
}


class BetBox:
    """A question, its choices, and what became of the bet.

    Args:
        bet: the question.
        made: called in the page's thread when a choice is made.
    """

    def __init__(self, bet: Bet, made: Callable[[], object]) -> None:
        self.bet = bet
        self.chosen: int | None = None
        self.choice = w.RadioButtons(options=list(bet.choices), index=None, layout=w.Layout(width="auto"))
        self.lock = threading.RLock()
        self.question = w.HTML(f"<p class='ssl-question'>{html.escape(bet.question)}</p>")
        self.verdict = w.HTML()
        self.widget = w.VBox([self.question, self.choice, self.verdict])
        self.widget.add_class("ssl-bet")
        self.choice.observe(lambda _: made(), names="index")

    def take(self) -> None:
        """The first choice is the bet. Only the publisher's thread calls it."""
        with self.lock:
            if self.chosen is None and self.choice.index is not None:
                self.chosen = int(self.choice.index)


class Reproduction(Page):
    """The page; display it as the last line of a cell.

    Args:
        results: folder of runs and studies; default ``SSL_LAB_RESULTS`` or ``./results``.
        house: the rules of the house; default as the kernel's environment says.
        size: how large the study is that is run here.
    """

    def __init__(
        self, *, results: str | Path | None = None, house: House | None = None, size: Size | None = None
    ) -> None:
        super().__init__("Reproduce", results_dir(results), house)
        self.studies = Studies(self.results)
        self.pipeline = Pipeline(self.results, size)
        self._key = SHIPPED
        self._revealed = False
        self._list_due = 0.0
        self._came = False
        self._report: tuple[tuple[str, int, int], str] = (("", 0, 0), "")
        self._last_state: State = "none"
        self._choose_lock = threading.RLock()
        self._build()
        self._show()
        self._open()
        # After the doors are closed, which give each control a way in of its own.
        self._choose_lock = guarded(self.choose)
        for box in self.bets:
            box.lock = guarded(box.choice)
        self._begin_to_publish()

    def _build(self) -> None:
        self.bets = [BetBox(bet, lambda: self._do(self._take_bets)) for bet in BETS]
        self.reveal = w.Button(description="Show all numbers without betting")
        self.reveal.on_click(lambda _: self._do(self._reveal))
        lesson = w.VBox([w.HTML("<h2>Bet first</h2>"), *(box.widget for box in self.bets), self.reveal])
        lesson.add_class("ssl-lesson")

        self.choose = w.Dropdown(options=self.studies.names(), value=SHIPPED, description="Study")
        self.choose.layout = w.Layout(width="auto", min_width="0")
        self.choose.add_class("ssl-choose")
        self.choose.observe(lambda _: self._do(self._choose), names="value")
        self.about, self.status, self.legend = w.HTML(), w.HTML(), w.HTML(legend())
        self.charts = [
            StudyChart("Table 1", "Two-layer predictors, with EMA (BYOL) and without (SimSiam).", TABLE1),
            StudyChart("Figure 1", "One-layer predictors, trained by SGD or set directly.", FIGURE1, least=60.0),
        ]
        charts = w.GridBox([chart.widget for chart in self.charts])
        charts.add_class("ssl-charts")
        self.table = w.HTML()
        self.table_box = w.Box([self.table])
        self.table_box.add_class("ssl-table")
        numbers = w.VBox(
            [w.HTML("<h2>In print, and in a study</h2>"), self.choose, self.banner, self.status, self.about,
             self.legend, charts, self.table_box]
        )  # fmt: skip
        numbers.add_class("ssl-right")

        self.begin = w.Button(description=START["none"])
        self.stop = w.Button(description="Stop", disabled=True)
        self.begin.on_click(lambda _: self._do(self._begin))
        self.stop.on_click(lambda _: self._do(self._stop))
        buttons = w.HBox([self.begin, self.stop])
        buttons.add_class("ssl-buttons")
        size = self.pipeline.size
        self.work_words, self.work_progress = w.HTML(), w.HTML()
        seeds = f"{size.seeds} seed{'s' * (size.seeds != 1)}"
        intro = (
            f"<h2>Run it here</h2><p>The same pipeline on the embedded digits: {' and '.join(size.items)}, {seeds}, "
            f"{size.epochs} epochs a run. It is a process of its own: it goes on when this page is closed, and what is "
            "done is not done again.</p>"
        )
        self.command = CommandBox(lambda: self._do(lambda: None))
        gpu = w.HTML(
            "<h2>At the papers’ size</h2><p>On a machine with a GPU, with ssl-lab installed: hours for CIFAR-10. What "
            "was cut goes on with the same command.</p>"
        )
        work = w.VBox([w.HTML(intro), buttons, self.work_words, self.work_progress, gpu, self.command.widget])
        work.add_class("ssl-work")
        body = w.GridBox([lesson, numbers, work])
        body.add_class("ssl-body")
        self.widget = w.VBox([w.HTML(f"<style>{CSS}{OWN_CSS}</style>"), self.browser, body])
        for name in ("ssl-bench", "ssl-reproduction"):
            self.widget.add_class(name)

    # ------------------------------------------------------------ what the publisher's thread does

    def _come(self) -> None:
        """The study that runs here is what the page wants to see."""
        if self._came:
            return
        self._came = True
        if self.pipeline.state(False) in ("starting", "working", "stopping"):
            self._turn_to(f"folder:{self.pipeline.name}")

    def _begin(self) -> None:
        self._allowed()
        key = f"folder:{self.pipeline.name}"
        if self.pipeline.state(self._finished()) == "done":
            self.pipeline.set_aside()
        self.pipeline.start()
        self._complaint = ""
        self._turn_to(key)

    def _stop(self) -> None:
        self._allowed()
        self.pipeline.stop()

    def _allowed(self) -> None:
        if not self._may_work():
            raise SSLLabError(WATCH_ONLY)

    def _finished(self) -> bool:
        try:
            record = self.studies.get(f"folder:{self.pipeline.name}").record
        except (SSLLabError, OSError):
            return False
        return bool(record.runs) and record.done == len(record.runs)

    def _take_bets(self) -> None:
        before = [box.chosen for box in self.bets]
        for box in self.bets:
            box.take()
        if before != [box.chosen for box in self.bets]:
            self.browser.announce = "The numbers of this bet are shown now, and what became of it."

    def _reveal(self) -> None:
        self._revealed = True

    def _choose(self) -> None:
        with self._choose_lock:
            chosen = self.choose.value
        if chosen is not None:
            self._key, self._complaint, self._look_due = str(chosen), "", 0.0

    def _turn_to(self, key: str) -> None:
        """Shows a study, as soon as it is there."""
        self._key, self._look_due, self._list_due = key, 0.0, 0.0

    def _show(self) -> bool:
        """Writes what changed; whether there was a new picture."""
        if time.monotonic() >= self._list_due:
            self._list_due = time.monotonic() + LIST_PAUSE
            self._list()
        drawn = self._show_work()
        self.command.update()
        study, error = self._study()
        self._warn(self._complaint or self.pipeline.trouble, error)
        if study is None:
            return drawn
        record, hidden = study.record, self._hidden()
        for box in self.bets:
            made = box.chosen is not None or self._revealed
            text = verdict(box.bet, box.chosen, box.bet.judge(record)) if made else ""
            Changes(box.verdict).set("value", text)
            Changes(box.choice).set("disabled", made)
        Changes(self.reveal.layout).set("display", None if hidden else "none")
        state = "running" if study.live else record.state if record.state != "running" else "gone"
        badge = "" if study.key == SHIPPED else f" <span class='ssl-state ssl-{state}'>{state}</span>"
        self._set(self.status, f"<p><b>{html.escape(study.title)}</b>{badge} {html.escape(study.words)}.</p>")
        self._set(self.about, about(record) + self._link(study))
        baselines = {row: found for row in BASELINES if (found := line(record, row).probe) is not None}
        rows = {row: self._row(study, row, hidden) for chart in self.charts for row in chart.rows}
        for chart in self.charts:
            drawn |= chart.update(rows, baselines)
        return drawn | self._set(self.table, table(record, hidden, study.title))

    def _row(self, study: Study, row: str, hidden: set[str]) -> Shown:
        printed = {who: Sample.printed(known) for who, known in in_print(study.record.data, row).items()}
        return Shown(
            ours=line(study.record, row).probe, s=printed.get("S"), p=printed.get("P"), hidden=row in hidden
        )  # fmt: skip

    def _hidden(self) -> set[str]:
        if self._revealed:
            return set()
        return {row for box in self.bets if box.chosen is None for row in box.bet.hides}

    def _study(self) -> tuple[Study | None, str]:
        """The study that is shown, or why there is none."""
        try:
            return self.studies.get(self._key), ""
        except (SSLLabError, OSError) as error:
            if self._key == f"folder:{self.pipeline.name}" and self.pipeline.state(False) in ("starting", "working"):
                return None, ""
            return None, str(error)

    def _list(self) -> None:
        """The list of studies, with the one that is shown."""
        names = self.studies.names()
        known = [key for _, key in names]
        if self._key not in known:
            if self._key != f"folder:{self.pipeline.name}":
                self._key = SHIPPED
            else:
                # It is just being started.
                names = [*names, (self.pipeline.name, self._key)]
        with self._choose_lock:
            if list(self.choose.options) != names:
                with self.choose.hold_sync():
                    self.choose.options = names
                    self.choose.value = self._key
            elif self.choose.value != self._key and self._actions.empty():
                self.choose.value = self._key

    def _show_work(self) -> bool:
        finished = self._finished()
        state, allowed = self.pipeline.state(finished), self._may_work()
        busy = state in ("starting", "working", "stopping")
        Changes(self.begin).set("description", START[state])
        Changes(self.begin).set("disabled", busy or not allowed)
        Changes(self.stop).set("disabled", state not in ("starting", "working") or not allowed)
        words = "" if allowed else f"<p class='ssl-hint'>{WATCH_ONLY}</p>"
        bar = ""
        try:
            study = self.studies.get(f"folder:{self.pipeline.name}")
        except (SSLLabError, OSError):
            study = None
        if state == "starting":
            words += "<p>A process is starting; it loads torch.</p>"
        elif study is not None:
            runs = study.record.runs
            done = sum(run.share for run in runs) / len(runs) if runs else 0.0
            if busy:
                bar = f"<progress max='1' value='{done:.3f}' aria-label='The study here'></progress>"
            words += f"<p>{html.escape(study.words)}.</p>"
        if state != self._last_state:
            if self._last_state in ("working", "stopping") and not busy:
                self.browser.announce = "The study is done." if state == "done" else "The study has stopped."
            self._last_state = state
        return self._set(self.work_words, words) | self._set(self.work_progress, bar)

    def _link(self, study: Study) -> str:
        """A way to the study's report; it is put into the page, which serves no files."""
        if study.folder is None or study.live:
            return ""
        path = study.folder / "report.html"
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                # A stranger's folder may hold a link to any file of this machine, or a pipe.
                return ""
            seen = (study.key, found.st_mtime_ns, found.st_size)
            if self._report[0] != seen:
                text = f"<p>Its report lies in {html.escape(study.folder.name)}/report.html in the results folder."
                if found.st_size <= LARGEST_REPORT:
                    data = base64.b64encode(path.read_bytes()).decode()
                    text += (
                        f" <a download='{html.escape(study.folder.name, quote=True)}.html' "
                        f"href='data:text/html;base64,{data}'>Save it ({found.st_size / 1e3:,.0f} kB)</a>"
                    )
                self._report = (seen, f"{text}</p>")
        except OSError:
            return ""
        return self._report[1]

    def close(self) -> None:
        """Stops publishing and frees the widgets; a study that runs goes on."""
        self.publisher.stop()
        for chart in self.charts:
            chart.close()
        super().close()
