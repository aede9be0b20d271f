"""What reads files, links and names of strangers, each with hostile inputs made from real ones.

A :class:`Loader` is made once in a process, and then asked for the same things again and again: spoil an input, read
it as the lab does. What comes of it is judged by :mod:`benchmarks.trust.files`.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import io
import json
import os
import pickle
import random
import shutil
import sqlite3
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.mutations import TEXTS, json_text, mutated, spoiled, value

Random = random.Random


class Loader(ABC):
    """One way into the lab for what a stranger made.

    Args:
        folder: all that it may touch; ``seeds`` in it is what :meth:`seed` made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.seeds, self.place = folder, folder / "seeds", folder / "in"
        self.place.mkdir(exist_ok=True)

    @classmethod
    def seed(cls, folder: Path) -> None:
        """Makes the real inputs, in another process than the one that reads; may take its time."""
        folder.mkdir(exist_ok=True)

    @abstractmethod
    def spoil(self, r: Random) -> str:
        """Makes the next hostile input; gives in words how."""

    @abstractmethod
    def read(self) -> None:
        """Reads it as the lab does. Raises what that raises; ``AssertionError`` for a result that cannot be."""

    def clean(self) -> None:
        """Takes the input away."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(exist_ok=True)


# ------------------------------------------------------------------ a run's file

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"

_SCHEMES: Mapping[str, tuple[str, ...]] = {
    "an endless view for a table": (
        "DROP TABLE metrics",
        f"CREATE VIEW metrics AS {_ENDLESS} i AS step, 0.1 AS epoch, -1.0 AS loss, 0.0 AS penalty FROM n",
    ),
    "an endless view of meta": (
        "ALTER TABLE meta RENAME TO old",
        f"CREATE VIEW meta AS {_ENDLESS} 'schema' AS key, CASE WHEN i < 0 THEN '2' END AS value FROM n",
    ),
    "a view that allocates": (
        "DROP TABLE evaluations",
        "CREATE VIEW evaluations AS SELECT 1 AS number, 1 AS step, 'knn' AS kind, randomblob(500000000) AS value",
    ),
    "a trigger": (
        "CREATE TRIGGER t AFTER UPDATE ON status BEGIN UPDATE meta SET value = randomblob(300000000); END",
    ),
    "a generated column": (
        "DROP TABLE metrics",
        "CREATE TABLE metrics (step INTEGER PRIMARY KEY, epoch REAL NOT NULL, loss REAL GENERATED ALWAYS AS "
        "(hex(zeroblob(step * 3000000))) VIRTUAL, penalty REAL NOT NULL)",
        "INSERT INTO metrics (step, epoch, penalty) VALUES (1, 0.1, 0), (2, 0.2, 0)",
    ),
    "a virtual table": ("DROP TABLE metrics", "CREATE VIRTUAL TABLE metrics USING fts5(step, epoch, loss, penalty)"),
    "no table": ("DROP TABLE pyramid",),
    "a column less": ("ALTER TABLE metrics DROP COLUMN penalty",),
    "a column more": ("ALTER TABLE metrics ADD COLUMN more TEXT DEFAULT 'x'",),
    "another name": ("ALTER TABLE spectra RENAME COLUMN wp TO pw",),
    "a table more": ("CREATE TABLE notes (text)",),
    "untyped columns": (
        "DROP TABLE metrics", "CREATE TABLE metrics (step, epoch, loss, penalty)",
        "INSERT INTO metrics VALUES ('a', 'b', 'c', 'd'), (x'ff', NULL, 1, 2)",
    ),
    "a million rows": (
        f"INSERT OR REPLACE INTO pyramid {_ENDLESS} 1, 1, -i, 0.0, 1.0 FROM n LIMIT 60000",
    ),
    "many events": (
        "INSERT OR IGNORE INTO events WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n LIMIT 15000) "
        "SELECT i, 1, 0.0, '{\"ema\": 0.5}', '{\"ema\": 0.6}', 'page', '' FROM n",
    ),
    "many commands": (
        "INSERT INTO commands (time, kind, payload, origin) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
        "FROM n LIMIT 30000) SELECT 0.0, 'set', '{\"a\": [[[[1]]]]}', 'page' FROM n",
    ),
    "one large blob": ("UPDATE spectra SET f = zeroblob(30000000)",),
    "large blobs": ("UPDATE spectra SET f = zeroblob(3000000), wp = zeroblob(900000)",),
    "a large text": ("UPDATE status SET message = hex(zeroblob(5000000))",),
    "steps far out": ("UPDATE metrics SET step = step + 9223372036854775000",),
    "steps below nothing": ("UPDATE metrics SET step = -step",),
    "no status": ("DELETE FROM status",),
    "nothing but tables": ("DELETE FROM meta", "DELETE FROM metrics", "DELETE FROM events"),
    "an index that is none": ("CREATE INDEX more ON metrics (abs(loss)) WHERE loss < 0",),
}  # fmt: skip

_TABLES = ("meta", "status", "events", "commands", "metrics", "spectra", "evaluations", "pyramid")


@cache
def _real_run() -> Mapping[str, bytes]:
    """Files of a run that was really made: as it is exported, a fork of it, live with its journal, a checkpoint."""
    from ssl_lab import RunStore, Trainer, preset
    from ssl_lab.loop import drive, resume

    with tempfile.TemporaryDirectory(prefix="ssl-lab-trust-") as name:
        folder = Path(name)

        config = preset(
            "directpred", device="cpu", width=4, projector_hidden=16, projector_dim=8, predictor_hidden=16,
            batch_size=32, spectrum_every=5, train_limit=320, test_limit=40,
        )  # fmt: skip
        with RunStore.create("run", config, folder / "far") as store:
            trainer = Trainer(config)
            drive(trainer, store, owner="train", until=20)
            store.send("set", {"ema": 0.5, "predictor": "none"})
            drive(trainer, store, owner="train", until=40, events_seen=resume(trainer, store))
            store.add_evaluation(40, "probe", 0.75)
            store.set_meta("schedule", [[50, {"ema": 0.9}]])
            with store.fork("child", 30) as child:
                child.copy_to(folder / "child.sqlite")
            store.copy_to(folder / "run.sqlite")
            # One whose last moments still lie in its journal.
            store.send("set", {"lr": 0.01})
            for part in ("run.sqlite", "run.sqlite-wal"):
                shutil.copyfile(store.folder / part, folder / part.replace("run", "live"))
            (checkpoint, *_) = sorted((store.folder / "checkpoints").iterdir(), reverse=True)
            shutil.copyfile(checkpoint, folder / "state.safetensors")
        shutil.rmtree(folder / "far")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


class RunFile(Loader):
    """A run's file, opened by a page: looked at at several moments, written out in every form, and forked."""

    @classmethod
    def seed(cls, folder: Path) -> None:
        for name, content in _real_run().items():
            (folder / name).write_bytes(content)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # What pyarrow imports when it first makes an array, if it is there.
        with contextlib.suppress(ImportError):
            importlib.import_module("pandas")
        import pyarrow.parquet

        import ssl_lab.export
        import ssl_lab.store
        from lab.catalogue import Catalogue

        assert all((pyarrow.parquet, ssl_lab.export))
        self.results = folder / "results"
        self.results.mkdir(exist_ok=True)
        self.catalogue = Catalogue(self.results)
        self.bytes = {path.name: path.read_bytes() for path in self.seeds.glob("*.sqlite*")}
        self.good = ssl_lab.store.RunStore.open(self.seeds / "run.sqlite", readonly=True)
        self.mirrored = False
        self._store = vars(ssl_lab.store)
        self._writable = self._store["writable"]

    def spoil(self, r: Random) -> str:
        self.mirrored = False
        self._store["writable"] = self._writable
        seed = r.choice(["run.sqlite", "run.sqlite", "child.sqlite"])
        path = self.place / "dropped.sqlite"
        kind = r.randrange(20)
        if kind < 6:
            path.write_bytes(spoiled(r, self.bytes[seed]))
            return f"{seed}: bytes"
        if kind == 6:
            # Its journal, read as from a folder where nothing can be written.
            which = r.choice(["live.sqlite", "live.sqlite-wal"])
            for name, content in self.bytes.items():
                if name.startswith("live"):
                    target = path.with_name(name.replace("live", "dropped"))
                    target.write_bytes(spoiled(r, content) if name == which else content)
            if r.random() < 0.7:
                self.mirrored = True
                self._store["writable"] = lambda _: False
            return f"{which}: bytes, its journal beside it"
        path.write_bytes(self.bytes[seed])
        if kind < 9:
            return f"{seed}: {_spoil_pages(r, path)}"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "ignore_check_constraints = ON"):
                db.execute(f"PRAGMA {pragma}")
            if kind < 15:
                return f"{seed}: {_spoil_cell(r, db)}"
            if kind < 17:
                return f"{seed}: {_spoil_meta(r, db)}"
            if kind == 17:
                return f"{seed}: {_spoil_schema_text(r, db)}"
            name = r.choice(list(_SCHEMES))
            for statement in _SCHEMES[name]:
                with contextlib.suppress(sqlite3.Error):
                    db.execute(statement)
            return f"{seed}: {name}"

    def read(self) -> None:
        from lab.compare import differences
        from lab.controls import waiting_knobs
        from lab.marks import mark_width, marks, rows
        from lab.view import ViewReader
        from ssl_lab import export
        from ssl_lab.errors import SSLLabError
        from ssl_lab.store import RunStore, free_name, summary

        path = self.place / "dropped.sqlite"
        self.catalogue.loose = {"file: dropped": path}
        self.catalogue._seen.clear()
        listed = [entry for entry in self.catalogue.entries() if not entry.key.startswith("recording: ")]
        with RunStore.open(path, readonly=True) as store:
            other, reader = ViewReader(self.good), ViewReader(store)
            summary(store)
            for step in (None, 0, 7, 10**12):
                view = reader.read(step, [other])
                _check_view(view)
                differences(view)
                assert len(view.words) < 1000
            rows(view.events)
            marks(view.events, mark_width(len(view.events), view.last))
            waiting_knobs(store)
            store.refused()
            store.altered_event()
            assert len(listed) == 1, "what can be looked at is on the shelf"
            refusals: list[SSLLabError] = []
            for kind, ending in export.KINDS.items():
                target = self.place / f"out{ending}"
                try:
                    export.write(store, kind, target)
                    _check_export(kind, target)
                except SSLLabError as error:
                    refusals.append(error)
                    assert not target.exists()
            name = free_name(f"{store.name[:80]}-fork", self.results)
            with store.fork(name, results=self.results, settings={"device": "auto", "data_dir": None}) as child:
                _check_view(ViewReader(child).read())
                assert child.folder.parent == self.results
        if refusals:
            raise refusals[0]

    def clean(self) -> None:
        super().clean()
        shutil.rmtree(self.results, ignore_errors=True)
        self.results.mkdir(exist_ok=True)


