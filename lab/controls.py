"""The knobs and the transport: widgets whose callbacks only leave a command; the publisher brings the answer back.

Built from ``Knobs``' own metadata, so that a knob added there appears here. A widget's limits are the browser's
word: the engine checks every value again.
"""

from __future__ import annotations

import html
import math
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ipywidgets as w

from lab.members import VALUE_WORDS, knob_word, value_word
from ssl_lab.config import Knobs, idle_knobs, knob_choices, knob_meta, knob_range
from ssl_lab.family import family_values
from ssl_lab.store import RunStore, Status

Send = Callable[[str, dict[str, Any]], None]


def guarded(control: w.Widget) -> threading.RLock:
    """A lock that is held while a message of the page is taken in, for whoever writes the control besides.

    traitlets gathers the changes of a message and tells of them at its end: what another thread writes meanwhile would
    be told instead of the person's word, and in that person's name.
    """
    lock, take = threading.RLock(), control.set_state

    def set_state(state: Mapping[str, Any]) -> None:
        with lock:
            take(state)

    control.set_state = set_state
    return lock


class KnobControl:
    """One knob: its control, the engine's value and a line of help that turns into why it does nothing now.

    Args:
        name: the knob.
        value: its value to begin with.
        turned: called in the page's thread with (name, value) when a person turns it.
        family: called there with the name when a person asks for a family along it; without, there is no such button.
    """

    def __init__(
        self,
        name: str,
        value: Any,
        turned: Callable[[str, Any], None],
        family: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.meta = knob_meta(name)
        self._turned = turned
        self._publisher: int | None = None
        self._help = str(Knobs.model_fields[name].description)
        self._engine_value = value
        self._idle = ""
        symbol = f" <i>{html.escape(self.meta.symbol)}</i>" if self.meta.symbol else ""
        self.label = w.HTML(f"<span title='{html.escape(self._help, quote=True)}'>{self.meta.label}{symbol}</span>")
        self.control = self._make(value)
        self._lock = guarded(self.control)
        self.control.tooltip = f"{self._help} Source: {self.meta.source}."
        self.engine = w.HTML(self._engine_text(value))
        self.engine.add_class("ssl-engine-value")
        self.help = w.HTML(self._help_text())
        self.help.add_class("ssl-help")
        rows = [self.label, self.control, self.engine, self.help]
        self.family: w.Button | None = None
        if family is not None:
            self.family = w.Button(description="Family", tooltip=self._family_text(value))
            self.family.add_class("ssl-family")
            self.family.on_click(lambda _: family(self.name))
            rows.append(self.family)
        self.widget = w.GridBox(rows)
        self.widget.add_class("ssl-knob")
        self.widget.add_class(f"ssl-knob-{name}")
        self.control.observe(self._on_value, names="value")

    def _make(self, value: Any) -> w.Widget:
        span, handy = knob_range(self.name), self.meta.handy
        wide = w.Layout(width="auto", min_width="0")
        if self.meta.scale == "choice":
            words = VALUE_WORDS[self.name]
            options = [(words[choice], choice) for choice in knob_choices(self.name)]
            return w.Dropdown(options=options, value=value, layout=wide)
        if self.meta.scale == "switch":
            return w.Checkbox(value=value, indent=False, description="on", layout=wide)
        assert span is not None
        assert handy is not None
        if self.meta.scale == "log":
            return w.FloatLogSlider(
                value=value, base=10, min=handy[0], max=handy[1], step=handy[2], readout_format=".3g",
                continuous_update=False, layout=wide,
            )  # fmt: skip
        if self.meta.scale == "linear":
            digits = max(0, round(-math.log10(handy[2])) if handy[2] < 1 else 0)
            return w.FloatSlider(
                value=value, min=handy[0], max=handy[1], step=handy[2], readout_format=f".{digits}f",
                continuous_update=False, layout=wide,
            )  # fmt: skip
        if self.meta.scale == "integer":
            return w.BoundedIntText(value=value, min=int(span[0]), max=int(span[1]), layout=wide)
        return w.BoundedFloatText(value=value, min=span[0], max=span[1], step=handy[2], layout=wide)

    def _on_value(self, change: Mapping[str, Any]) -> None:
        # What the publisher writes is the engine's word already and must not go back to it.
        if threading.get_ident() != self._publisher:
            self._turned(self.name, change["new"])

    def _engine_text(self, value: Any) -> str:
        word = VALUE_WORDS.get(self.name, {}).get(str(value), None) or (
            ("on" if value else "off") if isinstance(value, bool) else f"{value:.4g}"
        )
        unit = f" {self.meta.unit}" if self.meta.unit and not isinstance(value, bool | str) else ""
        return f"<span aria-label='engine: {self.meta.label}' data-value='{value}'>{word}<small>{unit}</small></span>"

    def _family_text(self, value: Any) -> str:
        """What the button does; what stands before the full stop is its name for a screen reader."""
        values = ", ".join(value_word(self.name, member) for member in family_values(self.name, value))
        return f"Family along {knob_word(self.name)}. Runs at {values} from the moment shown, drawn together."

    def _help_text(self) -> str:
        if self._idle:
            return f"<span class='ssl-idle'>No effect now: {html.escape(self._idle)}.</span>"
        return html.escape(self._help)

    def show(self, value: Any, idle: str, settled: bool) -> None:
        """The engine's word, written by the publisher: the value it steps by, and why it has no effect, if so.

        Args:
            settled: no turn of this knob is under way, so the control goes to the engine's value.
        """
        self._publisher = threading.get_ident()
        if value != self._engine_value:
            self._engine_value = value
            self.engine.value = self._engine_text(value)
        if idle != self._idle:
            self._idle = idle
            self.help.value = self._help_text()
        with self._lock:
            if settled and not self._shows(value):
                if isinstance(self.control, w.FloatSlider) and not self.control.min <= value <= self.control.max:
                    self.control.min, self.control.max = min(self.control.min, value), max(self.control.max, value)
                self.control.value = value

    def offer(self, value: Any, works: bool) -> None:
        """Whether a family along this knob can be had, and from which value; by the publisher.

        Where the knob does nothing, its family would be one run several times.
        """
        if self.family is None:
            return
        if self.family.disabled == works:
            self.family.disabled = not works
        if self.family.tooltip != (text := self._family_text(value)):
            self.family.tooltip = text

    def _shows(self, value: Any) -> bool:
        shown = self.control.value
        if isinstance(self.control, w.FloatLogSlider):
            low, high = 10.0**self.control.min, 10.0**self.control.max
            return math.isclose(shown, min(max(value, low), high), rel_tol=1e-9)
        return bool(shown == value)

    def close(self) -> None:
        """Frees the widgets in the browser."""
        self.control.unobserve_all()
        for part in (self.label, self.control, self.engine, self.help, self.family, self.widget):
            if part is not None:
                part.close()


class KnobBoard:
    """Knobs under their headings.

    Args:
        knobs: their values to begin with.
        send: sends a command.
        names: the knobs that the page has; default all.
        family: makes a family along a knob; without, there are no buttons for it.
    """

    def __init__(
        self,
        knobs: Knobs,
        send: Send,
        names: Collection[str] = tuple(Knobs.model_fields),
        family: Callable[[str], None] | None = None,
    ) -> None:
        self._send = send
        self.controls = {
            name: KnobControl(name, getattr(knobs, name), self._turn, family)
            for name in Knobs.model_fields
            if name in names
        }
        groups: dict[str, list[w.Widget]] = {}
        for control in self.controls.values():
            groups.setdefault(control.meta.group, []).append(control.widget)
        self._headings = [w.HTML(f"<h3>{group}</h3>") for group in groups]
        boxes = [w.VBox([heading, *rows]) for heading, rows in zip(self._headings, groups.values(), strict=True)]
        for box in boxes:
            box.add_class("ssl-group")
        self._boxes = boxes
        self.widget = w.VBox(boxes)
        self.widget.add_class("ssl-knobs")
        self._locked = False

    def _turn(self, name: str, value: Any) -> None:
        self._send("set", {name: value})

    def show(
        self, status: Status, waiting: set[str], locked: bool = False, *, shown: Knobs | None = None, forks: bool = True
    ) -> None:
        """The engine's knobs, written by the publisher.

        Args:
            waiting: knobs that were turned and not answered yet.
            locked: the visitor may look and not steer.
            shown: the knobs at the moment that is shown, from which a family would go on; default the engine's.
            forks: a family can be made from what is shown.
        """
        self.lock(locked)
        idle, idle_there = idle_knobs(status.knobs), idle_knobs(shown or status.knobs)
        for name, control in self.controls.items():
            control.show(getattr(status.knobs, name), idle.get(name, ""), name not in waiting)
            control.offer(getattr(shown or status.knobs, name), forks and name not in idle_there)

    def lock(self, locked: bool) -> None:
        """Whether the visitor may look and not steer."""
        if locked != self._locked:
            self._locked = locked
            for control in self.controls.values():
                control.control.disabled = locked

    def close(self) -> None:
        """Frees the widgets in the browser."""
        for control in self.controls.values():
            control.close()
        for part in (*self._headings, *self._boxes, self.widget):
            part.close()


SPEEDS: tuple[tuple[str, float], ...] = (
    ("as fast as it goes", 0.0),
    ("30 steps/s", 30.0),
    ("10 steps/s", 10.0),
    ("3 steps/s", 3.0),
    ("1 step/s", 1.0),
)


class Transport:
    """Run, pause, step, and how fast."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._publisher: int | None = None
        self.run = w.Button(description="Run", button_style="primary", tooltip="Step until paused (space)")
        self.pause = w.Button(description="Pause", tooltip="Stand still after this step (space)", disabled=True)
        self.step = w.Button(description="Step", tooltip="One step (.)")
        self.step10 = w.Button(description="10 steps", tooltip="Ten steps")
        self.speed = w.Dropdown(options=SPEEDS, value=0.0, layout=w.Layout(width="auto"), tooltip="Most steps a second")
        self._lock = guarded(self.speed)
        self.run.on_click(lambda _: send("run", {}))
        self.pause.on_click(lambda _: send("pause", {}))
        self.step.on_click(lambda _: send("step", {"steps": 1}))
        self.step10.on_click(lambda _: send("step", {"steps": 10}))
        self.speed.observe(self._on_speed, names="value")
        self.buttons = w.HBox([self.run, self.pause, self.step, self.step10])
        self.buttons.add_class("ssl-buttons")
        self._speed_label = w.HTML("Speed")
        self._speed_row = w.HBox([self._speed_label, self.speed])
        self._speed_row.add_class("ssl-row")
        self.widget = w.VBox([self.buttons, self._speed_row])

    def _on_speed(self, change: Mapping[str, Any]) -> None:
        if threading.get_ident() != self._publisher:
            self._send("speed", {"steps_per_second": change["new"] or None})

    def show(self, status: Status, locked: bool = False) -> None:
        """The engine's state, written by the publisher; ``locked``: the visitor may look and not steer."""
        self._publisher = threading.get_ident()
        running, over = status.state == "running", status.state == "done"
        for control, disabled in (
            (self.run, running or over or locked), (self.pause, not running or locked),
            (self.step, running or over or locked), (self.step10, running or over or locked), (self.speed, locked),
        ):  # fmt: skip
            if control.disabled != disabled:
                control.disabled = disabled
        speed = status.speed or 0.0
        with self._lock:
            if self.speed.value != speed and speed in [value for _, value in SPEEDS]:
                self.speed.value = speed

    def lock(self) -> None:
        """There is no run to steer, until one is shown."""
        for control in (self.run, self.pause, self.step, self.step10, self.speed):
            if not control.disabled:
                control.disabled = True

    def close(self) -> None:
        """Frees the widgets in the browser."""
        self.speed.unobserve_all()
        for part in (*self.buttons.children, self.buttons, self._speed_label, self.speed, self._speed_row, self.widget):
            part.close()


def waiting_knobs(store: RunStore) -> set[str]:
    """Knobs that were turned and not answered yet."""
    return {name for command in store.waiting() if command.kind == "set" for name in command.payload}
