"""What a page may say to its kernel: the few messages of widgets, each taken apart and put together anew.

Voila has a list of message types too, but looks at nothing else, so that a page could make widgets of any class, or
end its kernel through the control channel. Here a message is refused unless all of it is known.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

PROTOCOL = "v1.kernel.websocket.jupyter.org"
"""The one framing that is spoken: the page is ours, and has known it since it was first built."""

LARGEST = 2 * 1024 * 1024
"""Most bytes of a message: files come in pieces of half a megabyte."""

MOST_BUFFERS = 64
"""Most binary parts of a message."""

CONTROL = "jupyter.widget.control"
"""The comm by which a page asks for the state of all widgets; the only one that it opens."""

WIDGETS = "jupyter.widget"
"""The comms of widgets: the kernel opens them."""

_PARTS = 5
"""Channel, header, parent header, metadata and content come before the binary parts."""

_ID = re.compile(r"[\w.:-]{1,100}")
_PATH_STEPS = 20


class Refused(ValueError):
    """A message that does not go through; says why."""


def admit(frame: str | bytes) -> dict[str, Any]:
    """The message of a websocket's frame as it goes to the shell channel of the kernel.

    Only what is known is in it: what a header, or a parent header, held besides is left out.

    Raises:
        Refused: a page has no business to send this.
    """
    channel, header, metadata, content, buffers = _parts(frame)
    if channel != "shell":
        raise Refused(f"nothing goes to the channel {channel[:40]!r}")
    kind = header.get("msg_type")
    rule = _RULES.get(kind) if isinstance(kind, str) else None
    if rule is None:
        raise Refused(f"a page does not send {str(kind)[:40]!r}")
    clean = rule(content, buffers)
    return {
        "header": {
            "msg_type": kind,
            "msg_id": _id(header, "msg_id"),
            "session": _id(header, "session"),
            "username": "",
            "date": _text(header, "date", 40),
            "version": _text(header, "version", 10),
        },
        "parent_header": {},
        "metadata": {"version": _text(metadata, "version", 10)} if kind == "comm_open" else {},
        "content": clean,
        "buffers": list(buffers),
    }


def _parts(
    frame: str | bytes,
) -> tuple[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any], Sequence[bytes]]:
    """A frame taken apart: how many offsets, the offsets, and the parts between them, without gaps."""
    if not isinstance(frame, bytes):
        raise Refused("text is not spoken here")
    if len(frame) > LARGEST:
        raise Refused(f"more than {LARGEST:,} bytes")
    count = int.from_bytes(frame[:8], "little")
    if not _PARTS + 1 <= count <= _PARTS + 1 + MOST_BUFFERS or len(frame) < 8 * (count + 1):
        raise Refused("not framed as it should be")
    offsets = [int.from_bytes(frame[8 * i : 8 * (i + 1)], "little") for i in range(1, count + 1)]
    if offsets != sorted(offsets) or offsets[0] != 8 * (count + 1) or offsets[-1] != len(frame):
        raise Refused("not framed as it should be")
    parts = [frame[start:end] for start, end in pairwise(offsets)]
    header, parent, metadata, content = (_object(part) for part in parts[1:_PARTS])
    # The parent header is read like the rest, and then forgotten: a kernel makes nothing of it.
    del parent
    return parts[0].decode("utf-8", "replace"), header, metadata, content, parts[_PARTS:]


def _object(part: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(part, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_no_doubles)
    except Refused:
        raise
    except (ValueError, RecursionError):
        raise Refused("a part that is not JSON") from None
    if not isinstance(value, dict):
        raise Refused("a part that is no object")
    return value


def _no_number(word: str) -> Any:
    raise Refused(f"{word} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Refused("a number beyond all bounds")
    return value


def _no_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values of one name one reader may take the first and another one the last."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Refused("a name that is given twice")
    return value


def _id(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Refused(f"{name} is not one")
    return value


def _text(values: Mapping[str, Any], name: str, most: int) -> str:
    value = values.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise Refused(f"{name} is not one")
    return value


def _nothing(buffers: Sequence[bytes]) -> None:
    if buffers:
        raise Refused("binary parts where there are none")


# ------------------------------------------------------------------ one rule for each type


def _kernel_info(_content: Mapping[str, Any], buffers: Sequence[bytes]) -> dict[str, Any]:
    _nothing(buffers)
    return {}


def _comm_info(content: Mapping[str, Any], buffers: Sequence[bytes]) -> dict[str, Any]:
    _nothing(buffers)
    if content.get("target_name", WIDGETS) != WIDGETS:
        raise Refused("there are no comms but those of widgets")
    return {"target_name": WIDGETS}


def _comm_open(content: Mapping[str, Any], buffers: Sequence[bytes]) -> dict[str, Any]:
    _nothing(buffers)
    if content.get("target_name") != CONTROL:
        raise Refused(f"a page opens no comm of {str(content.get('target_name'))[:40]!r}")
    return {"comm_id": _id(content, "comm_id"), "target_name": CONTROL, "data": {}}


def _comm_close(content: Mapping[str, Any], buffers: Sequence[bytes]) -> dict[str, Any]:
    _nothing(buffers)
    return {"comm_id": _id(content, "comm_id"), "data": {}}


def _comm_msg(content: Mapping[str, Any], buffers: Sequence[bytes]) -> dict[str, Any]:
    data = content.get("data")
    if not isinstance(data, dict):
        raise Refused("a comm_msg without data")
    method = data.get("method")
    if method == "update":
        state, paths = data.get("state"), data.get("buffer_paths", [])
        if not isinstance(state, dict) or not isinstance(paths, list) or len(paths) != len(buffers):
            raise Refused("an update that is not one")
        if not all(_is_path(path) for path in paths):
            raise Refused("a place in an update that is not one")
        clean = {"method": method, "state": state, "buffer_paths": paths}
    elif method == "custom":
        clean = {"method": method, "content": data.get("content")}
    elif method in ("request_state", "request_states"):
        _nothing(buffers)
        clean = {"method": method}
    else:
        raise Refused(f"widgets have no method {str(method)[:40]!r}")
    return {"comm_id": _id(content, "comm_id"), "data": clean}


def _is_path(path: object) -> bool:
    return isinstance(path, list) and 0 < len(path) <= _PATH_STEPS and all(isinstance(p, (str, int)) for p in path)


_RULES: Mapping[str, Callable[[Mapping[str, Any], Sequence[bytes]], dict[str, Any]]] = {
    "kernel_info_request": _kernel_info,
    "comm_info_request": _comm_info,
    "comm_open": _comm_open,
    "comm_close": _comm_close,
    "comm_msg": _comm_msg,
}