def _spoil_pages(r: Random, path: Path) -> str:
    """The tree of pages: children of one page, or of all, are others, or all the same."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    count = len(data) // size
    page = r.randrange(1, count)
    begin = page * size
    kind = r.randrange(4)
    if kind == 0:
        other = r.randrange(1, count) * size
        data[begin : begin + size] = data[other : other + size]
        words = "a page is another one"
    elif kind == 1:
        # An interior page whose children are itself, or one leaf many times.
        cells = r.choice([3, 50, 200])
        child = r.choice([page + 1, r.randrange(2, count + 1)])
        header = bytes([5]) + bytes(2) + cells.to_bytes(2, "big") + (size - 6 * cells).to_bytes(2, "big") + b"\0"
        header += child.to_bytes(4, "big")
        places = b"".join((size - 6 * (n + 1)).to_bytes(2, "big") for n in range(cells))
        cell = b"".join(child.to_bytes(4, "big") + bytes([1, 1]) for _ in range(cells))
        body = header + places
        if len(body) + len(cell) <= size:
            data[begin : begin + len(body)] = body
            data[begin + size - len(cell) : begin + size] = cell
        words = "a page with one child many times"
    elif kind == 2:
        at = begin + r.choice([0, 1, 3, 5, 7, 8]) + r.randrange(2)
        data[at] = r.choice([0, 1, 2, 5, 10, 13, 255])
        words = "the head of a page"
    else:
        at = r.choice([16, 18, 19, 20, 24, 28, 32, 36, 44, 48, 52, 56, 60, 64, 68, 96])
        data[at : at + 4] = r.choice([0, 1, 2, 3, 2**31 - 1, 2**32 - 1, r.getrandbits(32)]).to_bytes(4, "big")
        words = "the file's head"
    path.write_bytes(data)
    return words


def _sql_value(r: Random) -> Any:
    found = value(r)
    if r.random() < 0.2:
        return r.choice([b"", b"\xff\xfe", b"x" * 7, b"\0" * 32, np.float32("nan").tobytes() * 8, b"x" * 100_000])
    if isinstance(found, list | dict):
        try:
            return json.dumps(found)
        except (ValueError, RecursionError):
            return "[" * 100
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        return 2**63 - 1
    return found if not isinstance(found, str) else found.encode("utf-8", "replace").decode()


def _spoil_cell(r: Random, db: sqlite3.Connection) -> str:
    """Another value in one column, of one row or of all; constraints hold nobody back who writes a file."""
    table = r.choice(_TABLES)
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    column, where, hostile = r.choice(columns), r.choice(["", " WHERE rowid = 1", " WHERE rowid = 3"]), _sql_value(r)
    if table in ("meta", "pyramid"):
        where = r.choice(["", " WHERE key = 'id'", " WHERE key = 'name'"]) if table == "meta" else ""
    invalid = isinstance(hostile, bytes) and r.random() < 0.5
    # NOT NULL and UNIQUE would: what cannot be written as a value is written through the schema.
    if r.random() < 0.5:
        db.execute("PRAGMA writable_schema = ON")
        words = "replace(replace(sql, ' NOT NULL', ''), ' UNIQUE', '')"
        db.execute(f"UPDATE sqlite_schema SET sql = {words} WHERE name = ?", (table,))
        db.execute("PRAGMA schema_version = 900")
        db.execute("PRAGMA writable_schema = OFF")
    with contextlib.suppress(sqlite3.Error):
        slot = "CAST(? AS TEXT)" if invalid else "?"
        db.execute(f"UPDATE OR REPLACE {table} SET {column} = {slot}{where}", (hostile,))
    if r.random() < 0.5:
        # With its own words for the table again, so that the columns are as they should be.
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA writable_schema = ON")
            db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (_create(table), table))
            db.execute("PRAGMA schema_version = 901")
    return f"{table}.{column}{where} = {str(hostile)[:40]!r}"


def _create(table: str) -> str:
    from ssl_lab import pyramid
    from ssl_lab.store import _TABLES as tables

    for statement in (tables + pyramid.TABLE).split(";"):
        if statement.strip().startswith(f"CREATE TABLE {table} "):
            return statement.strip()
    raise KeyError(table)


def _spoil_meta(r: Random, db: sqlite3.Connection) -> str:
    """The JSON of an entry, of the knobs, of an event or of a command."""
    table, column, key = r.choice(
        [("meta", "value", "key"), ("meta", "value", "key"), ("events", "changes", "number"),
         ("events", "before", "number"), ("status", "knobs", "id"), ("commands", "payload", "id")]
    )  # fmt: skip
    found = db.execute(f"SELECT {key}, {column} FROM {table} ORDER BY {key}").fetchall()
    if not found:
        db.execute("INSERT INTO commands (time, kind, payload, origin) VALUES (0, 'set', '{\"ema\": 0.5}', 'page')")
        found, table, column, key = [(1, '{"ema": 0.5}')], "commands", "payload", "id"
    where, text = r.choice(found)
    hostile = json_text(r, json.loads(text)).encode("utf-8", "replace").decode()
    db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (hostile, where))
    return f"{table}.{column} of {where}"


def _spoil_schema_text(r: Random, db: sqlite3.Connection) -> str:
    """The list of tables itself."""
    db.execute("PRAGMA writable_schema = ON")
    found = db.execute("SELECT rowid, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    row, sql = r.choice(found)
    column = r.choice(["sql", "sql", "name", "tbl_name", "rootpage", "type"])
    hostile: Any = spoiled(r, sql.encode()).decode("latin-1") if column == "sql" else _sql_value(r)
    if column == "rootpage":
        hostile = r.choice([0, 1, 2, 3, 5, 8, 10**6, -1])
    with contextlib.suppress(sqlite3.Error):
        db.execute(f"UPDATE sqlite_schema SET {column} = ? WHERE rowid = ?", (hostile, row))
    return f"sqlite_schema.{column}"


def _finite(*numbers: float | None) -> bool:
    return all(number is None or abs(number) < float("inf") for number in numbers)


def _check_view(view: Any) -> None:
    from ssl_lab.store import check_name

    check_name(view.name)
    assert 0 <= view.step <= 2**53
    assert 0 <= view.last <= 2**53
    assert _finite(view.status.epoch, view.status.speed, view.status.steps_per_second, view.status.heartbeat)
    if view.metrics is not None:
        assert _finite(view.metrics.epoch, view.metrics.loss, view.metrics.penalty)
    if view.knn is not None:
        assert 0 <= view.knn[1] <= 1
    for record in (view.newest, *view.earlier):
        if record is not None:
            s = record.spectrum
            assert np.isfinite([*s.f_eigenvalues, *s.wp_eigenvalues, *s.alignment, s.effective_rank]).all()
            assert len(s.f_eigenvalues) == len(s.wp_eigenvalues) == len(s.alignment) == len(s.wp_diagonal)
    for steps, values in (*view.curves.values(), *view.whole.values()):
        assert np.isfinite(steps).all()
        assert np.isfinite(values).all()


def _check_export(kind: str, path: Path) -> None:
    content = path.read_bytes()
    assert content
    if kind == "script":
        compile(content, path.name, "exec")
    elif kind == "command":
        assert content.count(b"\n") == 1 or b"'" in content


# ------------------------------------------------------------------ a checkpoint


class OverARun(Loader):
    """What has a run's file beside it, the same as :class:`RunFile`."""

    @classmethod
    def seed(cls, folder: Path) -> None:
        RunFile.seed(folder)


