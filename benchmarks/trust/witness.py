"""What goes wrong in silence: exceptions in threads and callbacks, errors in logs, warnings."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from types import TracebackType
from typing import Any


class Witness(logging.Handler):
    """While it is entered, collects what nobody would see: ``with Witness() as witness: ...; witness.take()``.

    Warnings are errors meanwhile, so that one in a thread ends up here too.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: list[str] = []
        self._hook = threading.excepthook
        self._unraisable = sys.unraisablehook
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> Witness:
        threading.excepthook = self._on_thread
        sys.unraisablehook = self._on_unraisable
        self._warnings.__enter__()
        warnings.simplefilter("error")
        # bqscales and bqplot declare their traits in traitlets' old way.
        warnings.filterwarnings("ignore", "metadata .* was set from the constructor", DeprecationWarning)
        logging.getLogger().addHandler(self)
        logging.getLogger("traitlets").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("traitlets").removeHandler(self)
        logging.getLogger().removeHandler(self)
        self._warnings.__exit__(None, None, None)
        threading.excepthook, sys.unraisablehook = self._hook, self._unraisable

    def take(self) -> list[str]:
        """What was seen since the last call."""
        seen, self._seen = self._seen, []
        return list(dict.fromkeys(seen))

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps errors of any logger, and what a widget's callback raised: ipywidgets only warns of it."""
        if record.levelno >= logging.ERROR or record.exc_info:
            self._seen.append(f"log of {record.name}: {record.getMessage()} {_last(record.exc_info)}".strip())

    def _on_thread(self, arguments: threading.ExceptHookArgs) -> None:
        name = arguments.thread.name if arguments.thread else "?"
        self._seen.append(f"thread {name}: {_words(arguments.exc_value, arguments.exc_traceback)}")

    def _on_unraisable(self, unraisable: Any) -> None:
        self._seen.append(f"while something was freed: {_words(unraisable.exc_value, unraisable.exc_traceback)}")


def _last(exc_info: Any) -> str:
    return _words(exc_info[1], exc_info[2]) if exc_info else ""


def _words(error: BaseException | None, tb: TracebackType | None) -> str:
    where = traceback.extract_tb(tb)[-1:] if tb else []
    place = "".join(f" ({at.name}, line {at.lineno} of {at.filename.rsplit('/', 1)[-1]})" for at in where)
    return f"{type(error).__name__}: {error}{place}"
