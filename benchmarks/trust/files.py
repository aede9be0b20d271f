"""Hostile files: thousands of spoiled inputs for everything that reads what a stranger made.

Each loader runs in a process of its own, which notes all that it writes, starts, connects to and unpickles; a process
that takes too long for an input is ended by the system, and another goes on with the next.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.trust.case import Case, Verdict
from benchmarks.trust.loaders import LOADERS, Loader

SECONDS = 5.0
"""Processor's time that an input may take."""

PATIENCE = 120.0
"""Seconds by the clock after which an input that takes no time of the processor is given up, such as one that waits."""

MEMORY = 1_000_000_000
"""Bytes of the process at its largest, the interpreter and torch included."""

FAULTS = ("foreign", "outside", "unpickle", "starts", "hang")
"""Planted faults: an error of somebody else's, a file outside, a pickle, a program started, a loop without end."""

ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------ in the process of a loader


class Guard:
    """Notes what a process does besides reading: files written, removed, renamed; programs; sockets; pickles.

    Args:
        allowed: the folder in which all of that may be done.
    """

    _PATHS = frozenset(
        {
            "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
            "os.chown", "os.utime", "os.mknod", "os.mkfifo", "sqlite3.connect", "shutil.rmtree", "shutil.copyfile",
            "shutil.move",
        }
    )  # fmt: skip
    _NEVER = frozenset(
        {
            "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen",
            "socket.connect", "socket.bind", "socket.getaddrinfo", "pickle.find_class", "urllib.Request",
            "webbrowser.open",
        }
    )  # fmt: skip

    def __init__(self, allowed: Path) -> None:
        self._allowed = os.path.realpath(allowed)
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in self._NEVER:
            self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if writes and isinstance(path, str | bytes | os.PathLike) and not self._inside(path):
                self.seen.append(f"open {path!r} {mode} {flags}")
        elif event in self._PATHS:
            for path in arguments[: 2 if event in ("os.rename", "os.symlink", "shutil.move") else 1]:
                if isinstance(path, str | bytes | os.PathLike) and not self._inside(path):
                    self.seen.append(f"{event} {path!r}")

    def _inside(self, path: Any) -> bool:
        text = os.fsdecode(path)
        if text.startswith("file:"):
            from urllib.parse import unquote

            text, _, way = text.removeprefix("file://").partition("?")
            text = unquote(text)
            # What is only looked at may lie elsewhere, such as a recording of the lab.
            if "mode=ro" in way or "immutable=1" in way:
                return True
        if text in (":memory:", os.devnull):
            return True
        parent = os.path.realpath(os.path.dirname(os.path.abspath(text)))
        return parent == self._allowed or parent.startswith(self._allowed + os.sep)


