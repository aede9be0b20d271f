"""``Page``: what the pages besides the bench have in common. Callbacks leave word; the publisher's thread does it."""

from __future__ import annotations

import html
import logging
import os
import queue
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as w

from lab.browser import Browser
from lab.doors import close_doors, is_whole, parts
from lab.house import House
from lab.locks import lock_kernel
from lab.owners import Owners
from lab.publisher import Publisher
from lab.words import Changes
from ssl_lab.errors import SSLLabError

log = logging.getLogger(__name__)

LOOK_PAUSE = 1.0
"""Seconds between looks at what is shown."""
PLACE = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\](?:[\w.@+~-]+[/\\])+")
"""The folders of an absolute path."""
MOST_ACTIONS = 50
"""What was asked for and waits to be done; anything more is passed over."""


class Page(ABC):
    """A page of looks at files, with a process that is started from it; display it as the last line of a cell.

    A subclass makes ``widget``, calls :meth:`_open`, and writes what changed in :meth:`_show`.

    Args:
        title: of the page.
        results: folder of runs and studies.
        house: the rules of the house; default as the kernel's environment says.
    """

    widget: w.DOMWidget

    def __init__(self, title: str, results: Path, house: House | None = None) -> None:
        lock_kernel()
        self.results = results
        self.house = house or House.here()
        self.owners = Owners(self.house)
        self.banner = w.HTML()
        self.banner.add_class("ssl-banner")
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._complaint = ""
        self._look_due = 0.0
        self.browser = Browser(title=f"{title} · ssl-lab", listens=False)
        self.publisher = Publisher(self.browser, self._tick, served=self.house.served)

    def _open(self) -> None:
        """The widgets are there: closes their doors. :meth:`_begin_to_publish` comes next."""
        close_doors(parts(self.widget))

    def _begin_to_publish(self) -> None:
        self.browser.observe(lambda _: self._do(self._visited), names=["query", "visitor"])
        self.browser.on_msg(self._on_message)
        self.publisher.start()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    # ------------------------------------------------------------ what a person does: leaves word, no more

    def _do(self, action: Callable[[], None]) -> None:
        if self._actions.qsize() < MOST_ACTIONS:
            self._actions.put(action)
            self.publisher.poke()

    def _on_message(self, _browser: Any, content: Any, _buffers: Any) -> None:
        # The page wants to know whether this kernel lives; keys mean nothing here.
        if isinstance(content, dict) and is_whole(number := content.get("ping")):
            self.browser.send({"pong": number})

    # ------------------------------------------------------------ what the publisher's thread does

    def _visited(self) -> None:
        if self.browser.visitor is not None and self.owners.visitor is None:
            self.owners = Owners(self.house, self.browser.visitor)
        if self.browser.query is not None:
            self._come()

    @abstractmethod
    def _come(self) -> None:
        """The page has said whose it is and to which address it was opened; it may say so again."""

    @abstractmethod
    def _show(self) -> bool:
        """Writes what changed; whether there was a new picture."""

    def _tick(self, draw: bool) -> bool:
        for _ in range(MOST_ACTIONS):
            try:
                action = self._actions.get_nowait()
            except queue.Empty:
                break
            self._look_due = 0.0
            try:
                action()
            except (SSLLabError, OSError) as error:
                self._complaint = str(error)
            except Exception as error:
                log.exception("What was asked for failed")
                self._complaint = f"{type(error).__name__}: {error}"
        if not draw or time.monotonic() < self._look_due:
            return False
        self._look_due = time.monotonic() + LOOK_PAUSE
        return self._show()

    def _may_work(self) -> bool:
        """Whether the visitor may start and stop what runs here."""
        return not self.house.own_only or self.owners.host

    def _told(self, words: str) -> str:
        """What a visitor is told: where folders lie is the host's business, of a file its name is enough."""
        if not self.house.own_only or self.owners.host:
            return words
        return PLACE.sub("", words.replace(f"{self.results}{os.sep}", ""))

    def _warn(self, *errors: str) -> None:
        value = "".join(
            f"<p role='alert' class='ssl-error'>{html.escape(self._told(line))}</p>"
            for line in dict.fromkeys(errors)
            if line
        )
        Changes(self.banner).set("value", value)

    @staticmethod
    def _set(widget: w.HTML, value: str) -> bool:
        if widget.value == value:
            return False
        widget.value = value
        return True

    def close(self) -> None:
        """Stops publishing and frees the widgets; a process that runs goes on."""
        self.publisher.stop()
        self.browser.unobserve_all()
        for part in list(parts(self.widget)):
            part.close()
