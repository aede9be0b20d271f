"""A run written out: what does it again comes to the same bits, and tables and copies read back as they were."""

from __future__ import annotations

import builtins
import csv
import json
import os
import re
import runpy
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_lab import RunConfig, RunStore, Trainer, cli, preset, presets
from ssl_lab.errors import SSLLabError
from ssl_lab.export import COLUMNS, FLAGS, KINDS, _given, command, csv_lines, script, write
from ssl_lab.loop import drive, plan
from ssl_lab.store import Metrics, open_run
from tests.ssl_lab.conftest import small_config

ROOT = Path(__file__).resolve().parents[2]
STEPS = 30
TURNS: list[tuple[int, dict[str, Any]]] = [
    (0, {"ema": 0.9}), (6, {"predictor": "none"}), (6, {"predictor": "linear", "symmetry": "hard"}),
    (13, {"lr": 1e-05, "stop_gradient": False}), (20, {"predictor": "directcopy", "stop_gradient": True, "lr": 0.1}),
    (STEPS, {"eps": 0.25}),
]  # fmt: skip
"""Two at one step, one before the first and one after the last."""

Make = Callable[..., Trainer]


@pytest.fixture
def recorded(make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run with interventions, one command line away."""
    monkeypatch.setenv("SSL_LAB_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer("directpred", spectrum_every=5, momentum=0.8, seed=3, knobs={"rho": 0.4})
    with RunStore.create("run", trainer.config, tmp_path) as store:
        plan(store, TURNS)
        drive(trainer, store, owner="train", until=STEPS)
        assert [(event.step, event.changes) for event in store.events()] == TURNS
    return tmp_path


def again(path: Path) -> dict[str, list[str]]:
    """Runs a script as a person does, far from here; gives the numbers that it prints, line by line."""
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=path.parent, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {line.partition(" ")[0]: re.findall(r"-?\d[\d.e-]*", line) for line in done.stdout.splitlines()}


def test_the_script_comes_to_the_same_bits_in_a_process_of_its_own(recorded: Path, tmp_path: Path) -> None:
    write(open_run("run", recorded, readonly=True), "script", tmp_path / "again.py")
    with open_run("run", recorded) as store:
        loss, spectrum = float(store.losses()[-1]), store.newest_spectrum()
        assert spectrum is not None
    found = again(tmp_path / "again.py")
    assert [float(x) for x in found["loss"]] == [loss, loss]
    assert found["step"] == [str(STEPS)]
    rank = spectrum.spectrum.effective_rank
    assert [float(x) for x in found["effective"]] == [rank, rank]
    assert found["aligned"] == [str(spectrum.spectrum.aligned)] * 2
    # For a person: it names what differs from the preset, and is short.
    text = (tmp_path / "again.py").read_text()
    assert "preset(\n    'directpred',\n    dataset='digits',\n    seed=3,\n    knobs={'rho': 0.4}," in text
    assert "batch_size=32" in text
    assert "encoder" not in text
    assert f"{STEPS} steps, 6 turns" in text
    assert len(text.splitlines()) < 70
    assert all(len(line) <= 120 for line in text.splitlines())


def test_the_script_can_be_imported_and_every_turn_counts(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.py"
    with open_run("run", recorded) as store:
        text, losses, knobs = script(store), store.losses().tolist(), store.knobs_after(len(TURNS))
        config = store.config()
    path.write_text(text)
    parts = runpy.run_path(str(path))
    assert parts["config"] == config
    seen: list[float] = []
    trainer = parts["run"](lambda _, record: seen.append(record.loss))
    assert seen == losses
    assert (trainer.step_count, trainer.knobs) == (STEPS, knobs)
    for step in (0, 6, 13, 20):
        dropped = re.sub(rf"^    {step}: .*\n", "", text, flags=re.MULTILINE)
        assert dropped != text
        path.write_text(dropped)
        seen.clear()
        runpy.run_path(str(path))["run"](lambda _, record: seen.append(record.loss))
        assert seen[:step] == losses[:step]
        # The step after a turn has its old loss where the turn only changes how it ends.
        assert seen[step + 1 :] != losses[step + 1 :]


def test_the_command_does_it_again(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "run", "--as", "command", "--out", "-"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert cli.main(shlex.split(line)[1:]) == 0
    out = capsys.readouterr().out
    with open_run("run", recorded) as was, open_run("run-again", recorded) as now:
        assert now.losses().tolist() == was.losses().tolist()
        assert [(e.step, e.changes) for e in now.events()] == [(e.step, e.changes) for e in was.events()]
        assert now.config() == was.config()
        assert f"loss {float(was.losses()[-1])!r}" in out
        assert now.newest_evaluation("probe") is None


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_named_by_what_differs(name: str, make_trainer: Make, tmp_path: Path) -> None:
    assert _given(preset(name)) == {"seed": 0}
    assert _given(preset(name, dataset="cifar10", width=8)) == {"seed": 0, "width": 8}
    # The sizes that go with another encoder are no differences, and those that only look usual are.
    assert _given(preset(name, encoder="resnet18", seed=2)) == {"seed": 2, "encoder": "resnet18"}
    assert _given(preset(name, encoder="resnet18", width=16)) == {"seed": 0, "encoder": "resnet18", "width": 16}
    trainer = make_trainer(name)
    with RunStore.create("run", trainer.config, tmp_path) as store:
        drive(trainer, store, owner="train", until=2)
        assert runpy.run_path(str(_written(store, tmp_path)))["config"] == trainer.config


def _written(store: RunStore, folder: Path) -> Path:
    write(store, "script", folder / "again.py")
    return folder / "again.py"


@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "of-tomorrow"},
        {"dataset": "/nowhere/'pictures\"\n"},
        {"preset": "simsiam", "width": 5, "momentum": 0.25, "device": "cpu", "probe_layers": 1, "spectrum_every": 7},
        {"test_limit": 20, "train_limit": 200, "epochs": 3},
    ],
)
def test_configs_that_no_preset_gives(changes: dict[str, Any], tmp_path: Path) -> None:
    config = RunConfig.model_validate({**small_config().model_dump(), **changes})
    with RunStore.create("run", config, tmp_path) as store:
        store.add_metrics([Metrics(1, 0.1, -1.0, 0.0)])
        assert runpy.run_path(str(_written(store, tmp_path)))["config"] == config
        words = shlex.split(command(store))
    import tyro

    train = tyro.cli(cli.Subcommand, args=words[1:])  # type: ignore[call-overload]
    if "dataset" in changes:
        return
    found = train.config().model_dump()
    assert found == {**config.model_dump(), "epochs": None, "preset": found["preset"]}
    assert found["preset"] == (config.preset if config.preset in presets() else "byol")


def test_every_setting_has_a_way_on_the_command_line() -> None:
    fields = cli.Train.__dataclass_fields__
    assert set(FLAGS) == {name for name in RunConfig.model_fields if name in fields} - {"preset", "dataset", "seed"}


def test_a_fork_is_written_out_whole(recorded: Path, make_trainer: Make, tmp_path: Path) -> None:
    with open_run("run", recorded) as parent, parent.fork("child", 13, events=3) as child:
        assert cli.main(["train", "--name", "child", "--resume", "--steps", "18", "--epochs-finetuning", "0"]) == 0
        assert cli.main(["export", "child", "--as", "script"]) == 0
        loss = float(child.losses()[-1])
        assert loss != parent.losses()[17]
        assert [float(x) for x in again(tmp_path / "child.py")["loss"]] == [loss, loss]


def test_what_cannot_be_done_again(make_trainer: Make, tmp_path: Path) -> None:
    with RunStore.create("run", small_config(), tmp_path) as store:
        for way in (script, command):
            with pytest.raises(SSLLabError, match="no steps"):
                way(store)
        trainer = make_trainer()
        trainer.step()
        drive(trainer, store, owner="train", until=4)
        for way in (script, command):
            with pytest.raises(SSLLabError, match="stepped before"):
                way(store)
        # What is on record can be read all the same.
        assert len(list(csv_lines(store))) == 4


def test_nothing_in_a_file_from_elsewhere_is_run(tmp_path: Path) -> None:
    evil = "x'\"\"\"\n'''\nraise SystemExit('run')\n#$(touch evil)"
    with RunStore.create("run", small_config(), tmp_path) as store:
        store.add_metrics([Metrics(1, 0.1, -1.0, 0.0)])
        store.set_meta("name", evil)
        store.set_meta("fingerprints", [{"step": 0, "torch": evil, "device": evil}, {"step": 1, "threads": evil}])
        config = {**json.loads(store.config().model_dump_json()), "preset": evil, "data_dir": evil}
        store.set_meta("config", config)
        assert runpy.run_path(str(_written(store, tmp_path)))["config"] == store.config()
        words = shlex.split(command(store))
        assert words[words.index("--data-dir") + 1] == evil


# ------------------------------------------------------------------ tables


def test_csv_reads_back_exactly(recorded: Path) -> None:
    assert cli.main(["export", "run", "--as", "csv"]) == 0
    with Path("run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    with open_run("run", recorded) as store:
        assert [float(row["loss"]) for row in rows] == store.losses().tolist()
        assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
        for record in store.spectra():
            row = rows[record.step - 1]
            assert float(row["effective_rank"]) == record.spectrum.effective_rank
            assert float(row["asymmetry"]) == record.spectrum.asymmetry
            assert int(row["aligned"]) == record.spectrum.aligned
        measured = {record.step for record in store.spectra()}
        knn = store.newest_evaluation("knn")
    assert {int(row["step"]) for row in rows if row["aligned"]} == measured
    assert knn is not None
    assert float(rows[knn[0] - 1]["knn"]) == knn[1]
    # The knobs are those that made the step: the first one after an event has its values.
    by_step = {int(row["step"]): row for row in rows}
    assert [by_step[step]["ema"] for step in (1, 2)] == ["0.9", "0.9"]
    assert [by_step[step]["predictor"] for step in (6, 7, 20, 21)] == ["directpred", "linear", "linear", "directcopy"]
    assert [by_step[step]["stop_gradient"] for step in (13, 14, 21)] == ["true", "false", "true"]
    assert [float(by_step[step]["lr"]) for step in (13, 14)] == [0.03, 1e-05]
    assert {row["eps"] for row in rows} == {"0.1"}
    assert {row["rho"] for row in rows} == {"0.4"}


def test_parquet_reads_back_equal(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr("ssl_lab.export.BATCH", 7)
    assert cli.main(["export", "run", "--as", "parquet"]) == 0
    table = pq.read_table("run.parquet")
    assert tuple(table.column_names) == COLUMNS
    with open_run("run", recorded) as store:
        rows = list(csv.DictReader(csv_lines(store)))
        assert table["loss"].to_pylist() == store.losses().tolist()
    for name in COLUMNS:
        written = ["" if x is None else str(x).lower() for x in table[name].to_pylist()]
        assert written == [row[name] for row in rows], name
    assert {str(table.schema.field(name).type) for name in ("step", "freq")} == {"int64"}


def test_parquet_without_pyarrow(recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    there = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return there(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert cli.main(["export", "run", "--as", "parquet"]) == 2
    assert "pip install pyarrow" in capsys.readouterr().err
    assert [path.name for path in recorded.iterdir()] == ["run"]


def test_npz_reads_back_equal(recorded: Path) -> None:
    assert cli.main(["export", "run", "--as", "npz", "--out", "x.npz"]) == 0
    with np.load("x.npz", allow_pickle=False) as file, open_run("run", recorded) as store:
        arrays = dict(file)
        assert arrays["loss"].tolist() == store.losses().tolist()
        assert arrays["step"].tolist() == list(range(1, STEPS + 1))
        spectra = store.spectra()
        assert arrays["spectrum_step"].tolist() == [record.step for record in spectra]
        for name in ("f_eigenvalues", "wp_eigenvalues", "alignment", "wp_diagonal"):
            assert np.array_equal(arrays[name], np.stack([getattr(record.spectrum, name) for record in spectra]))
        for name in ("asymmetry", "effective_rank", "aligned"):
            assert arrays[name].tolist() == [getattr(record.spectrum, name) for record in spectra]
        assert (arrays["knn_step"][-1], arrays["knn"][-1]) == store.newest_evaluation("knn")
        about = json.loads(str(arrays["about"]))
        assert about["name"] == "run"
        assert [(event["step"], event["changes"]) for event in about["events"]] == TURNS
        assert RunConfig.model_validate_json(json.dumps(about["config"])) == store.config()
        assert about["fingerprints"] == store.fingerprints()


def test_a_run_without_steps_has_empty_tables(tmp_path: Path) -> None:
    with RunStore.create("run", small_config(), tmp_path) as store:
        assert list(csv_lines(store)) == [",".join(COLUMNS) + "\n"]
        write(store, "npz", tmp_path / "x.npz")
        write(store, "parquet", tmp_path / "x.parquet")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert file["loss"].shape == (0,)
        assert file["f_eigenvalues"].shape == (0, 8)


# ------------------------------------------------------------------ one file


def test_a_copy_of_a_live_run_says_nothing_of_this_machine(recorded: Path) -> None:
    with open_run("run", recorded) as store:
        secret = "/home/somebody/secret"
        store.set_meta("config", {**store.meta("config"), "data_dir": secret})
        store.claim("train")
        store.set_status(state="running", message=secret, steps_per_second=5.0)
        store.send("set", {"ema": 0.1}, origin=secret)
        before = store.status()
        # Another process looks on while it is driven.
        assert cli.main(["export", "run", "--as", "sqlite", "--out", "lesson.sqlite"]) == 0
        assert store.status() == before
        assert len(store.waiting()) == 1
        losses, events = store.losses().tolist(), store.events()
        store.release()
    assert [p.name for p in recorded.iterdir() if "lesson" in p.name] == ["lesson.sqlite"]
    assert secret.encode() not in Path("lesson.sqlite").read_bytes()
    Path("lesson.sqlite").chmod(0o444)
    with RunStore.open("lesson.sqlite", readonly=True) as copy:
        status = copy.status()
        assert (status.state, status.host, status.pid, status.owner) == ("asleep", None, None, None)
        assert status.steps_per_second == 0
        assert copy.losses().tolist() == losses
        assert copy.events() == events
        assert copy.altered_event() is None
        assert copy.waiting() == []
        assert copy.config().data_dir is None
    with sqlite3.connect("lesson.sqlite") as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()
    # The copy is a run like any other: by its path it is exported again and forked.
    assert cli.main(["export", "./lesson.sqlite", "--as", "csv", "--out", "y.csv"]) == 0
    assert cli.main(["fork", "lesson.sqlite", "--step", "10", "--as-name", "mine"]) == 0
    with open_run("mine", recorded) as fork:
        assert fork.losses().tolist() == losses[:10]


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_run_that_has_ended_stays_so_in_its_copy(state: Any, recorded: Path, tmp_path: Path) -> None:
    with open_run("run", recorded) as store:
        store.set_status(state=state, message="Why.")
        write(store, "sqlite", tmp_path / "x.sqlite")
    with RunStore.open(tmp_path / "x.sqlite", readonly=True) as copy:
        assert (copy.status().state, copy.status().message) == (state, "Why.")


# ------------------------------------------------------------------ files


def test_a_file_is_written_whole_or_not_at_all(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run("run", recorded, readonly=True) as store:
        for kind, suffix in KINDS.items():
            target = recorded / f"x{suffix}"
            target.write_text("old")
            write(store, kind, target)
            assert target.stat().st_size > 100
        assert not [path for path in recorded.iterdir() if path.name.startswith(".")]

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        for kind, suffix in KINDS.items():
            target = recorded / f"x{suffix}"
            before = target.read_bytes()
            with pytest.raises(SSLLabError, match=rf"{re.escape(str(target))} could not be written: .*No space"):
                write(store, kind, target)
            assert target.read_bytes() == before
        assert not [path for path in recorded.iterdir() if path.name.startswith(".")]


def test_what_is_refused(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = recorded / "run" / "run.sqlite"
    for words, said in (
        (["--as", "sqlite", "--out", str(own)], "own file"),
        (["--as", "npz", "--out", "-"], "--out FILE"),
        (["--as", "csv", "--out", str(recorded / "no" / "where.csv")], "where.csv could not be written"),
        (["--as", "sqlite", "--out", str(recorded / "no" / "where.sqlite")], "where.sqlite could not be written"),
        (["--as", "csv", "--out", str(recorded)], "could not be written"),
    ):
        assert cli.main(["export", "run", *words]) == 2
        assert said in capsys.readouterr().err
    with open_run("run", recorded) as store:
        assert store.last_step() == STEPS
        with pytest.raises(SSLLabError, match="'pdf'"):
            write(store, "pdf", recorded / "x")
    for name, said in (("walk", "no run 'walk'"), ("./walk.sqlite", "no run at")):
        assert cli.main(["export", name, "--as", "csv"]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in recorded.iterdir()] == ["run"]


def test_csv_goes_through_a_pipe_that_closes_early(recorded: Path) -> None:
    program = f"{shlex.quote(sys.executable)} -m ssl_lab.cli export run --as csv --out - | head -n 1"
    done = subprocess.run(
        ["sh", "-c", program], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout == ",".join(COLUMNS) + "\n"
    assert done.stderr == ""


def test_a_long_run_is_written_row_by_row(tmp_path: Path) -> None:
    import tracemalloc

    with RunStore.create("run", small_config(), tmp_path) as store:
        store.add_metrics(Metrics(i, i / 56, -1 / i, 0.0) for i in range(1, 100_001))
        for step in range(0, 100_000, 1000):
            store.add_event(step, {"ema": 0.996}, {"ema": 0.996}, "page")
        tracemalloc.start()
        assert sum(1 for _ in csv_lines(store)) == 100_001
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize(
    ("dataset", "named"),
    [
        ("/home/ada/images/cats", "cats"),
        ("digits", "digits"),
        ("/", "folder"),
        ("C:\\pictures\\dogs\\", "dogs"),
        ("/home/ada/images/cifar10", "cifar10-images"),
    ],
)
def test_a_file_that_leaves_does_not_say_where_its_images_lie(dataset: str, named: str, tmp_path: Path) -> None:
    config = RunConfig.model_validate({**small_config().model_dump(), "dataset": dataset})
    with RunStore.create("run", config, tmp_path) as store:
        store.add_metrics([Metrics(1, 0.1, -1.0, 0.0)])
        store.add_event(1, {"ema": 0.5}, {"ema": 0.9}, "page")
        write(store, "sqlite", tmp_path / "out.sqlite")
        # The run itself still knows where they are.
        assert store.config() == config
    with RunStore.open(tmp_path / "out.sqlite", readonly=True) as copy:
        assert copy.config() == config.model_copy(update={"dataset": named})
        assert copy.altered_event() is None
    assert named == dataset or dataset == "/" or dataset.encode() not in (tmp_path / "out.sqlite").read_bytes()
