"""Ways to spoil bytes, JSON and values, each a pure function of its random numbers."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

Random = random.Random


def _cut(r: Random, data: bytearray) -> bytearray:
    return data[: r.choice([0, 1, 7, 8, 15, 16, 100, len(data) - 1, r.randrange(len(data) + 1)])]


def _flip(r: Random, data: bytearray) -> bytearray:
    for _ in range(r.choice([1, 1, 2, 8, 64])):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    return data


def _overwrite(r: Random, data: bytearray) -> bytearray:
    begin, length = r.randrange(len(data)), r.choice([1, 2, 4, 8, 100, 4096])
    value = r.choice([b"\x00", b"\xff", b"\x7f", b"\x80", None])
    run = (r.randbytes(length) if value is None else value * length)[: len(data) - begin]
    data[begin : begin + len(run)] = run
    return data


def _splice(r: Random, data: bytearray) -> bytearray:
    begin, to = r.randrange(len(data)), r.randrange(len(data))
    piece = data[begin : begin + r.choice([1, 16, 512, 4096])]
    return data[:to] + piece + data[to + r.choice([0, len(piece)]) :]


def _drop(r: Random, data: bytearray) -> bytearray:
    begin = r.randrange(len(data))
    del data[begin : begin + r.choice([1, 2, 16, 512, 4096])]
    return data


def _swap_length(r: Random, data: bytearray) -> bytearray:
    """Another number in a place of two, four or eight bytes."""
    size = r.choice([2, 4, 8])
    begin = r.randrange(max(1, min(len(data) - size, r.choice([64, 1024, len(data)]))))
    number = r.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1, r.getrandbits(8 * size)])
    data[begin : begin + size] = (number & (256**size - 1)).to_bytes(size, r.choice(["big", "little"]))
    return data


def _append(r: Random, data: bytearray) -> bytearray:
    return data + r.choice([b"\0", b"\0" * 5000, bytes(data), r.randbytes(100)])


_RAW: Sequence[Callable[[Random, bytearray], bytearray]] = (
    _cut, _flip, _flip, _overwrite, _splice, _drop, _swap_length, _append,
)  # fmt: skip


def spoiled(r: Random, data: bytes) -> bytes:
    """The bytes cut, flipped, overwritten, spliced, or with other lengths in them."""
    found = bytearray(data)
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        if found:
            found = r.choice(_RAW)(r, found)
    return bytes(found)


TEXTS = (
    "", " ", "x", "1.5", "NaN", "Infinity", "-1", "true", "null", "\0", "a\0b", "é", "²", "٣", "１２", "\u202e", "💥",
    "\ud800", "../../outside/planted", "/etc/passwd", "C:\\windows\\system32", "~/.ssh/id_rsa", "..", ".", "a/b",
    "a\\b", "%2e%2e%2f", "file:///etc/passwd", "<img src=x onerror=alert(1)>", "'; DROP TABLE metrics; --",
    "{__import__('os')}",
    "$(touch owned)", "`id`", "a\nb", "9" * 30, "9" * 5000, "1e999", "-1e999", "0x10", "1_000", "a" * 300, "a" * 70_000,
    "[" * 200_000, '{"a":' * 20_000, "[]", "{}", '""', '{"step": -1}', "con", "nul.txt", "engine.sqlite", "-rf",
)  # fmt: skip
"""What a stranger may write where a text belongs."""

NUMBERS = (
    0, 1, -1, 2, 3, 7, 12, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 0.0, -0.0,
    0.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip

HUGE_NUMBERS = (2**63, 2**64, -(2**63) - 1, 10**400, -(10**4000))


def value(r: Random) -> Any:
    """A value that JSON or Python can hold in the place of any other."""
    kind = r.randrange(10)
    if kind < 3:
        return r.choice(TEXTS)
    if kind < 6:
        return r.choice(NUMBERS)
    if kind == 6:
        return r.choice(HUGE_NUMBERS)
    if kind == 7:
        return r.choice([None, True, False, [], {}, [[]], [None] * 1000, {"": 1}, {"a": {"a": {}}}])
    if kind == 8:
        return nested(r.choice([5, 50, 400]))
    return [value(r) for _ in range(r.randrange(4))]


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def mutated(r: Random, tree: Any) -> Any:
    """A copy of what JSON holds with one to three of its parts replaced, renamed, taken out or put in."""
    found = copy.deepcopy(tree)
    for _ in range(r.choice([1, 1, 2, 3])):
        places = list(_places(found))
        if not places:
            return value(r)
        parent, key = r.choice(places)
        action = r.randrange(8)
        if action == 0:
            del parent[key]
        elif action == 1 and isinstance(parent, dict):
            parent[r.choice(TEXTS)[:200]] = parent.pop(key)
        elif action == 2 and isinstance(parent, dict):
            parent[r.choice(TEXTS)[:200]] = value(r)
        elif action == 3 and isinstance(parent, list):
            parent *= r.choice([0, 2, 100])
        elif action == 4 and isinstance(parent[key], str) and parent[key]:
            text = parent[key]
            at = r.randrange(len(text))
            parent[key] = text[:at] + r.choice(["", "\0", "é", "/", text]) + text[at + 1 :]
        elif action == 5 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = r.choice(
                [-parent[key], parent[key] * 10**9, parent[key] + 1, str(parent[key]), [parent[key]]]
            )
        else:
            parent[key] = value(r)
    return found


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        for key in keys:
            found.append((here, key))
            waiting.append(here[key])
        if len(found) > 2000:
            break
    return found


def json_text(r: Random, tree: Any) -> str:
    """A mutated tree as JSON, or what is no JSON any more."""
    try:
        text = json.dumps(mutated(r, tree))
    except (ValueError, RecursionError):
        # A number that Python writes down for nobody.
        text = '{"a": ' + "9" * 5000 + "}"
    if r.random() < 0.15 and text:
        at = r.randrange(len(text))
        text = text[:at] + r.choice(["", '"', "{", "\0", "NaN", "9" * 5000, "[" * 5000]) + text[at + r.randrange(3) :]
    return text
