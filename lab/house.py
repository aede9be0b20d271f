"""``House``: the rules of the house in which pages are served, as the server tells them to the pages' kernels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class House:
    """What a page's kernel may do. A bench that nobody serves, as in a notebook, has the rules of the default."""

    served: bool = False
    """Whether our own server serves the page: its visitors are not the owners of the kernel."""
    own_only: bool = False
    """Whether a visitor steers only runs that they made themselves, as in a class; else whoever comes is at home."""
    host_key: str = ""
    """:func:`digest` of the key with which the host steers every run; empty if nobody does."""
    max_visitors: int | None = None
    """Pages that may be open at once."""
    max_runs: int | None = None
    """Runs that a visitor may keep."""
    max_bytes: int | None = None
    """Bytes on disk that a visitor's runs may take together."""

    stage: str = ""
    """Folder in which an instructor shows runs to others, see :mod:`ssl_lab.stage`; empty if there is none."""
    instructor: bool = False
    """Whether whoever comes is the one who shows runs there; else they follow."""
    follow: bool = False
    """Whether a page that is asked for nothing else follows what is on stage."""

    @property
    def keeps_account(self) -> bool:
        """Whether it matters here whose a run is."""
        return self.own_only or self.max_runs is not None or self.max_bytes is not None

    @classmethod
    def here(cls) -> House:
        """As the environment of this kernel says."""
        get = os.environ.get
        return cls(
            served=get("SSL_LAB_SERVED") == "1",
            own_only=get("SSL_LAB_OWN_ONLY") == "1",
            host_key=get("SSL_LAB_HOST_KEY", ""),
            max_visitors=_number(get("SSL_LAB_MAX_VISITORS")),
            max_runs=_number(get("SSL_LAB_MAX_RUNS")),
            max_bytes=_number(get("SSL_LAB_MAX_BYTES")),
            stage=get("SSL_LAB_STAGE", ""),
            instructor=get("SSL_LAB_INSTRUCTOR") == "1",
            follow=get("SSL_LAB_FOLLOW") == "1",
        )

    def environment(self) -> Mapping[str, str]:
        """What a kernel's environment has to hold so that :meth:`here` says this."""
        values = {
            "SSL_LAB_SERVED": "1" if self.served else "",
            "SSL_LAB_OWN_ONLY": "1" if self.own_only else "",
            "SSL_LAB_HOST_KEY": self.host_key,
            "SSL_LAB_MAX_VISITORS": _text(self.max_visitors),
            "SSL_LAB_MAX_RUNS": _text(self.max_runs),
            "SSL_LAB_MAX_BYTES": _text(self.max_bytes),
            "SSL_LAB_STAGE": self.stage,
            "SSL_LAB_INSTRUCTOR": "1" if self.instructor else "",
            "SSL_LAB_FOLLOW": "1" if self.follow else "",
        }
        return {name: value for name, value in values.items() if value}


def digest(key: str) -> str:
    """What is kept of a visitor's key: enough to know it again, of no use to whoever reads it."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() if key else ""


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