class Checkpoint(OverARun):
    """A checkpoint, read and taken over by a trainer: whole, or not at all."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from ssl_lab import RunStore, Trainer

        self.content = (self.seeds / "state.safetensors").read_bytes()
        length = int.from_bytes(self.content[:8], "little")
        self.header = json.loads(self.content[8 : 8 + length])
        self.body = self.content[8 + length :]
        with RunStore.open(self.seeds / "run.sqlite", readonly=True) as store:
            self.trainer = Trainer(store.config())
        self.path = self.place / "state.safetensors"
        self.before = self._digest()

    def _digest(self) -> str:
        state = self.trainer.state_dict()
        found = hashlib.sha256(json.dumps(state["counters"], sort_keys=True).encode())
        for tensor in state["tensors"].values():
            found.update(tensor.numpy().tobytes())
        return found.hexdigest()

    def spoil(self, r: Random) -> str:
        if r.random() < 0.35:
            self.path.write_bytes(spoiled(r, self.content))
            return "bytes"
        header, body, words = self.header, self.body, "header"
        kind = r.randrange(6)
        if kind == 0:
            about = json_text(r, json.loads(header["__metadata__"]["ssl_lab"]))
            header, words = {**header, "__metadata__": {"ssl_lab": about}}, "counters"
        elif kind == 1:
            name = r.choice([name for name in header if name != "__metadata__"])
            entry = dict(header[name])
            entry[r.choice(["dtype", "shape", "data_offsets"])] = r.choice(
                ["F64", "F8_E4M3", "F4", "I64", "BOOL", [2**40, 2**40], [2**31], [-1], [], [0, 2**62], [[1]], None, "x",
                 [0] * 20, [1.5], [True, 4], [len(body), 2 * len(body)]]
            )  # fmt: skip
            header, words = {**header, name: entry}, f"entry {name}"
        elif kind == 2:
            # Numbers that are none, where the header is right.
            spoil = bytearray(body)
            at = 4 * r.randrange(len(body) // 4)
            spoil[at : at + 4] = r.choice([np.float32("nan"), np.float32("inf"), np.float32(1e38)]).tobytes()
            body, words = bytes(spoil), "numbers"
        elif kind == 3:
            names = [name for name in header if name != "__metadata__"]
            one, other = r.sample(names, 2)
            header, words = {**header, one: header[other], other: header[one]}, "names exchanged"
        elif kind == 4:
            # The right bytes under another kind or shape.
            name = r.choice([name for name in header if name != "__metadata__"])
            entry = header[name]
            size = entry["data_offsets"][1] - entry["data_offsets"][0]
            kinds = {"F32": 4, "I32": 4, "F64": 8, "I64": 8, "U8": 1, "BF16": 2, "BOOL": 1}
            dtype = r.choice(list(kinds))
            other_entry = {
                **entry,
                "dtype": dtype,
                "shape": r.choice([[size // kinds[dtype]], [1, size // kinds[dtype]]]),
            }
            header, words = {**header, name: other_entry}, f"{name} as {dtype}"
        else:
            header = mutated(r, header)
        try:
            text = json.dumps(header).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            text = b"[" * 100_000
        if r.random() < 0.1:
            text = spoiled(r, text)
        length = len(text)
        if r.random() < 0.1:
            length = r.choice([0, 1, max(0, length - 1), length + 1, 10**8, 2**31, 2**63, 2**64 - 1])
        self.path.write_bytes(length.to_bytes(8, "little") + text + body)
        return words

    def read(self) -> None:
        from ssl_lab import checkpoint
        from ssl_lab.errors import SSLLabError

        state, seen = checkpoint.load_state(self.path)
        assert 0 <= seen <= 2**53
        try:
            self.trainer.load_state_dict(state)
        except SSLLabError:
            assert self._digest() == self.before, "a state that was refused was taken over in part"
            raise
        assert 0 <= self.trainer.step_count <= 2**53
        self.before = self._digest()


# ------------------------------------------------------------------ settings, links and names


class Settings(Loader):
    """A configuration as JSON, as words of a command line, and as a study's result."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from ssl_lab.config import preset

        self.config = json.loads(preset("directpred-deeper").model_dump_json())
        self.words: tuple[str, ...] = ()
        self.tree: Any = None

    def spoil(self, r: Random) -> str:
        self.tree = mutated(r, self.config)
        names = [*self.config["knobs"], *self.config, *TEXTS[:12]]
        hostile = str(r.choice(TEXTS)) if r.random() < 0.5 else json_text(r, r.choice([0.5, 1, "off", [1], {"a": 1}]))
        name = r.choice(names)
        self.words = (f"{name}={hostile}", f"{r.choice(TEXTS)[:50]}:{name}={hostile}", f"12:{name}={hostile}", hostile)
        return f"{name} = {hostile[:40]!r}"

    def read(self) -> None:
        from ssl_lab import cli
        from ssl_lab.config import Knobs, RunConfig, make_config, parse_assignment, parse_knobs, preset
        from ssl_lab.errors import SSLLabError

        refusals = []
        fields = self.tree if isinstance(self.tree, dict) else {"preset": self.tree}
        fields = {str(key): entry for key, entry in fields.items()}
        first, second, third, fourth = self.words
        name, _, text = first.partition("=")

        def chosen() -> RunConfig:
            given = {key: entry for key, entry in fields.items() if key not in ("preset", "dataset", "knobs", "name")}
            return preset(fields.get("preset"), dataset=fields.get("dataset"), **given)  # type: ignore[arg-type]

        tries: tuple[Callable[[], Any], ...] = (
            lambda: make_config(**fields), chosen, lambda: parse_assignment(first), lambda: parse_knobs(fourth),
            lambda: cli._setting(first), lambda: cli._turn(second), lambda: cli._turn(third),
            lambda: Knobs().changed({name: text}), lambda: make_config(**{"device": "cpu", name: text}),
        )  # fmt: skip
        for attempt in tries:
            try:
                found = attempt()
            except SSLLabError as error:
                refusals.append(error)
            else:
                assert not isinstance(found, RunConfig) or RunConfig.model_validate(found.model_dump()) == found
        if refusals:
            raise refusals[0]


