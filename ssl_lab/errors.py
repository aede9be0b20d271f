"""Errors written for the person who meets them: what is wrong, where, and what to do.

Everything the lab can refuse derives from :class:`SSLLabError`, so that a page or a command line can
show the sentence and leave the traceback to real bugs.
"""

from __future__ import annotations

from typing import Any


class SSLLabError(Exception):
    """Base of every error whose message is meant to be shown as it is."""


class StoreError(SSLLabError):
    """A run's file, a checkpoint or a study's result that is broken or not ours: names where, what was expected and
    what was found. A file that is merely locked, or a disk that is full, is not one of these."""


class ConfigError(SSLLabError, ValueError):
    """A run configuration that cannot be: names the field, the value and what is allowed."""


class KnobError(SSLLabError, ValueError):
    """A knob that does not exist, or a value it cannot take. Nothing was changed."""


class DataError(SSLLabError, RuntimeError):
    """A data set that is missing, broken or could not be fetched, with the way out."""


class NonFiniteLossError(SSLLabError, FloatingPointError):
    """The loss became infinite or not a number; the step was not applied."""


class RunExistsError(SSLLabError, FileExistsError):
    """A run of this name is already in the results folder."""


class RunMissingError(SSLLabError, FileNotFoundError):
    """No run of this name is in the results folder, or it has not got what was asked of it."""


class WriteError(SSLLabError, OSError):
    """A file or folder that cannot be written: a full disk, a read-only one, a broken one."""


class EngineError(SSLLabError, RuntimeError):
    """The engine process could not be reached or could not do what was asked."""


SHOWN = 80
"""Most characters of a stranger's value that a message repeats."""


def shown(value: Any) -> str:
    """A value as a message can name it, whatever it is and however long."""
    try:
        # Of a text of a million characters, or a list of as many, only the beginning is written down.
        text = repr(value[:SHOWN] if isinstance(value, str | bytes) else value)
    except (ValueError, RecursionError):
        # Python writes down no number of more than some thousand digits, and nothing nested too deep.
        return f"a {type(value).__name__} that is too large to be shown"
    cut = len(text) > SHOWN + 20 or (isinstance(value, str | bytes) and len(value) > SHOWN)
    return f"{text[: SHOWN + 20]}..." if cut else text