def canaries(outside: Path) -> str:
    """A digest of all that lies in the folder that nobody may touch."""
    found = hashlib.sha256()
    for path in sorted(outside.rglob("*")):
        state = path.lstat()
        found.update(f"{path.relative_to(outside)}|{state.st_size}|{state.st_mtime_ns}|{state.st_mode}\n".encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


def peak() -> int:
    """Bytes of this process at its largest so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _faulty(loader: Loader, fault: str, folder: Path) -> None:
    """What a loader does that has the planted fault."""
    if fault == "foreign":
        raise KeyError("an error of somebody else's")
    if fault == "outside":
        (folder / "outside" / "planted").write_text("x")
    elif fault == "unpickle":
        pickle.loads(pickle.dumps(Counter))
    elif fault == "starts":
        subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    elif fault == "hang":
        while True:
            pass
    loader.read()


def work(name: str, first: int, count: int, folder: Path, faults: bool) -> None:
    """Tries inputs ``first`` to ``count`` of a loader; says a line of JSON for each on the standard output."""
    from ssl_lab.errors import SSLLabError

    # To the words of the lab alone: what others print or warn is no part of the answer.
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    outside = folder / "outside"
    loader = LOADERS[name](folder)
    # What is imported later leaves nothing beside its source.
    sys.dont_write_bytecode = True
    before, guard = canaries(outside), Guard(folder)
    for number in range(first, count):
        r = random.Random(f"{name} {number}")
        words = loader.spoil(r)
        # Said before: an input that ends the process is known by it.
        print(json.dumps({"begin": number, "words": words}), file=say)
        guard.seen.clear()
        guard.on = True
        planted = FAULTS[number % len(FAULTS)] if faults else ""
        _clock(0.5 if planted == "hang" else SECONDS)
        begun, wrong, refused = time.process_time(), "", ""
        try:
            if planted:
                _faulty(loader, planted, folder)
            else:
                loader.read()
        except SSLLabError as error:
            refused = str(error)
            if len(refused) > 5000 or not refused.strip():
                wrong = f"an error of {len(refused)} characters"
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            wrong = f"{type(error).__name__}: {str(error)[:300]} ({Path(last.filename).name}:{last.lineno})"
        taken = time.process_time() - begun
        _clock(0)
        guard.on = False
        after = canaries(outside)
        if guard.seen:
            wrong = f"{wrong} touched: {'; '.join(guard.seen[:3])}".strip()
        if after != before:
            wrong, before = f"{wrong} what lies outside has changed".strip(), after
        loader.clean()
        print(
            json.dumps({"end": number, "wrong": wrong, "refused": bool(refused), "seconds": taken, "peak": peak()}),
            file=say,
        )


def _clock(seconds: float) -> None:
    """Has the system end this process after so much of the processor's time, also inside a library; 0 for never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE if seconds else 0)


# ------------------------------------------------------------------ in the harness


@contextmanager
def prepared(name: str, folder: Path) -> Iterator[Path]:
    """A folder with the seeds of a loader, and in it one of what nobody may touch."""
    (folder / "seeds").mkdir(exist_ok=True)
    LOADERS[name].seed(folder / "seeds")
    outside = folder / "outside"
    (outside / "sub").mkdir(parents=True, exist_ok=True)
    for path in (outside / "precious", outside / "sub" / "run.sqlite"):
        path.write_text("not to be touched")
    yield folder


def attempt(name: str, count: int, folder: Path, *, first: int = 0, faults: bool = False) -> Verdict:
    """The inputs ``first`` to ``count`` of a loader."""
    verdict, refused = Verdict(), 0
    slowest, largest = (0.0, ""), (0, "")
    with prepared(name, folder):
        at = first
        while at < count:
            words = ""
            for line in _lines(name, at, count, folder, faults):
                if "begin" in line:
                    at, words = line["begin"], line["words"]
                    continue
                at += 1
                verdict.tried += 1
                refused += line["refused"]
                slowest = max(slowest, (line["seconds"], f"{line['end']} ({words[:60]})"))
                if line["peak"] > largest[0]:
                    largest = (line["peak"], f"{line['end']} ({words[:60]})")
                if line["wrong"]:
                    verdict.failures.append(f"{line['end']} ({words}): {line['wrong']}")
    verdict.notes += [
        f"{refused:,} refused in words",
        f"slowest {slowest[0]:.1f} s: {slowest[1]}",
        f"largest process {largest[0] / 1e6:,.0f} MB: {largest[1]}",
    ]
    if largest[0] > MEMORY and not faults:
        verdict.failures.append(f"the process took {largest[0] / 1e6:,.0f} MB: {largest[1]}")
    return verdict


def _lines(name: str, first: int, count: int, folder: Path, faults: bool) -> Iterator[dict[str, Any]]:
    """What the process of a loader says, and at its end, if it ended before all was done, how."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1",
        "SSL_LAB_CACHE": str(folder / "cache"), "MPLCONFIGDIR": str(folder),
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.trust.files", name, str(first), str(count), str(folder)]
    log = folder / "words"
    begun = -1
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, *(["--faults"] if faults else [])], stdout=subprocess.PIPE, stderr=errors, cwd=folder,
            env=environment, text=True,
        )  # fmt: skip
        code = -1
        try:
            assert process.stdout is not None
            for text in process.stdout:
                line = json.loads(text)
                begun = line.get("begin", begun)
                if "end" in line:
                    begun = -1
                yield line
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    if begun >= 0:
        ways = {-signal.SIGPROF: f"took more than {SECONDS:g} s", -signal.SIGALRM: "stood still"}
        way = ways.get(code) or f"ended the process ({code}): {log.read_text(errors='replace')[-300:]}"
        yield {"end": begun, "wrong": way, "refused": False, "seconds": 0.0, "peak": 0}
    elif code:
        raise RuntimeError(f"the process of {name} ended with {code}: {log.read_text(errors='replace')[-1000:]}")


def fault(name: str, folder: Path) -> Verdict:
    """The same with planted faults; each must be found, or none counts as found."""
    verdict = attempt(name, len(FAULTS), folder, faults=True)
    return verdict if verdict.failed >= len(FAULTS) else Verdict(verdict.tried)


_WORDS = {
    "files-run": "a run's file, opened, drawn, written out in six forms and forked",
    "files-checkpoint": "a checkpoint, taken over whole or not at all",
    "files-settings": "a configuration as JSON or as words of a command line",
    "files-link": "a page's address",
    "files-images": "a folder of images",
    "files-archives": "files of CIFAR-10, STL-10 and Fashion-MNIST",
    "files-cache": "the cache of a folder",
    "files-names": "a run's name: 0 files outside the results folder",
}
_QUICK = {"files-run": 60, "files-checkpoint": 200, "files-images": 200, "files-archives": 100, "files-cache": 150}

CASES: tuple[Case, ...] = tuple(
    Case(
        name=name,
        what=f"hostile inputs: {words}",
        whole=10_000 if name == "files-names" else 20_000,
        quick=_QUICK.get(name, 300),
        run=partial(attempt, name),
        fault=partial(fault, name),
        fault_words="a loader with a foreign error, a file outside, a pickle, a program, an endless loop",
    )
    for name, words in _WORDS.items()
)
"""One harness for each loader."""


def main() -> None:
    """The process of a loader."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(LOADERS))
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument(
        "--alone", action="store_true", help="with seeds, and what is found as JSON: a piece of a whole"
    )
    options = parser.parse_args()
    if not options.alone:
        work(options.name, options.first, options.count, options.folder, options.faults)
        return
    with tempfile.TemporaryDirectory(prefix="ssl-lab-trust-", dir=options.folder) as folder:
        found = attempt(options.name, options.count, Path(folder), first=options.first)
    print(json.dumps({"tried": found.tried, "failures": found.failures, "notes": found.notes}, indent=1))


if __name__ == "__main__":
    main()