class Link(OverARun):
    """What a page's address asks for, whatever stands in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from lab.catalogue import Catalogue
        from ssl_lab.config import preset

        self.results = folder / "results"
        (self.results / "run").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.seeds / "run.sqlite", self.results / "run" / "run.sqlite")
        self.catalogue, self.usual = Catalogue(self.results), preset("directpred")
        self.real = {
            "run": "run", "step": "12", "compare": "run,other", "preset": "byol", "dataset": "digits", "seed": "3",
            "knobs": "ema=0.9,predictor=none", "watch": "",
        }  # fmt: skip
        self.query: dict[str, Any] = {}

    def spoil(self, r: Random) -> str:
        self.query = mutated(r, self.real)
        if not isinstance(self.query, dict):
            self.query = {"run": self.query}
        if r.random() < 0.3:
            self.query["knobs"] = f"{r.choice(['ema', 'freq', 'predictor', 'x'])}={r.choice(TEXTS)}"
        if r.random() < 0.3:
            self.query[r.choice(["seed", "step", "run", "compare", "dataset"])] = r.choice(TEXTS) * r.choice([1, 1, 3])
        return str(
            {key: str(entry)[:40] if isinstance(entry, str) else type(entry) for key, entry in self.query.items()}
        )

    def read(self) -> None:
        from lab.links import linked_config, linked_names, linked_step, linked_text
        from ssl_lab.config import DATASETS, RunConfig
        from ssl_lab.errors import SSLLabError
        from ssl_lab.store import open_run

        def opened() -> None:
            key = linked_text(self.query, "run")
            for name in (key, *linked_names(self.query, "compare")):
                store = self.catalogue.open(name) if ":" in name else open_run(name, self.results, readonly=True)
                with store:
                    assert store.path == self.results / "run" / "run.sqlite" or ":" in name

        refusals = []
        tries: tuple[Callable[[], Any], ...] = (
            lambda: linked_config(self.query, self.usual), lambda: linked_step(self.query, 40), opened,
        )  # fmt: skip
        for attempt in tries:
            try:
                found = attempt()
            except SSLLabError as error:
                refusals.append(error)
            else:
                assert not isinstance(found, RunConfig) or found.dataset in DATASETS
                assert not isinstance(found, int) or 0 <= found <= 40
        assert all(len(str(error)) < 2000 for error in refusals), "an error longer than a page"
        if refusals:
            raise refusals[0]

    def clean(self) -> None:
        pass


_PARTS = (
    "..", ".", "/", "\\", "//", "a", "run", "-", "_", "~", "~root", "\0", "\n", " ", "%2e%2e", "%00", "é", "．．", "∕",
    "：",
    "C:", "CON", "nul", "engine.sqlite", "engine.log", ".ssh", "results", "outside", "planted", "etc/passwd", "*", "?",
    "$HOME", "`id`", ";", "|", "a" * 101, "a" * 300, "checkpoints", "run.sqlite", "\u202e", "\ud800", ":",
    "recording: ",
    "file: ", "-wal", ".sqlite", "#", "?mode=rwc", "&", "'", '"', "\x7f",
)  # fmt: skip


class Names(OverARun):
    """A name that somebody types: for a new run, to open one, to fork into, or to write one out."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from lab.catalogue import Catalogue
        from ssl_lab import RunStore

        self.results = folder / "results"
        self.results.mkdir(exist_ok=True)
        self.catalogue = Catalogue(self.results)
        self.source = RunStore.open(self.seeds / "run.sqlite", readonly=True)
        self.name = ""

    def spoil(self, r: Random) -> str:
        root = str(self.folder)
        parts = [
            *_PARTS,
            *TEXTS[:40],
            f"{root}/outside/planted",
            "../outside",
            "../../../../../../../../../tmp/planted",
        ]
        self.name = "".join(r.choice(parts) for _ in range(r.choice([1, 1, 2, 3, 5])))
        if r.random() < 0.2:
            self.name = "".join(r.choice("ab.-_09AZ") for _ in range(r.choice([1, 2, 8, 99, 100, 101])))
        return repr(self.name[:80])

    def read(self) -> None:
        from ssl_lab import RunStore, export
        from ssl_lab.errors import SSLLabError
        from ssl_lab.store import Metrics, check_name, free_name, open_run

        refusals: list[SSLLabError] = []

        def tried(attempt: Callable[[], RunStore]) -> None:
            try:
                with attempt() as store:
                    assert store.path.resolve().is_relative_to(self.results.resolve())
                    if not store.readonly:
                        store.add_metrics([Metrics(1, 0.1, -1.0, 0.0)])
            except SSLLabError as error:
                refusals.append(error)

        config = self.source.config()
        tried(lambda: RunStore.create(self.name, config, self.results))
        tried(lambda: open_run(self.name, self.results))
        tried(lambda: self.source.fork(self.name, 10, results=self.results))
        # What is listed with the lab is no file of the results folder, and no name leads to another.
        if not self.name.startswith("recording: "):
            tried(lambda: self.catalogue.open(self.name))
        tried(lambda: RunStore.create(free_name(self.name[:80], self.results), config, self.results))
        with contextlib.suppress(SSLLabError):
            check_name(self.name)
            kind = "csv"
            assert (self.place / f"{self.name}{export.KINDS[kind]}").resolve().parent == self.place.resolve()
        assert all(len(str(error)) < 2000 for error in refusals), "an error longer than a page"
        if refusals:
            raise refusals[0]

    def clean(self) -> None:
        super().clean()
        shutil.rmtree(self.results, ignore_errors=True)
        self.results.mkdir(exist_ok=True)


