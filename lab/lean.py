"""``bq``: bqplot without pandas, which it imports for what no picture here needs, at half the time and a third of the
memory of a kernel's start. Write ``from lab.lean import bq`` and not ``import bqplot as bq``.

Nothing is taken away: whatever of bqplot asks for pandas gets it at that moment, and ``import pandas`` elsewhere is
what it always is.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_RARE = "bqplot.plotting_widgets"
"""Makes a table of pandas as it is imported, for one kind of chart."""


class _Later(ModuleType):
    """Stands for a module that is imported when something of it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # The import system looks at modules that it finds.
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _later(*names: str) -> Iterator[None]:
    """While inside, importing one of these modules gives a stand-in, unless it is there already."""
    put = []
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = stand_in = _Later(name)
            put.append(stand_in)
    try:
        yield
    finally:
        for stand_in in put:
            if sys.modules.get(stand_in.__name__) is stand_in:
                del sys.modules[stand_in.__name__]


def _bqplot() -> Any:
    if "bqplot" in sys.modules or importlib.util.find_spec("pandas") is None:
        return importlib.import_module("bqplot")
    with _later("pandas", _RARE):
        bqplot = importlib.import_module("bqplot")
    # The names of the module that was left out.
    bqplot.__dict__.setdefault("__getattr__", _Later(_RARE).__getattr__)
    return bqplot


bq = _bqplot()
