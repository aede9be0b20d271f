"""Hostile visitors: what they send to a kernel, what they turn its widgets to, what they ask the server for.

A client without a browser speaks the raw protocol to a real ``ssl-lab app``. That code ran would show by a file that
the code makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import struct
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.trust.case import Case, Verdict
from benchmarks.trust.client import (
    PROTOCOL,
    Served,
    Visitor,
    alone,
    channel,
    cookie_of,
    get,
    memory,
    message,
    served,
    v1_frame,
)

MOST_GROWTH = 10_000_000
"""Bytes that a kernel and the server may have grown by after all that was sent."""

SEED = 20_260_101

KINDS = (
    "execute_request", "inspect_request", "complete_request", "history_request", "is_complete_request",
    "connect_request", "comm_info_request", "kernel_info_request", "shutdown_request", "interrupt_request",
    "debug_request", "input_request", "input_reply", "create_subshell_request", "delete_subshell_request",
    "list_subshell_request", "usage_request", "apply_request", "clear_request", "abort_request", "execute_result",
    "execute_reply", "execute_input", "stream", "display_data", "update_display_data", "error", "status",
    "clear_output", "debug_event", "comm_open", "comm_msg", "comm_close", "", "EXECUTE_REQUEST", "execute_request ",
)  # fmt: skip
"""All message types of the Jupyter protocol, and some that are none."""

CHANNELS = ("shell", "control", "stdin", "iopub", "hb", "")

# A server whose pages reach their kernels as Voila lets them, with all message types.
_NO_GUARD = """
import lab.routes
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler
lab.routes.Channels.get = VoilaKernelWebsocketHandler.get
lab.routes.Channels.on_message = VoilaKernelWebsocketHandler.on_message
"""

# One that serves any file, which is what a door too many would do.
_FILES = """
import lab.routes, tornado.web
made = lab.routes.doors
files = (r"/voila/files/(.*)", tornado.web.StaticFileHandler, {"path": "/"})
lab.routes.doors = lambda **words: [*made(**words), files]
"""

# Put on the path of every process: knobs that take any value, and a page that may set anything.
_ANY_VALUE = """
import importlib.util, sys
import ssl_lab.config
ssl_lab.config.Knobs.changed = lambda self, changes: self.model_copy(update=dict(changes))

class Late:
    # Widgets must not be imported before the kernel is there.
    def find_spec(self, name, path=None, target=None):
        if name != "lab.doors":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.close_doors = lambda widgets: None

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Late())
"""


# ------------------------------------------------------------------ messages


class _Attacker:
    """A socket to a kernel that is opened again when the server closes it."""

    def __init__(self, at: Served, kernel: str, cookie: str, protocols: Sequence[str]) -> None:
        self._at, self._kernel, self._cookie, self._protocols = at, kernel, cookie, protocols
        self._socket: Any = None
        self.opened = 0
        self._refusals = 0

    async def send(self, frame: str | bytes) -> bool:
        """Sends a frame; False if there is no way to the kernel."""
        from tornado.websocket import WebSocketClosedError

        for _ in range(3 if self._refusals < 5 else 0):
            try:
                if self._socket is None:
                    session = uuid.uuid4().hex
                    self._socket = await channel(self._at, self._kernel, self._cookie, session, self._protocols)
                    self.opened += 1
                    self._reader = asyncio.create_task(self._read(self._socket))
                await self._socket.write_message(frame, binary=isinstance(frame, bytes))
                return True
            except WebSocketClosedError:
                self._forget()
            except Exception:
                # Refused at the door. A server that did so five times does not speak this protocol.
                self._socket, self._refusals = None, self._refusals + 1
                return False
        return False

    async def _read(self, here: Any) -> None:
        while await here.read_message() is not None:
            pass
        here.close()
        if self._socket is here:
            self._socket = None

    def _forget(self) -> None:
        """Lets go of a socket that the server has closed."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    async def close(self) -> None:
        """Closes the socket, and waits until it is."""
        if self._socket is not None:
            self._socket.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reader, 5.0)