# ------------------------------------------------------------------ images


def _picture(r: np.random.Generator, width: int = 40, height: int = 30) -> Any:
    from PIL import Image

    return Image.fromarray(r.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _png_chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    found = zlib.crc32(kind + body) if checksum is None else checksum
    return len(body).to_bytes(4, "big") + kind + body + found.to_bytes(4, "big")


def _png(width: int, height: int, body: bytes, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", head)
        + b"".join(chunks)
        + _png_chunk(b"IDAT", body)
        + (_png_chunk(b"IEND", b""))
    )


_EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(owned) (w) file closefile\nshowpage\n%%EOF\n"
)


_OTHER_KINDS = (
    _EPS, _EPS * 50, b"%PDF-1.4\n", b"P6 60000 60000 255\n", b"8BPS\0\1" + b"\0" * 40, b"", b"GIF89a",
    b"RIFF\xff\xff\xff\xffWEBPVP8X",
)  # fmt: skip


class Images(Loader):
    """A folder of images with one that is hostile."""

    @classmethod
    def seed(cls, folder: Path) -> None:
        from PIL import Image

        r = np.random.default_rng(0)
        picture = _picture(r)
        picture.save(folder / "a.jpg", quality=80)
        picture.save(folder / "b.jpg", quality=60, progressive=True)
        picture.convert("CMYK").save(folder / "c.jpeg")
        picture.save(folder / "a.png")
        picture.convert("RGBA").save(folder / "b.png")
        picture.convert("P").save(folder / "c.png", transparency=3)
        Image.fromarray(r.integers(0, 65_536, (30, 40), dtype=np.uint16)).save(folder / "d.png")
        picture.save(folder / "a.bmp")
        picture.save(folder / "a.webp")
        picture.save(folder / "b.webp", lossless=True)
        picture.save(folder / "c.webp", save_all=True, append_images=[_picture(r)])
        for name, kind in (("x.gif", "GIF"), ("x.tiff", "TIFF"), ("x.ico", "ICO"), ("x.pdf", "PDF"), ("x.ppm", "PPM")):
            picture.save(folder / name, format=kind)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Imported before anything is watched.
        import ssl_lab.datasets
        from ssl_lab.config import preset

        assert ssl_lab.datasets
        os.environ["SSL_LAB_CACHE"] = str(folder / "no-folder" / "cache")
        (folder / "no-folder").write_text("")
        self.set = folder / "set"
        for split in ("train", "test"):
            (self.set / split / "one").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.seeds / "a.png", self.set / "test" / "one" / "a.png")
        self.bytes = {path.name: path.read_bytes() for path in sorted(self.seeds.iterdir()) if path.is_file()}
        self.real = [name for name in self.bytes if not name.startswith("x.")]
        self.config = preset("byol", dataset=str(self.set))

    def spoil(self, r: Random) -> str:
        name = r.choice(self.real)
        content, kind = self.bytes[name], r.randrange(20)
        suffix, words = Path(name).suffix, f"{name}: bytes"
        if kind < 9:
            content = spoiled(r, content)
        elif kind < 12:
            content, words = _spoil_chunks(r, suffix, content), f"{name}: chunks"
        elif kind == 12:
            other = r.choice([n for n in self.bytes if n.startswith("x.")])
            content, words = self.bytes[other], f"{other} as {suffix}"
        elif kind == 13:
            content, words = r.choice(_OTHER_KINDS), f"another kind as {suffix}"
        elif kind < 16:
            width, height = r.choice(
                [(20_000, 20_000), (65_535, 65_535), (2**31 - 1, 1), (1, 2_000_000), (4_900, 4_900), (7_000, 7_000),
                 (3_000, 1), (0, 5), (25_000, 999), (1, 24_000_000)]
            )  # fmt: skip
            depth, colour = r.choice([(8, 2), (16, 6), (8, 0), (1, 3), (16, 0)])
            text = (
                b""
                if r.random() < 0.5
                else _png_chunk(r.choice([b"zTXt", b"iCCP"]), b"x\0\0" + zlib.compress(b"\0" * 30_000_000))
            )
            # Sixty million bytes in sixty thousand.
            rows = zlib.compress(b"\0" * r.choice([100, 1_000_000, 60_000_000]), 1 if r.random() < 0.8 else 9)
            content, suffix = _png(width, height, rows, text, depth=depth, colour=colour), ".png"
            words = f"a PNG that says {width} x {height}"
        elif kind == 16:
            base = self.bytes["b.jpg"]
            scan = base.index(b"\xff\xda")
            content, suffix = base[:scan] + base[scan:-2] * r.choice([2, 50, 5000]), ".jpg"
            words = "a JPEG of many scans"
        elif kind == 17:
            # Of the sizes that a JPEG says it has.
            frame = bytearray(self.bytes["a.jpg"])
            at = frame.index(b"\xff\xc0") + 5
            frame[at : at + 4] = r.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x1b\x58\x1b\x58", b"\0\1\xff\xff"])
            content, suffix, words = bytes(frame), ".jpg", "a JPEG of another size"
        else:
            content, suffix, words = _spoil_bmp(r, self.bytes["a.bmp"]), ".bmp", "a BMP's head"
        shutil.rmtree(self.set / "train" / "one")
        (self.set / "train" / "one").mkdir()
        (self.set / "train" / "one" / f"x{suffix}").write_bytes(content)
        return words

    def read(self) -> None:
        from ssl_lab.datasets import load_dataset

        found = load_dataset(self.config)
        assert tuple(found.train.images.shape) == (1, 3, 32, 32)
        assert found.train.images.numpy().dtype == np.uint8

    def clean(self) -> None:
        pass


