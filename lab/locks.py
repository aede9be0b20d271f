"""What a kernel locks behind the server's back: the second line, should a message get past the first."""

from __future__ import annotations

from lab.house import House
from lab.messages import WIDGETS


def lock_kernel() -> None:
    """In a kernel whose page is a visitor's, no widget is made but by the bench itself."""
    if not House.here().served:
        return
    from comm import get_comm_manager

    # What ipywidgets registers, so that a page may make a widget of any class that is installed.
    get_comm_manager().targets.pop(WIDGETS, None)
