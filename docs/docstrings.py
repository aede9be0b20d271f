"""Docstrings are text with a little reStructuredText: what Markdown would take for something else is mended here."""

from __future__ import annotations

import re
from typing import Any

import griffe

# Such as :func:`~ssl_lab.config.preset`, which only Sphinx knows: the name alone is left.
ROLE = re.compile(r":(?:mod|func|meth|class|data|attr):`~?(?:[\w.]*\.)?(\w+)`")


class PlainText(griffe.Extension):
    """Makes Markdown of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            # A bracket before a parenthesis is a commutator at a time, and no link.
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value).replace("](", r"]\(")