def _spoil_chunks(r: Random, suffix: str, content: bytes) -> bytes:
    """Parts of a file taken out, doubled, exchanged or changed, with the right checksums."""
    if suffix == ".png":
        parts, at = [], 8
        while at + 8 <= len(content):
            length = int.from_bytes(content[at : at + 4], "big")
            parts.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
            at += 12 + length
        place = r.randrange(len(parts))
        kind, body = parts[place]
        action = r.randrange(5)
        if action == 0:
            del parts[place]
        elif action == 1:
            parts.insert(place, (kind, body))
        elif action == 2 and body:
            parts[place] = (kind, spoiled(r, body))
        elif action == 3:
            parts.insert(
                1, (r.choice([b"tEXt", b"acTL", b"fcTL", b"fdAT", b"PLTE", b"tRNS", b"eXIf"]), r.randbytes(26))
            )
        else:
            r.shuffle(parts)
        return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, body) for kind, body in parts)
    if suffix in (".jpg", ".jpeg"):
        marks = [at for at in range(2, len(content) - 4) if content[at] == 0xFF and content[at + 1] not in (0, 0xFF)]
        at = r.choice(marks)
        length = int.from_bytes(content[at + 2 : at + 4], "big") + 2
        action = r.randrange(3)
        if action == 0:
            return content[:at] + content[at + length :]
        if action == 1:
            return content[: at + length] + content[at : at + length] * r.choice([1, 20]) + content[at + length :]
        return content[:at] + content[at : at + 4] + r.randbytes(max(0, length - 4)) + content[at + length :]
    found = bytearray(content)
    found[r.randrange(min(60, len(found)))] = r.randrange(256)
    return bytes(found)