def _with_code(code: str) -> dict[str, Any]:
    """Content with code in every field that any message type has."""
    return {
        "code": code, "silent": False, "store_history": False, "user_expressions": {"x": code, "y": f"exec({code!r})"},
        "allow_stdin": True, "stop_on_error": False, "cursor_pos": len(code), "detail_level": 1, "value": code,
        "target_name": code, "comm_id": code, "data": {"method": "update", "state": {"value": code}, "code": code},
        "restart": True, "arguments": {"code": code, "expression": code, "frameId": 0, "context": "repl"},
        "command": "evaluate", "seq": 1, "type": "request", "subshell_id": code, "prompt": code,
        "hist_access_type": code,
    }  # fmt: skip


def _messages(witness: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(what it is, channel, message): each type on each channel, then widgets of every class, then what hides types."""
    code = f"import pathlib; pathlib.Path({str(witness)!r}).touch()"
    content = _with_code(code)
    for kind in KINDS:
        for way in CHANNELS:
            yield f"{kind} on {way}", way, message(kind, content)
    for target, state in _widgets(code):
        data = {"state": state, "buffer_paths": []}
        opened = {"comm_id": uuid.uuid4().hex, "target_name": target, "data": data, "target_module": "os"}
        name = state.get("_model_name", "")
        yield f"comm_open {target} {name}", "shell", message("comm_open", opened, metadata={"version": "2.1.0"})
    run = {"code": code, "silent": False, "user_expressions": {}, "allow_stdin": False}
    plain = message("comm_msg", {**run, "comm_id": "x", "data": {"method": "custom"}})
    # The type in a place where one reader may look and another one not.
    yield "a type in the parent header", "shell", {**plain, "parent_header": message("execute_request", run)["header"]}
    yield "a type in the metadata", "shell", {**plain, "metadata": message("execute_request", run)["header"]}
    for header in ({"msg_type": ["execute_request"]}, {"msg_type": None}, {"subshell_id": "x"}, {"msg_id": code}):
        yield f"a header with {header}", "shell", message("execute_request", run, header=header)


def _widgets(code: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every widget class that is installed here, and comms that are none."""
    import anywidget  # noqa: F401
    import bqplot  # noqa: F401
    from ipywidgets.widgets.widget import _registry

    for module, version, name, view_module, view_version, view in _classes(_registry):
        yield "jupyter.widget", {
            "_model_module": module, "_model_module_version": version, "_model_name": name, "_view_module": view_module,
            "_view_module_version": view_version, "_view_name": view, "value": code, "_esm": code, "msg_id": code,
            "description": code,
        }  # fmt: skip
    for target in ("jupyter.widget.version", "ipython.widget", code, "os.system", "jupyter.widget.control "):
        yield target, {"value": code}


def _classes(registry: Any) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Module, version and name of each model that ipywidgets' registry knows, and of its views."""
    for module, versions in registry._registry.items():
        for version, models in versions.items():
            for model, view_modules in models.items():
                for view_module, view_versions in view_modules.items():
                    for view_version, views in view_versions.items():
                        for view in views:
                            yield module, version or "", model, view_module or "", view_version or "", view or ""


def _frames(said: Mapping[str, Any], way: str) -> Iterator[bytes | str]:
    """The message in every framing that Jupyter has had."""
    yield v1_frame(said, way)
    legacy = {**said, "channel": way}
    yield json.dumps(legacy)
    body = json.dumps({**legacy, "buffers": []}).encode()
    yield struct.pack("!II", 1, 8) + body


def _broken(witness: Path) -> Iterator[bytes | str]:
    """Frames that are none, or more than one."""
    whole = v1_frame(next(_messages(witness))[2], "shell")
    yield from (b"", b"\0" * 8, b"\xff" * 64, whole[:40], whole[:-3], whole + b"x", whole[:8] + whole, "", "[]", "null")
    yield (10**9).to_bytes(8, "little") + whole[8:]
    header = json.dumps(message("comm_msg", {})["header"])[:-1] + ', "msg_type": "execute_request"}'
    yield _raw("shell", header.encode(), b"{}", b"{}", json.dumps(_with_code("1")).encode())
    yield _raw("shell", b"[" * 100_000, b"{}", b"{}", b"{}")
    yield _raw("shell", json.dumps(message("comm_msg", {})["header"]).encode(), b"{}", b"{}", b'{"comm_id": NaN}')
    yield _raw("shell", b"\xff\xfe", b"{}", b"{}", b"{}")


def _raw(*parts: str | bytes) -> bytes:
    texts = [part.encode() if isinstance(part, str) else part for part in parts]
    offsets = [8 * (len(texts) + 2)]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    return b"".join([n.to_bytes(8, "little") for n in (len(offsets), *offsets)] + texts)


async def _say_everything(
    at: Served, kernel: str, cookie: str, witness: Path, verdict: Verdict, patience: float = 3.0
) -> None:
    """Every message in every framing, on a socket of each protocol; ends when code has run."""
    ways = {name: _Attacker(at, kernel, cookie, said) for name, said in (("v1", [PROTOCOL]), ("legacy", []))}
    # The plainest first, and by itself: what comes after brings a server down that is not guarded.
    verdict.tried += 1
    arrived = int(await ways["v1"].send(v1_frame(next(_messages(witness))[2])))
    if await _soon(witness.exists, patience):
        await ways["v1"].close()
        return
    for _, way, said in _messages(witness):
        for frame in _frames(said, way):
            for attacker in ways.values():
                verdict.tried += 1
                arrived += await attacker.send(frame)
    for frame in _broken(witness):
        for attacker in ways.values():
            verdict.tried += 1
            arrived += await attacker.send(frame)
    # Too large by far: the socket is closed, and nothing kept.
    await ways["v1"].send(v1_frame(message("comm_msg", {}, buffers=[bytes(8_000_000)])))
    verdict.tried += 1
    await _soon(witness.exists, 2.0)
    verdict.notes.append(f"{arrived:,} messages written, {sum(way.opened for way in ways.values())} sockets opened")
    for attacker in ways.values():
        await attacker.close()


async def _open_comms(at: Served, kernel: str, cookie: str, count: int, verdict: Verdict) -> None:
    """Half of them of the one kind that a page opens."""
    attacker = _Attacker(at, kernel, cookie, [PROTOCOL])
    for number in range(count):
        target = ("jupyter.widget.control", "jupyter.widget")[number % 2]
        content = {"comm_id": uuid.uuid4().hex, "target_name": target, "data": {"state": {"value": "x" * 200}}}
        verdict.tried += 1
        await attacker.send(v1_frame(message("comm_open", content, metadata={"version": "1.0.0"})))
    await attacker.close()


async def _soon(ask: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ask():
            return True
        await asyncio.sleep(0.05)
    return bool(ask())


def hostile(count: int, folder: Path) -> Verdict:
    """Sends everything to the kernel of an open page, and then so many comms; the page has to work after it."""
    verdict = Verdict()
    witness = folder / "code-ran"
    with served(folder / "results", "--own-only") as at:
        alone(lambda: _hostile(at, witness, count, verdict))
    if witness.exists():
        verdict.failures.append("code of a visitor ran")
    return verdict


async def _hostile(at: Served, witness: Path, count: int, verdict: Verdict) -> None:
    cookie = await cookie_of(at)
    page = await Visitor.open(at, cookie, seconds=90)
    await page.until_picture(90)
    if page.first_picture is None:
        verdict.failures.append("the page showed no picture before anything was sent")
    kernel = max(at.kernels(), key=lambda pid: _owns(pid, page))
    control = await page.control()
    # Once everything was there once: what is compiled or cached then stays.
    await _say_everything(at, page.kernel, cookie, witness, verdict)
    await _open_comms(at, page.kernel, cookie, 100, verdict)
    before = {"kernel": memory(kernel), "server": memory(at.pid)}
    await _open_comms(at, page.kernel, cookie, count, verdict)
    await asyncio.sleep(2.0)
    for name, pid in (("kernel", kernel), ("server", at.pid)):
        grown = memory(pid) - before[name]
        verdict.notes.append(f"{name} {grown / 1e6:+.1f} MB")
        if grown > MOST_GROWTH:
            verdict.failures.append(f"the {name} grew by {grown / 1e6:.1f} MB")
    if page.closed.is_set():
        verdict.failures.append(f"the page lost its kernel: {page.trouble}")
        return
    # The page still works, and its kernel has made no widget for anybody.
    pictures = page.pictures
    await page.press("Step")
    if not await _soon(lambda: page.pictures > pictures, 60.0):
        verdict.failures.append("the page draws no more")
    known, page.models = page.models, {}
    await page.say("comm_msg", {"comm_id": control, "data": {"method": "request_states"}})
    if not await _soon(lambda: page.models, 60.0):
        verdict.failures.append("the page is not told of its widgets any more")
    if made := set(page.models) - set(known):
        verdict.failures.append(f"{len(made)} widgets were made by messages")
    await page.close()


def _owns(pid: int, page: Visitor) -> int:
    """Whether the run of the page is open in this process."""
    with contextlib.suppress(OSError):
        names = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
        return sum(f"/{page.run}/" in name for name in names)
    return 0


def hostile_fault(folder: Path) -> Verdict:
    """The same against a server that lets every message through."""
    verdict = Verdict()
    witness = folder / "code-ran"
    notebooks = _notebook(folder)
    with served(folder / "results", planted=_NO_GUARD, notebooks=notebooks) as at:

        async def attack() -> None:
            cookie = await cookie_of(at)
            _, _, body = await get(at, "/voila/render/01-bench.ipynb", cookie)
            kernel = body.decode().partition('"kernelId": "')[2].partition('"')[0]
            await _say_everything(at, kernel, cookie, witness, verdict, patience=40.0)

        alone(attack)
    if witness.exists():
        verdict.failures.append("code of a visitor ran")
    return verdict


def _notebook(folder: Path) -> Path:
    """A folder with one small notebook."""
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    cell: dict[str, Any] = {
        "cell_type": "code", "id": "cell", "metadata": {}, "execution_count": None, "outputs": [],
        "source": "import ipywidgets\nipywidgets.IntSlider()",
    }  # fmt: skip
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    said = {"cells": [cell], "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    (notebooks / "01-bench.ipynb").write_text(json.dumps(said))
    return notebooks


# ------------------------------------------------------------------ settings


VALUES: Sequence[Any] = (
    -1, 0, 1, 2, 1e9, -1e9, 1e300, 10**30, 0.5, -0.5, True, False, None, "", "x", "nan", "inf", "1e999", "0.5", [], [1],
    [[]], {}, {"value": 1}, "a" * 5_000, [0] * 1_000, "../../../etc/passwd", "<script>alert(1)</script>",
)  # fmt: skip
"""What traits are set to: of other kinds, out of range, or very large."""

TURNED = (
    "FloatSliderModel", "FloatLogSliderModel", "BoundedFloatTextModel", "DropdownModel", "CheckboxModel",
    "IntSliderModel",
)  # fmt: skip
"""What a page turns a knob with."""

TRAITS = ("value", "min", "max", "step", "index", "step", "lower", "upper", "ticked", "most_bytes", "visible")


async def _turn_everything(at: Served, results: Path, count: int, verdict: Verdict) -> None:
    draw = random.Random(SEED)
    page = await Visitor.open(at, await cookie_of(at), seconds=90)
    await page.until_picture(90)
    models = [name for name, model in page.models.items() if model["model_name"] not in ("LayoutModel",)]
    turning = [name for name in models if page.models[name]["model_name"] in TURNED]
    await page.press("Run")
    # The engine has to be there: what is turned before it comes is answered when nobody looks any more.
    if not await _soon(lambda: _stepped(results / page.run), 120.0):
        verdict.failures.append("the run took no step")
    for number in range(count):
        # Three of four where something is turned: knobs, lists, sliders with other bounds than they had.
        model = draw.choice(turning if draw.random() < 0.75 else models)
        state = page.models[model]["state"]
        names = [name for name in TRAITS if name in state] or sorted(state)
        chosen = {name: draw.choice(VALUES) for name in draw.sample(names, min(len(names), draw.randint(1, 3)))}
        if "value" in state and isinstance(state["value"], float) and draw.random() < 0.5:
            wide = {"min": -1e12, "max": 1e12, "value": draw.choice((-7.5, 1e11, 42.0, -1e-9))}
            # Now and then one that may be, so that some are seen to arrive.
            chosen = {"value": draw.uniform(0.1, 0.9)} if draw.random() < 0.3 else wide
        verdict.tried += 1
        if page.closed.is_set():
            verdict.failures.append(f"the page lost its kernel at message {number}: {page.trouble}")
            return
        await page.set(model, chosen)
        if number % 50 == 49:
            await page.press("Run")
            await asyncio.sleep(0.2)
    # What was sent is taken from the page one by one, and answered at steps.
    await asyncio.sleep(3.0)
    await _soon(lambda: _answered(results / page.run), 20.0)
    await page.close()


def _stepped(run: Path) -> bool:
    from ssl_lab.store import RunStore

    with RunStore.open(run, readonly=True) as store:
        return store.last_step() > 0


def _answered(run: Path) -> bool:
    from ssl_lab.store import RunStore

    with RunStore.open(run, readonly=True) as store:
        return not store.waiting()


def _out_of_range(results: Path) -> Iterator[str]:
    """Every knob of every record that is not what a knob may be."""
    from ssl_lab.config import Knobs
    from ssl_lab.errors import SSLLabError
    from ssl_lab.store import RunStore

    for path in sorted(results.glob("*/run.sqlite")):
        with RunStore.open(path, readonly=True) as store:
            for event in store.events():
                try:
                    Knobs().changed(event.changes)
                except SSLLabError as error:
                    yield f"{store.name}, event {event.number}: {error}"
            if not all(map(math.isfinite, store.losses().tolist())):
                try:
                    if store.status().state == "running":
                        yield f"{store.name} goes on without a finite loss"
                except SSLLabError as error:
                    yield str(error)


def settings(count: int, folder: Path) -> Verdict:
    """Sets traits of all widgets to values that they never had; no record may hold a knob out of its range."""
    return _settings(count, folder, {})


def _settings(count: int, folder: Path, environment: Mapping[str, str]) -> Verdict:
    from ssl_lab.errors import SSLLabError
    from ssl_lab.store import RunStore

    verdict = Verdict()
    results = folder / "results"
    with served(results, environment=environment) as at:
        alone(lambda: _turn_everything(at, results, count, verdict))
    events = refused = 0
    states = []
    for path in sorted(results.glob("*/run.sqlite")):
        with RunStore.open(path, readonly=True) as store:
            events, refused = events + len(store.events()), refused + len(store.refused())
            try:
                states.append(store.status().state)
            except SSLLabError as error:
                verdict.failures.append(str(error))
    verdict.notes.append(f"{events} knob events, {refused} refused by the engine, runs are {', '.join(states)}")
    if not events + refused:
        verdict.failures.append("nothing that was sent came to a knob: this tried nothing")
    verdict.failures += list(_out_of_range(results))
    return verdict


def settings_fault(folder: Path) -> Verdict:
    """The same with an engine whose knobs take any value."""
    (folder / "sitecustomize.py").write_text(_ANY_VALUE)
    path = os.pathsep.join([str(folder), str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    return _settings(150, folder, {"PYTHONPATH": path})


# ------------------------------------------------------------------ addresses

UP = (
    "..", "%2e%2e", "%252e%252e", "%2e.", ".%2e", "..%2f..", "..%5c..", "..\\..", "....//", "..;", "%c0%ae%c0%ae",
    "%uff0e%uff0e", "..%00", "%2e%2e%00", "..%0a",
)  # fmt: skip
"""Ways to write the folder above."""

BASES = (
    "/", "/voila/", "/voila/files/", "/voila/static/", "/voila/templates/", "/voila/templates/ssl-lab/static/",
    "/voila/templates/ssl-lab/", "/voila/templates/lab/static/", "/voila/labextensions/",
    "/voila/labextensions/bqplot/static/", "/voila/labextensions/@jupyter-widgets/", "/voila/render/", "/voila/tree/",
    "/voila/api/contents/", "/voila/api/themes/", "/voila/api/", "/files/", "/notebooks/", "/api/contents/",
    "/api/kernels/", "/static/", "/nbextensions/", "/lab/", "/login/",
)  # fmt: skip
"""Where files may be asked for."""

QUERIES = (
    "template=../../../../etc", "voila-template=../../../../etc", "theme=../../../../etc", "voila-theme=/etc/passwd",
    "download=1", "content=1&type=file&format=text", "v=../../../../etc/passwd", "run=../../../../etc/passwd",
    "next=//example.org/", "classic-tree=false", "reload=1&path=/etc/passwd",
)  # fmt: skip


def addresses(files: Sequence[Path]) -> list[str]:
    """Crafted addresses for these files, in an order of their own, the same each time."""
    draw = random.Random(SEED)
    made = []
    for base in BASES:
        for up in UP:
            made.append(base + "/".join([up] * draw.randint(1, 12)) + str(draw.choice(files)))
        for path in files:
            made += [f"{base}{path}", f"{base}{path.name}", f"{base}~root/{path.name}"]
            made.append(f"{base}{path.name}?{draw.choice(QUERIES)}")
    draw.shuffle(made)
    plain = [base + str(path).lstrip("/") for base, path in zip(BASES, [*files, *files, *files], strict=False)]
    return list(dict.fromkeys([*plain, *made]))


def _witnesses(folder: Path) -> tuple[Path, dict[Path, bytes]]:
    """A folder of notebooks with links out of it, and files with the bytes that must never be in an answer."""
    notebooks = _notebook(folder)
    outside = folder / "outside.txt"
    outside.write_text("OUTSIDE-WITNESS-7f3a")
    inside = notebooks / "notes.txt"
    inside.write_text("INSIDE-WITNESS-81bc")
    hidden = notebooks / ".secret"
    hidden.write_text("HIDDEN-WITNESS-55d0")
    (notebooks / "link.txt").symlink_to(outside)
    (notebooks / "link.ipynb").symlink_to(outside)
    run = folder / "results" / "a-run"
    run.mkdir(parents=True)
    (run / "run.sqlite").write_bytes(b"SQLite format 3\0RUN-WITNESS-c2d9")
    lab = Path(__file__).resolve().parents[2] / "lab"
    shutil.copy(lab / "serve.py", notebooks / "code.py")
    return notebooks, {
        outside: b"OUTSIDE-WITNESS-7f3a",
        inside: b"INSIDE-WITNESS-81bc",
        run / "run.sqlite": b"RUN-WITNESS-c2d9",
        hidden: b"HIDDEN-WITNESS-55d0",
        notebooks / "link.ipynb": b"OUTSIDE-WITNESS-7f3a",
        notebooks / "link.txt": b"OUTSIDE-WITNESS-7f3a",
        notebooks / "code.py": b"def notebooks_dir()",
        lab / "serve.py": b"def notebooks_dir()",
        notebooks / "01-bench.ipynb": b"ipywidgets.IntSlider()",
        Path("/etc/passwd"): b"root:x:0:0:",
    }


def urls(count: int, folder: Path) -> Verdict:
    """Asks a server for files by so many addresses, once let in."""
    return _urls(count, folder, "")


def urls_fault(folder: Path) -> Verdict:
    """The same of a server that has a door for files."""
    return _urls(60, folder, _FILES)


def _urls(count: int, folder: Path, planted: str) -> Verdict:
    verdict = Verdict()
    notebooks, files = _witnesses(folder)
    crafted = addresses(list(files))[:count]

    async def ask(at: Served) -> None:
        cookie = await cookie_of(at)
        answered: dict[int, int] = {}
        for address in crafted:
            verdict.tried += 1
            status, _, body = await get(at, address.replace(" ", "%20"), cookie)
            answered[status] = answered.get(status, 0) + 1
            for path, words in files.items():
                if words in body:
                    verdict.failures.append(f"{address} gives what is in {path.name}")
                    break
        verdict.notes.append(", ".join(f"{number} of {status}" for status, number in sorted(answered.items())))

    with served(folder / "results", planted=planted, notebooks=notebooks) as at:
        alone(lambda: ask(at))
    return verdict


CASES = (
    Case(
        name="hostile-visitor", what="no message of a visitor runs code, and opened comms take no memory",
        whole=10_000, quick=600, run=hostile, fault=hostile_fault, fault_words="a server that lets messages through",
    ),
    Case(
        name="settings", what="no value that a page sends puts a knob out of its range",
        whole=2_000, quick=150, run=settings, fault=settings_fault, fault_words="knobs that take any value",
    ),
    Case(
        name="urls", what="no crafted address gives the bytes of a file",
        whole=200, quick=200, run=urls, fault=urls_fault, fault_words="a server with a door for files",
    ),
)  # fmt: skip
