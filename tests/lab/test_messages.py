"""What a page may say to its kernel, and how much of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab import guard
from lab.guard import Bucket, Guard
from lab.messages import CONTROL, LARGEST, MOST_BUFFERS, Refused, admit

HEADER = {
    "date": "2026-11-25T15:15:56.601Z", "msg_id": "ac91cc9b-8d8a-4775-90c7-b984801f50ba", "session": "6744fd2d",
    "username": "", "version": "5.2",
}  # fmt: skip


def parts(*said: Any) -> bytes:
    """A frame of these parts; what is no text or bytes is written as JSON."""
    written = [
        p if isinstance(p, bytes) else p.encode() if isinstance(p, str) else json.dumps(p).encode() for p in said
    ]
    offsets = [8 * (len(written) + 2)]
    for part in written:
        offsets.append(offsets[-1] + len(part))
    return b"".join([n.to_bytes(8, "little") for n in (len(offsets), *offsets)] + written)


def frame(
    kind: Any, content: Any, *buffers: bytes, channel: str = "shell", header: Any = None, metadata: Any = None
) -> bytes:
    return parts(channel, {**HEADER, "msg_type": kind, **(header or {})}, {}, metadata or {}, content, *buffers)


def update(state: Any, **more: Any) -> dict[str, Any]:
    return {"comm_id": "a1", "data": {"method": "update", "state": state, "buffer_paths": [], **more}}


OURS = {
    "info": frame("kernel_info_request", {}),
    "comms": frame("comm_info_request", {"target_name": "jupyter.widget"}),
    "open": frame(
        "comm_open", {"comm_id": "be62", "target_name": CONTROL, "data": {}}, metadata={"version": "1.0.0"}
    ),
    "states": frame("comm_msg", {"comm_id": "be62", "data": {"method": "request_states"}}),
    "close": frame("comm_close", {"comm_id": "be62", "data": {}}),
    "state": frame("comm_msg", {"comm_id": "a1", "data": {"method": "request_state"}}),
    "turn": frame("comm_msg", update({"value": 0.3})),
    "press": frame("comm_msg", {"comm_id": "a1", "data": {"method": "custom", "content": {"event": "click"}}}),
    "piece": frame(
        "comm_msg", {"comm_id": "a1", "data": {"method": "custom", "content": {"drop": 7, "at": 0}}}, b"x" * 524_288
    ),
    "array": frame("comm_msg", update({"x": {}}, buffer_paths=[["x", "value"]]), b"1234"),
}  # fmt: skip
"""What pages were seen to send in Chromium, and what the widget manager sends besides when it has to begin again."""


@pytest.mark.parametrize("name", OURS)
def test_what_a_page_says_goes_through(name: str) -> None:
    message = admit(OURS[name])
    assert set(message) == {"header", "parent_header", "metadata", "content", "buffers"}
    assert message["parent_header"] == {}
    assert message["header"]["msg_id"] == HEADER["msg_id"]


def test_what_it_says_is_the_same_and_no_more() -> None:
    message = admit(OURS["turn"])
    assert message["content"] == update({"value": 0.3})
    assert admit(OURS["piece"])["buffers"] == [b"x" * 524_288]
    assert admit(OURS["open"])["metadata"] == {"version": "1.0.0"}
    said = frame("comm_msg", {**update({}), "code": "1"}, header={"subshell_id": "x"}, metadata={"cellId": "y"})
    message = admit(said)
    assert "subshell_id" not in message["header"]
    assert message["metadata"] == {}
    assert message["content"] == update({})


KINDS = (
    "execute_request", "inspect_request", "complete_request", "history_request", "is_complete_request",
    "connect_request", "shutdown_request", "interrupt_request", "debug_request", "input_reply", "usage_request",
    "create_subshell_request", "delete_subshell_request", "list_subshell_request", "stream", "comm_msg ", "", None, 1,
    ["execute_request"], {"comm_msg": 1},
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_other_type_goes_through(kind: Any) -> None:
    with pytest.raises(Refused, match="does not send"):
        admit(frame(kind, {"code": "1", **update({})}))


@pytest.mark.parametrize("channel", ["control", "stdin", "iopub", "hb", "", "shell ", "SHELL"])
@pytest.mark.parametrize("kind", ["kernel_info_request", "comm_msg"])
def test_nothing_goes_to_another_channel(kind: str, channel: str) -> None:
    with pytest.raises(Refused, match="channel"):
        admit(frame(kind, update({}), channel=channel))


@pytest.mark.parametrize(
    "target", ["jupyter.widget", "jupyter.widget.version", "os", CONTROL + " ", None, 3, [CONTROL]], ids=str
)
def test_no_comm_is_opened_but_the_one(target: Any) -> None:
    opened = {"comm_id": "a", "target_name": target, "data": {"state": {"_model_module": "@jupyter-widgets/base"}}}
    with pytest.raises(Refused, match="opens no comm"):
        admit(frame("comm_open", opened))


BAD = {
    "no data": frame("comm_msg", {"comm_id": "a"}),
    "another method": frame("comm_msg", {"comm_id": "a", "data": {"method": "backbone"}}),
    "no method": frame("comm_msg", {"comm_id": "a", "data": {}}),
    "no comm": frame("comm_msg", {"data": {"method": "request_state"}}),
    "a comm that is none": frame("comm_close", {"comm_id": "a b; c", "data": {}}),
    "a state that is none": frame("comm_msg", update([])),
    "paths without buffers": frame("comm_msg", update({}, buffer_paths=[["x"]])),
    "buffers without paths": frame("comm_msg", update({}), b"x"),
    "a path that is none": frame("comm_msg", update({}, buffer_paths=["x"]), b"x"),
    "a path into nothing": frame("comm_msg", update({}, buffer_paths=[[]]), b"x"),
    "buffers of a question": frame("kernel_info_request", {}, b"x"),
    "other comms": frame("comm_info_request", {"target_name": "x"}),
    "not a number": parts("shell", {**HEADER, "msg_type": "comm_msg"}, {}, {}, '{"comm_id": "a", "data": NaN}'),
    "beyond all bounds": parts("shell", {**HEADER, "msg_type": "comm_msg"}, {}, {}, '{"data": 1e999}'),
    "more digits than any": parts("shell", {**HEADER, "msg_type": "comm_msg"}, {}, {}, '{"data": ' + "9" * 9_999 + "}"),
    "a type twice": parts("shell", '{"msg_type": "comm_msg", "msg_type": "execute_request"}', {}, {}, {}),
    "nested without end": parts("shell", "[" * 100_000, {}, {}, {}),
    "no object": parts("shell", [], {}, {}, {}),
    "no text": parts("shell", b"\xff\xfe", {}, {}, {}),
    "no id": frame("kernel_info_request", {}, header={"msg_id": 3}),
    "a long name": frame("kernel_info_request", {}, header={"version": "5" * 99}),
    "text": OURS["turn"].decode("latin-1"),
    "nothing": b"",
    "zeros": b"\0" * 64,
    "ones": b"\xff" * 64,
    "cut off": OURS["turn"][:-1],
    "something behind": OURS["turn"] + b"x",
    "two": OURS["turn"] * 2,
    "too few parts": parts("shell", {}, {}, {}),
    "too many parts": frame("comm_msg", update({}), *[b""] * (MOST_BUFFERS + 1)),
    "too large": frame("comm_msg", update({}), b"x" * LARGEST),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_whole_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        admit(BAD[name])


def test_parts_that_overlap_are_refused() -> None:
    whole = OURS["turn"]
    offsets = [int.from_bytes(whole[8 * i : 8 * i + 8], "little") for i in range(1, 7)]
    offsets[2] = offsets[1]
    swapped = [offsets[0], offsets[2], offsets[1] - 3, *offsets[3:]]
    broken = whole[:8] + b"".join(n.to_bytes(8, "little") for n in swapped) + whole[56:]
    with pytest.raises(Refused, match="framed"):
        admit(broken)


# ------------------------------------------------------------------ how much


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_what_has_come_in() -> None:
    clock = _Clock()
    bucket = Bucket(10.0, 20.0, clock)
    assert [bucket.take(10) for _ in range(3)] == [0.0, 0.0, 1.0]
    clock.now = 1.0
    assert not bucket.spare(1)
    clock.now = 100.0
    assert bucket.spare(20)
    assert not bucket.spare(1)


def test_a_person_who_drags_and_a_file_that_is_dropped_never_wait() -> None:
    clock = _Clock()
    watched = Guard(clock)
    for number in range(6_000):
        clock.now = number / 120  # As often as a screen shows anything.
        assert watched.hear(OURS["turn"]).wait == 0
    pieces = Guard(clock)
    for _ in range(1_000):
        clock.now += 0.04
        assert pieces.hear(OURS["piece"]).wait == 0


def test_what_comes_too_fast_waits() -> None:
    clock = _Clock()
    watched = Guard(clock)
    waits = [watched.hear(OURS["turn"]).wait for _ in range(int(guard.MESSAGES[1]) + 200)]
    assert not any(waits[:900])
    assert waits[-1] == pytest.approx(200 / guard.MESSAGES[0])
    large = Guard(clock)
    assert sum(large.hear(OURS["piece"]).wait > 0 for _ in range(200)) > 100


def test_so_many_comms_and_no_more() -> None:
    watched = Guard(_Clock())

    def opened(number: int) -> bool:
        said = {"comm_id": f"c{number}", "target_name": CONTROL, "data": {}}
        return watched.hear(frame("comm_open", said)).message is not None

    assert [opened(number) for number in range(10_000)].count(True) == guard.MOST_COMMS
    assert watched.hear(frame("comm_close", {"comm_id": "c3", "data": {}})).message is not None
    assert opened(10_001)
    assert not opened(10_002)


def test_the_state_of_all_widgets_is_not_asked_for_all_the_time() -> None:
    clock = _Clock()
    watched = Guard(clock)
    assert sum(watched.hear(OURS["states"]).message is not None for _ in range(100)) == guard.ALL_STATES[1]
    clock.now = 2.0
    assert watched.hear(OURS["states"]).message is not None
    assert watched.hear(OURS["turn"]).message is not None


def test_what_a_kernel_says_in_an_older_framing_is_not_counted_through() -> None:
    """After a socket has closed jupyter_server falls back to it; Voila would loop as often as its first bytes say."""
    from jupyter_server.services.kernels.connection.base import serialize_binary_message, serialize_msg_to_ws_v1

    from benchmarks.trust.client import message
    from lab.routes import may_be_v1

    said = message("comm_msg", {"comm_id": "x"})
    with_buffers = {**said, "buffers": [b"12345678"]}
    assert not may_be_v1(serialize_binary_message(with_buffers))
    parts = [b"{}", b"{}", b"{}", b"{}"]
    framed = serialize_msg_to_ws_v1(parts + [b"buffer"] * 50, "iopub")
    assert may_be_v1(b"".join(bytes(part) for part in framed))
    assert not may_be_v1(b"")