def _spoil_bmp(r: Random, content: bytes) -> bytes:
    found = bytearray(content)
    for _ in range(r.choice([1, 2, 3])):
        at, size = r.choice([(2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4)])
        number = r.choice([0, 1, 2, 3, 4, 5, 8, 16, 24, 32, 40, 124, 7000, 65_535, 2**31 - 1, 2**32 - 1])
        found[at : at + size] = (number & (256**size - 1)).to_bytes(size, "little")
    return bytes(found)


class Cache(Loader):
    """What is kept of a decoded folder, changed by somebody: it is used as it should be, or made anew."""

    @classmethod
    def seed(cls, folder: Path) -> None:
        Images.seed(folder)
        with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in ("train", "test"):
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array_header_1_0(
                        stream, {"descr": "|u1", "fortran_order": False, "shape": (300_000_000,)}
                    )
                    for _ in range(300):
                        stream.write(bytes(1_000_000))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from ssl_lab.config import preset
        from ssl_lab.datasets import load_dataset

        self.cache = folder / "cache"
        os.environ["SSL_LAB_PLANTED"] = str(folder / "outside" / "owned")
        os.environ["SSL_LAB_CACHE"] = str(self.cache)
        self.set = folder / "set"
        for split in ("train", "test"):
            (self.set / split / "one").mkdir(parents=True, exist_ok=True)
            for name in ("a.png", "b.png"):
                shutil.copyfile(self.seeds / name, self.set / split / "one" / name)
        self.config = preset("byol", dataset=str(self.set))
        self.truth = load_dataset(self.config)
        (self.file,) = self.cache.iterdir()
        self.content = self.file.read_bytes()
        self.may_differ = False

    def spoil(self, r: Random) -> str:
        self.may_differ = False
        if r.random() < 0.4:
            self.file.write_bytes(spoiled(r, self.content))
            return "bytes"
        right: np.ndarray[Any, Any] = np.zeros((2, 3, 32, 32), np.uint8)
        kind = r.randrange(8)
        names = ("train", "test")
        arrays: dict[str, Any] = dict.fromkeys(names, right)
        method, words = zipfile.ZIP_STORED, "arrays"
        if kind == 0:
            arrays["train"] = r.choice(
                [right.astype(np.float64), right[:1], np.asfortranarray(right), right.reshape(-1), np.zeros(0),
                 np.array("x"), np.array([b"x" * 12288])]
            )  # fmt: skip
        elif kind == 1:
            arrays["train"], words = np.array([_Payload()], dtype=object), "a pickle"
        elif kind == 2:
            method, words = r.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]), "compressed"
            if r.random() < 0.1:
                shutil.copyfile(self.seeds / "bomb.npz", self.file)
                return "300 MB in 300 kB"
        elif kind == 3:
            arrays |= {r.choice(["../outside", "x", "/tmp/x"]): right}
            words = "one more"
        elif kind == 4:
            arrays, words = {"train": right}, "one less"
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, array in arrays.items():
                body = io.BytesIO()
                np.lib.format.write_array(body, np.asarray(array), allow_pickle=True)
                content = body.getvalue()
                if kind == 5 and name == "train":
                    # A head that lies, of the right length.
                    said = r.choice(
                        ["(2, 3, 32, 33)", "(2000000000, 3, 32, 32)", "(-2, 3, 32, -32)", "(2, 3, 32, x)", "(" * 900]
                    )
                    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {said}, }}".encode()
                    length = max(118, len(head) + 1)
                    content = (
                        b"\x93NUMPY\1\0" + length.to_bytes(2, "little") + head.ljust(length - 1) + b"\n" + bytes(6144)
                    )
                    words = "a head that lies"
                elif kind == 6 and name == "train":
                    content, words = spoiled(r, content), "one array's bytes"
                    self.may_differ = True
                archive.writestr(f"{name}.npy", content)
        if kind == 7 or kind == 3 or kind == 2:
            self.may_differ = True
        if kind == 7:
            words = "other pictures"
        self.file.write_bytes(stream.getvalue())
        return words

    def read(self) -> None:
        from ssl_lab.datasets import load_dataset

        found = load_dataset(self.config)
        for split, true in ((found.train, self.truth.train), (found.test, self.truth.test)):
            assert split.images.shape == true.images.shape
            assert split.images.dtype == true.images.dtype
            # Whoever may write the cache may put other pictures there; a bit that falls over is found out.
            assert self.may_differ or bool((split.images == true.images).all())
            assert bool((split.labels == true.labels).all())

    def clean(self) -> None:
        for path in self.cache.iterdir():
            if path != self.file:
                path.unlink()


# ------------------------------------------------------------------ torchvision's data sets


