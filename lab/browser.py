"""``Browser``: the lab's eyes in the page. Is anybody looking, at which address, how wide, how dark, which key?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets as t

from lab.house import digest


class Browser(anywidget.AnyWidget):
    """Tells Python about the page that shows it, and the page what Python has to say; draws nothing.

    Keys arrive as a custom message, ``browser.on_msg(lambda browser, content, buffers: ...)`` with ``content`` being
    ``{"key": "run_pause"}`` for the space bar and ``{"key": "step"}`` for the full stop. Under Voila the whole page
    listens; elsewhere only the enclosing element of class ``ssl-bench``. A key typed into a field, or the space bar on
    a button, stays with it.
    """

    _esm: ClassVar[Any] = Path(__file__).parent / "static" / "browser.js"

    query: Any = t.Dict(default_value=None, allow_none=True, help="The parameters in the page's address.").tag(
        sync=True, echo_update=False
    )
    """``None`` until a page has shown the widget, so that an address without parameters is a change too. Stays as the
    page was opened; always empty under JupyterLab, whose address is not ours."""

    key: Any = t.Unicode(None, allow_none=True, help="The key by which a visitor is known again, under Voila.").tag(
        sync=True, echo_update=False
    )
    """Told by the page together with ``query``, and always ``None`` here: what is kept of it is ``visitor``."""

    visitor: Any = t.Unicode(None, allow_none=True, help="Digest of the key; None until the page has told it.")

    visible: Any = t.Bool(True, help="Whether the page's tab is in front.").tag(sync=True, echo_update=False)

    alive: Any = t.Int(0, help="Heartbeat: goes up every 2 s while the tab is in front, every 10 s while hidden.").tag(
        sync=True, echo_update=False
    )
    """Browsers slow a hidden tab's timers down, some to once a minute: no beat for 90 s means that the page is gone."""

    width: Any = t.Int(0, help="Width of the window in CSS pixels; 0 until known.").tag(sync=True, echo_update=False)

    dark: Any = t.Bool(False, help="Whether the page's theme is dark.").tag(sync=True, echo_update=False)

    run: Any = t.Unicode("", help="Name of the run; under Voila the page's address becomes ?run=NAME.").tag(sync=True)

    step: Any = t.Int(None, allow_none=True, help="The step that is shown; under Voila it becomes ?step=N.").tag(
        sync=True
    )
    """``None`` takes it out of the address again."""

    compare: Any = t.Unicode("", help="Names of the runs drawn with it; under Voila it becomes ?compare=A,B.").tag(
        sync=True
    )

    sweep: Any = t.Unicode("", help="Name of the sweep that is shown; under Voila it becomes ?sweep=NAME.").tag(
        sync=True
    )

    title: Any = t.Unicode("", help="Title of the page, under Voila.").tag(sync=True)

    picture: Any = t.Int(0, help="Number of the picture that the page has been sent: the last message of it.").tag(
        sync=True
    )

    painted: Any = t.Int(-1, help="Number of the last picture that stands on the screen.").tag(
        sync=True, echo_update=False
    )
    """What the page answers to ``picture``; -1 until a page has shown the widget. A hidden tab paints nothing and so
    says nothing."""

    listens: Any = t.Bool(True, help="Whether the space bar and the full stop mean something here.").tag(sync=True)

    announce: Any = t.Unicode("", help="What a screen reader shall read out when it has time.").tag(sync=True)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """What the page says of itself; its key goes no further than here."""
        key = sync_data.get("key")
        if isinstance(key, str) and key and self.visitor is None:
            self.visitor = digest(key)
        super().set_state({name: value for name, value in sync_data.items() if name != "key"})
