"""What is read of files that a stranger may have made: held against what this version writes, before it is used.

Bounds are far above what a run comes to, and low enough that no file costs more memory or time than its size says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ssl_lab.errors import SSLLabError, StoreError, shown

LONGEST = 4_000_000
"""Characters of the longest JSON text that is read."""

LARGEST_STEP = 2**53
"""A step is a number that a page can hold."""

Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
"""A number, and no text that looks like one."""
Step = Annotated[int, Field(ge=0, le=LARGEST_STEP, strict=True)]
"""Steps done, and whatever else is counted."""
Words = Annotated[str, Field(max_length=100_000, strict=True)]
"""A text for a person."""
ShortWords = Annotated[str, Field(max_length=300, strict=True)]
"""A name."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
"""An accuracy."""

_Value = bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | Finite | ShortWords
Turned = Annotated[dict[ShortWords, _Value], Field(max_length=64)]
"""Knobs and their values."""

NUMBER: TypeAdapter[float] = TypeAdapter(Finite)
STEP: TypeAdapter[int] = TypeAdapter(Step)
SHARE: TypeAdapter[float] = TypeAdapter(Share)
SHORT_WORDS: TypeAdapter[str] = TypeAdapter(ShortWords)


@contextmanager
def understood(path: Path, what: str) -> Iterator[None]:
    """What goes wrong inside is said to be a broken part of a file, with what was expected and what was found."""
    try:
        yield
    except SSLLabError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"][:4])
        # pydantic names the expected: "Input should be a valid number".
        expected = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        found = (
            f"{where}: {expected}, found {shown(first['input'])}"
            if where
            else (f"{expected}, found {shown(first['input'])}")
        )
        raise StoreError(f"{path} is broken: its {what} cannot be read ({found}).") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise StoreError(f"{path} is broken: its {what} cannot be read ({reason}).") from None


def from_json(text: object, most: int = LONGEST) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is no text, no JSON, longer than ``most`` characters, or nested too deep.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected a JSON text, found {shown(text)}")
    if len(text) > most:
        raise ValueError(f"expected a JSON text of at most {most:,} characters, found {len(text):,}")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("expected a JSON text, found one that is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"expected a JSON text, found {shown(text)}: {str(error)[:100]}") from None