class _Payload:
    """A pickle of it calls something."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["SSL_LAB_PLANTED"],)


def _idx(array: np.ndarray[Any, Any]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _refuse(*_: Any, **__: Any) -> Any:
    raise urllib.error.URLError("no network here")


class Archives(Loader):
    """The files of CIFAR-10, STL-10 and Fashion-MNIST, cut, changed, or with pickles of a stranger in their places."""

    SETS = ("cifar10", "stl10", "fashion-mnist")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from torchvision.datasets import CIFAR10, STL10, FashionMNIST

        import ssl_lab.datasets
        from ssl_lab.config import preset

        assert ssl_lab.datasets

        os.environ["SSL_LAB_PLANTED"] = str(folder / "outside" / "owned")
        urllib.request.urlopen = _refuse
        self.data = folder / "data"
        self.configs = {name: preset("byol", dataset=name, data_dir=str(self.data)) for name in self.SETS}
        r = np.random.default_rng(0)
        self.classes = {"cifar10": CIFAR10, "stl10": STL10, "fashion-mnist": FashionMNIST}
        batches = {
            name: pickle.dumps(
                {"data": r.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]}, protocol=2
            )
            for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
        }
        batches["batches.meta"] = pickle.dumps({"label_names": [str(n) for n in range(10)]}, protocol=2)
        pictures = {name: r.integers(0, 256, (4, 3, 96, 96), dtype=np.uint8).tobytes() for name in ("train", "test")}
        binary = {f"{name}_X.bin": content for name, content in pictures.items()}
        binary |= {f"{name}_y.bin": bytes([1, 2, 3, 4]) for name in pictures}
        binary["unlabeled_X.bin"] = pictures["train"]
        raw = {}
        for (name, _), array in zip(
            FashionMNIST.resources,
            (r.integers(0, 256, (4, 28, 28), dtype=np.uint8), np.arange(4, dtype=np.uint8)) * 2,
            strict=True,
        ):
            raw[name.removesuffix(".gz")] = _idx(array)
        self.files = {
            "cifar10": {f"{CIFAR10.base_folder}/{name}": content for name, content in batches.items()},
            "stl10": {f"{STL10.base_folder}/{name}": content for name, content in binary.items()},
            "fashion-mnist": {f"FashionMNIST/raw/{name}": content for name, content in raw.items()},
        }
        self.resources = [name for name, _ in FashionMNIST.resources]
        self.name = "cifar10"

    def _pin(self, name: str, contents: Mapping[str, bytes]) -> None:
        """These are the files of the official page."""
        found: Any = self.classes[name]
        for table in ("train_list", "test_list"):
            if hasattr(found, table):
                pinned = [[file, _md5(contents[f"{found.base_folder}/{file}"])] for file, _ in getattr(found, table)]
                setattr(found, table, pinned)
        if name == "cifar10":
            found.meta = {**found.meta, "md5": _md5(contents[f"{found.base_folder}/batches.meta"])}

    def spoil(self, r: Random) -> str:
        self.name = r.choice(self.SETS)
        self.data.mkdir(exist_ok=True)
        good = self.files[self.name]
        self._pin(self.name, good)
        contents: dict[str, bytes] = dict(good)
        file = r.choice(list(good))
        kind = r.randrange(10)
        words = f"{file}: bytes"
        payload = pickle.dumps(r.choice([_Payload(), {"data": _Payload(), "labels": [1]}]), protocol=2)
        if kind < 4:
            contents[file] = spoiled(r, good[file])
        elif kind == 4:
            contents[file], words = payload, f"{file}: a stranger's pickle"
        elif kind == 5:
            del contents[file]
            words = f"{file}: not there"
        elif kind == 6:
            contents, words = {}, self._archive(r, payload)
        elif kind == 7 and self.name == "fashion-mnist":
            contents[file], words = _spoil_idx(r, good[file]), f"{file}: its head"
        elif kind == 7:
            contents[f"{Path(file).parent}/class_names.txt"] = r.choice(
                [b"", b"\xff" * 50, b"x\n" * 10**6, b"\n".join([b"<b>"] * 10), b"\0" * 20]
            )
            words = "names of classes"
        elif kind == 8:
            # Pickles of the time when torchvision kept its own.
            for name in ("training.pt", "test.pt"):
                contents[f"FashionMNIST/processed/{name}"] = payload
            words = "older pickles beside them"
        else:
            contents[file] = payload if r.random() < 0.3 else spoiled(r, good[file])
            if self.name == "cifar10" and r.random() < 0.5:
                contents[file] = pickle.dumps(
                    mutated(r, {"data": np.zeros((1, 3072), np.uint8).tolist(), "labels": [0]}), protocol=2
                )
            words = f"{file}: changed, with the checksum that is asked for"
            self._pin(self.name, contents)
        for path, content in contents.items():
            target = self.data / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return words

    def _archive(self, r: Random, payload: bytes) -> str:
        if self.name == "fashion-mnist":
            raw = self.data / "FashionMNIST" / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            for name in self.resources:
                content = gzip.compress(r.choice([b"\0" * 1000, payload]))
                (raw / name).write_bytes(spoiled(r, content) if r.random() < 0.5 else content)
            return "archives: others"
        found: Any = self.classes[self.name]
        with tarfile.open(self.data / found.filename, "w:gz") as tar:
            for path in ("../outside/planted", f"{self.folder}/outside/planted", f"{found.base_folder}/x"):
                entry = tarfile.TarInfo(path)
                entry.size = len(payload)
                tar.addfile(entry, io.BytesIO(payload))
            link = tarfile.TarInfo(found.base_folder)
            link.type, link.linkname = tarfile.SYMTYPE, f"{self.folder}/outside"
            tar.addfile(link)
        if r.random() < 0.3:
            path = self.data / found.filename
            path.write_bytes(spoiled(r, path.read_bytes()))
        return "an archive that leads outside"

    def read(self) -> None:
        from ssl_lab.datasets import load_dataset

        found = load_dataset(self.configs[self.name])
        for split in (found.train, found.test):
            assert len(split.images) == len(split.labels) > 0
            assert -1 <= int(split.labels.min()) <= int(split.labels.max()) < 10
        assert len(found.classes) == 10

    def clean(self) -> None:
        super().clean()
        shutil.rmtree(self.data, ignore_errors=True)


def _spoil_idx(r: Random, content: bytes) -> bytes:
    found = bytearray(content)
    action = r.randrange(3)
    if action == 0:
        at = r.choice([4, 8, 12])
        found[at : at + 4] = r.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 65_536]).to_bytes(4, "big")
    elif action == 1:
        found[r.randrange(4)] = r.choice([0, 1, 8, 9, 11, 13, 14, 255])
    else:
        # Lengths whose product wraps around to what is there.
        return bytes([0, 0, 8, 4]) + np.array([2**16, 2**16, 2**16, 2**16], dtype=">i4").tobytes() + content[16:]
    return bytes(found)


LOADERS: Mapping[str, type[Loader]] = {
    "files-run": RunFile, "files-checkpoint": Checkpoint, "files-settings": Settings, "files-link": Link,
    "files-images": Images, "files-archives": Archives, "files-cache": Cache, "files-names": Names,
}  # fmt: skip
"""All of them, by the name of their harness."""
