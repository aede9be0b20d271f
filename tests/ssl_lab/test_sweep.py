"""The sweep: its file, its folder, trials that fail, are killed or cut, and the tables; here and on a Ray cluster."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lab import cli, keep
from ssl_lab.errors import ConfigError, RunMissingError, SSLLabError, StoreError, WriteError
from ssl_lab.seat import Seat, taken
from ssl_lab.store import COST, RunStore, open_run
from ssl_lab.sweep.command import FAILED, INTERRUPTED, Runner, device_of
from ssl_lab.sweep.live import Live, headline, screen, sparkline
from ssl_lab.sweep.plan import Resources, Sweep, Trial, read_sweep, understand
from ssl_lab.sweep.progress import (
    LOCK,
    PICTURE,
    RECORD,
    SILENCE,
    STOP,
    RunnerRecord,
    TrialRecord,
    check_setup,
    look,
    read_record,
    write_plan,
    write_record,
    write_runner,
)
from ssl_lab.sweep.table import results, summary, write_tables
from ssl_lab.sweep.trial import run_trial
from ssl_lab.sweep.work import Outcome, Task, work_off

TINY = """
preset = "directpred"
device = "cpu"
width = 4
projector_hidden = 16
projector_dim = 8
predictor_hidden = 16
batch_size = 32
probe_epochs = 2
"""

STUDY = """
seeds = [0, 1]

[base]
preset = "directpred"
epochs = 20
lr = 0.1

[grid]
ema = [0.0, 0.99]
preset = ["simsiam-symmetric", "byol"]

[[trials]]
name = "turned"
batch_size = 64
schedule = "drop"

[[schedules]]
name = "drop"
turns = [[120, {predictor = "directpred", eps = 0.2}], [100, {predictor = "none"}]]

[resources]
gpus = 0.25
cpus = 2
"""


def study(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ---------------------------------------------------------------- the file


def test_a_file_comes_to_these_trials(tmp_path: Path) -> None:
    sweep = read_sweep(study(tmp_path / "rates.toml", STUDY))
    trials = sweep.trials()
    assert sweep.name == "rates"
    assert sweep.resources == Resources(gpus=0.25, cpus=2, retries=2)
    assert sweep.resources.threads == 2
    labels = [
        "ema-0.0_simsiam-symmetric", "ema-0.0_byol", "ema-0.99_simsiam-symmetric", "ema-0.99_byol", "turned",
    ]  # fmt: skip
    assert [trial.name for trial in trials] == [f"{label}-seed{seed}" for seed in (0, 1) for label in labels]
    by_name = {trial.name: trial for trial in trials}
    one = by_name["ema-0.99_simsiam-symmetric-seed1"]
    assert (one.label, one.seed, one.config.seed) == ("ema-0.99_simsiam-symmetric", 1, 1)
    assert one.values == {"ema": 0.99, "preset": "simsiam-symmetric"}
    assert (one.config.preset, one.config.knobs.ema, one.config.knobs.lr) == ("simsiam-symmetric", 0.99, 0.1)
    assert one.config.knobs.symmetry == "hard"
    # 1,437 digits are 11 batches of 128.
    assert (one.of, one.turns) == (220, ())
    turned = by_name["turned-seed0"]
    # In the order of steps, whatever the order in the file.
    assert turned.turns == ((100, {"predictor": "none"}), (120, {"predictor": "directpred", "eps": 0.2}))
    assert (turned.of, turned.config.preset) == (440, "directpred")
    # Always the same, and a study of one.
    assert read_sweep(tmp_path / "rates.toml").trials() == trials
    assert [t.name for t in understand({"base": {"steps": 7}}, "one.toml").trials()] == ["one-seed0"]


def test_a_folder_of_images_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    path = study(tmp_path / "x.toml", "[base]\nsteps = 5\n[grid]\ndataset = ['cats', 'digits']\n")
    first, second = read_sweep(path).trials()
    assert (first.name, first.config.dataset) == ("cats-seed0", str(tmp_path / "cats"))
    assert (second.name, second.config.encoder) == ("digits-seed0", "small")


BASE = "[base]\nepochs = 1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ema = ", "is no TOML: Invalid value (at end of document)"),
        ("", "it asks for nothing"),
        ("[bse]", "bse: a study has no such key or table. Is 'base' meant?"),
        ("ema = 0.5", "ema: it stands above all tables; write it under [base]"),
        ("base = 3", "base: it cannot be 3"),
        ("[base]\nema = 0.5", "[base] epochs: it says nowhere how long a run is"),
        ("[base]\nepochs = 1\nsteps = 1", "epochs and steps are both given"),
        (BASE + "emma = 0.5", "[base] emma: there is no knob and no setting of that name. Is 'ema' meant?"),
        (BASE + "ema = 3", "[base] ema: The knob 'ema' cannot be 3: it takes a number from 0 to 1."),
        (BASE + "seed = 3", "[base] seed: seeds stand at the top of the file"),
        (BASE + "dataset = 'nowhere'", "[base] dataset: There is no data set"),
        (BASE + "preset = 'moco'", "[base] preset: there is none called 'moco'"),
        (BASE + "probe_epochs = -1", "[base] probe_epochs: it takes a whole number from 0 on, and not -1"),
        (BASE + "[grid]\nema = 0.5", "[grid] ema: it cannot be 0.5"),
        (BASE + "[grid]\nema = []", "[grid] ema: it has no values to try"),
        (BASE + "[grid]\nema = [0.5, 0.5]", "[grid] ema: 0.5 stands there twice"),
        (BASE + "[grid]\nbatch_size = [64, 'x']", "[grid] batch_size: it cannot be 'x'"),
        (BASE + f"[grid]\nlr = {[i / 1000 for i in range(1, 200)]}\nema = {[i / 100 for i in range(100)]}", "19,900"),
        (BASE + "[[trials]]\nema = 0.5", "[[trials]] 1 name: it is missing"),
        (BASE + "[[trials]]\nname = 'a b'", "[[trials]] 1 (a b) name: A run cannot be called 'a b'"),
        (BASE + "[[trials]]\nname = 'a'\n[[trials]]\nname = 'a'", "two trials come to the name 'a-seed0'"),
        (BASE + "[[trials]]\nname = 'a'\nprojector_layers = 0", "(a) the trial 'a-seed0' cannot be: The setting"),
        (BASE + "schedule = 'x'", "[base] schedule: there is none called 'x'"),
        (BASE + "[[schedules]]\nname = 'x'\nturns = [[1, {ema = 0.5}]]", "[[schedules]] 1 (x) no trial asks for it"),
        (
            BASE + "schedule = 'x'\n[[schedules]]\nname = 'x'\nturns = [[1, {ema = 5}]]",
            "[[schedules]] 1 (x) turns, at step 1: The knob 'ema' cannot be 5",
        ),
        (
            BASE + "schedule = 'x'\n[[schedules]]\nname = 'x'\nturns = [[12, {ema = 0.5}]]",
            "the trial 'bad-seed0' ends after 11 steps, and its schedule turns a knob at step 12",
        ),
        (BASE + "[resources]\ngpus = 1.5", "[resources] gpus: it cannot be 1.5: above 1 it takes whole GPUs"),
        (BASE + "[resources]\ngpu = 1", "[resources] gpu: there is no such key"),
        ("seeds = []\n" + BASE, "seeds: it cannot be []"),
        ("seeds = [1, 1]\n" + BASE, "seeds: a seed stands there twice"),
        ("name = 'a/b'\n" + BASE, "name: A run cannot be called 'a/b'"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    path = study(tmp_path / "bad.toml", text)
    with pytest.raises(ConfigError) as caught:
        read_sweep(path).trials()
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_dry_run_prints_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = study(tmp_path / "rates.toml", STUDY)
    assert cli.main(["sweep", str(path), "--dry-run", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^turned-seed1 +directpred on digits, 440 steps, turns 100: predictor=none; 120: ", out, re.M)
    assert "10 trials of 5 configurations; each takes 2 CPU and 0.25 GPU. Nothing was started." in out
    assert not (tmp_path / "out").exists()
    assert cli.main(["sweep", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


# ---------------------------------------------------------------- the folder


def planned(folder: Path, count: int = 3) -> tuple[Sweep, list[Trial]]:
    sweep = understand({"base": {"steps": 100}, "seeds": list(range(count)), "grid": {"ema": [0.5]}}, "study.toml")
    write_plan(folder, sweep, sweep.trials())
    return sweep, sweep.trials()


def test_a_folder_says_how_far_its_study_is(tmp_path: Path) -> None:
    with pytest.raises(RunMissingError, match="There is no study"):
        look(tmp_path)
    folder = tmp_path / "s"
    _, trials = planned(folder)
    seen = look(folder)
    assert [v.trial for v in seen.trials] == trials
    assert (seen.state, seen.name, seen.share, seen.labels) == ("waiting", "study", 0.0, ("ema-0.5",))
    for trial, record in zip(
        trials,
        (
            TrialRecord(state="done", step=100, of=100, accuracy=0.9, spectrum=(2.0, 1.0)),
            TrialRecord(state="running", step=50, of=100, steps_per_second=7.0, attempts=1, node="box"),
            TrialRecord(state="retrying", step=20, of=100, error="lost"),
        ),
        strict=True,
    ):
        write_record(folder, trial.name, record)
    # Somebody works on it, in this process.
    write_runner(folder, RunnerRecord())
    seat = Seat(folder / LOCK)
    assert seat.take()
    seen = look(folder)
    assert (seen.state, seen.done, seen.share) == ("running", 1, pytest.approx(1.7 / 3))
    assert [v.state for v in seen.trials] == ["done", "running", "retrying"]
    assert (seen.trials[1].steps_per_second, seen.trials[1].node) == (7.0, "box")
    assert headline(seen) == "1 of 3 trials done, 1 running, 1 retrying"
    # And was killed: what is under way was cut.
    seat.leave()
    seen = look(folder)
    assert (seen.state, [v.state for v in seen.trials]) == ("stopped", ["done", "cut", "cut"])
    assert seen.trials[1].steps_per_second == 0.0


def test_one_who_works_on_another_machine_is_known_by_the_last_word(tmp_path: Path) -> None:
    planned(tmp_path)
    for ago, state in ((1.0, "running"), (SILENCE + 1, "waiting")):
        record = RunnerRecord(host="elsewhere", time=time.time() - ago)
        (tmp_path / "runner.json").write_text(record.model_dump_json())
        assert look(tmp_path).state == state


def test_a_record_that_is_none_is_said(tmp_path: Path) -> None:
    _, trials = planned(tmp_path)
    path = tmp_path / trials[0].name / RECORD
    path.parent.mkdir()
    for text in ("junk", '{"step": -1}', '{"accuracy": 2}', '{"spectrum": ' + str([1.0] * (PICTURE + 1)) + "}"):
        path.write_text(text)
        with pytest.raises(StoreError, match="is broken"):
            look(tmp_path)
    path.unlink()
    plan = (tmp_path / "sweep.json").read_text()
    (tmp_path / "sweep.json").write_text(plan.replace(f'"{trials[0].name}"', '"../elsewhere"'))
    with pytest.raises(SSLLabError, match="cannot be called"):
        look(tmp_path)
    (tmp_path / "sweep.json").write_text(plan)
    path.symlink_to(tmp_path / "sweep.json")
    with pytest.raises(StoreError, match="not a plain file"):
        look(tmp_path)


def test_a_changed_file_keeps_what_is_the_same_and_refuses_what_differs(tmp_path: Path) -> None:
    _, trials = planned(tmp_path)
    write_record(tmp_path, trials[0].name, TrialRecord(state="done"))
    changed = understand({"base": {"steps": 101}, "seeds": [0, 1, 2], "grid": {"ema": [0.5]}}, "study.toml")
    with pytest.raises(ConfigError, match=r"'ema-0.5-seed0'.* its steps is 100, and 101 is asked for"):
        write_plan(tmp_path, changed, changed.trials())
    assert look(tmp_path).trials[0].of == 100
    # What was not begun may be anything, and what is new may be added.
    more = understand({"base": {"steps": 100}, "seeds": [0, 7], "grid": {"ema": [0.5, 0.6]}}, "study.toml")
    write_plan(tmp_path, more, more.trials())
    assert [(v.name, v.state) for v in look(tmp_path).trials] == [
        ("ema-0.5-seed0", "done"), ("ema-0.6-seed0", "waiting"), ("ema-0.5-seed7", "waiting"),
        ("ema-0.6-seed7", "waiting"),
    ]  # fmt: skip


def test_what_was_dropped_and_is_asked_for_again_is_what_it_was(tmp_path: Path) -> None:
    def asked(steps: int, *ema: float) -> tuple[Sweep, list[Trial]]:
        sweep = understand({"base": {"steps": steps}, "grid": {"ema": list(ema)}}, "study.toml")
        return sweep, sweep.trials()

    write_plan(tmp_path, *asked(20, 0.0, 0.9, 0.95))
    write_record(tmp_path, "ema-0.9-seed0", TrialRecord(state="done", accuracy=0.5))
    # More than once it is not asked for; and what was never begun is forgotten.
    for ema in (0.5, 0.6):
        write_plan(tmp_path, *asked(20, ema))
        assert [v.name for v in look(tmp_path).trials] == [f"ema-{ema}-seed0"]
    with pytest.raises(ConfigError, match=r"'ema-0.9-seed0'.* its steps is 20, and 40 is asked for"):
        write_plan(tmp_path, *asked(40, 0.0, 0.9))
    write_plan(tmp_path, *asked(40, 0.0, 0.95))
    write_plan(tmp_path, *asked(20, 0.9))
    assert [(v.name, v.accuracy) for v in look(tmp_path).trials] == [("ema-0.9-seed0", 0.5)]


def test_a_lock_that_is_a_link_to_somebodys_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear Ann,")
    (tmp_path / LOCK).symlink_to(tmp_path / "letter")
    assert taken(tmp_path / LOCK) is None
    assert (tmp_path / "letter").read_text() == "Dear Ann,"
    (tmp_path / LOCK).unlink()
    assert taken(tmp_path / LOCK) is None
    seat = Seat(tmp_path / LOCK)
    assert seat.take()
    assert taken(tmp_path / LOCK) is True
    seat.leave()
    assert taken(tmp_path / LOCK) is False


class NoCrew:
    """Nobody, of whom nothing is asked."""

    with_ray, slots, pause, machines = False, 1, 0.0, 1

    def hand(self, task: Task) -> None: ...
    def ended(self, seconds: float) -> list[Outcome]:
        return []

    def let_go(self) -> None: ...
    def trouble(self) -> str:
        return ""

    def close(self) -> None: ...


def test_what_a_killed_command_left_under_way_is_not_shown_as_running(tmp_path: Path) -> None:
    sweep, trials = planned(tmp_path)
    write_record(tmp_path, trials[0].name, TrialRecord(state="running", step=9, of=100, steps_per_second=7.0))
    with Live() as live:
        Runner(sweep, trials, tmp_path, NoCrew(), live).begin()
    record = read_record(tmp_path, trials[0].name)
    assert (record.state, record.step, record.steps_per_second) == ("cut", 9, 0.0)


def test_a_disk_that_is_full_for_a_while_does_not_end_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, trials = planned(tmp_path)

    def full(*_: Any) -> None:
        raise WriteError("The disk is full.")

    with Live() as live:
        runner = Runner(sweep, trials, tmp_path, NoCrew(), live)
        runner.begin()
        with monkeypatch.context() as m:
            m.setattr("ssl_lab.sweep.command.write_record", full)
            m.setattr("ssl_lab.sweep.command.write_runner", full)
            runner.lost(trials[1].name, "It was lost.")
            runner.failed(trials[0].name, "It broke.")
            runner.look()
        # It is said when there is room again.
        runner.look()
    record = read_record(tmp_path, trials[0].name)
    assert (record.state, record.error) == ("failed", "It broke.")


def test_tables_of_a_study(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    _, trials = planned(tmp_path)
    for trial, accuracy in zip(trials[:2], (0.8, 0.9), strict=True):
        write_record(tmp_path, trial.name, TrialRecord(state="done", accuracy=accuracy, knn=0.7, loss=-1.5, attempts=1))
    write_record(tmp_path, trials[2].name, TrialRecord(state="failed", accuracy=None, error='It said "no", twice.'))
    seen = look(tmp_path)
    (row,) = summary(seen)
    assert (row["label"], row["trials"], row["done"], row["failed"]) == ("ema-0.5", 3, 2, 1)
    assert row["accuracy_mean"] == pytest.approx(0.85)
    assert row["accuracy_sd"] == pytest.approx(0.1 / 2**0.5)
    assert (row["accuracy_n"], row["knn_sd"], row["effective_rank_mean"]) == (2, pytest.approx(0.0), None)
    write_tables(seen)
    with (tmp_path / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(r["name"], r["state"], r["ema"], r["accuracy"]) for r in found] == [
        ("ema-0.5-seed0", "done", "0.5", "0.8"), ("ema-0.5-seed1", "done", "0.5", "0.9"),
        ("ema-0.5-seed2", "failed", "0.5", ""),
    ]  # fmt: skip
    assert found[2]["error"] == 'It said "no", twice.'
    columns = parquet.read_table(tmp_path / "results.parquet").to_pydict()
    assert columns["accuracy"] == [0.8, 0.9, None]
    assert columns["final_loss"] == [-1.5, -1.5, None]
    assert list(columns) == list(results(seen)[0])
    assert parquet.read_table(tmp_path / "summary.parquet").to_pydict()["accuracy_n"] == [2]


def test_the_table_in_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    assert sparkline([1.0, 0.1, 0.001, 0.0]) == "█▆▂ "
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == "  "
    _, trials = planned(tmp_path, 12)
    write_record(tmp_path, trials[11].name, TrialRecord(state="failed", step=3, of=100, error="It broke."))
    write_record(tmp_path, trials[0].name, TrialRecord(state="done", step=100, of=100, accuracy=0.5, spectrum=(1.0,)))
    seen = look(tmp_path)
    console = Console(width=120, file=io.StringIO())
    console.print(screen(seen, 120, 13))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    # The one that failed is shown wherever it stands, with its error.
    assert re.search(r"ema-0.5-seed11 .*failed .*3/100", text)
    assert "ema-0.5-seed11 failed: It broke." in text
    assert re.search(r"ema-0.5-seed0 .*100/100 .*50.00 % .*█", text)
    assert "7 more are not shown." in text
    assert len(text.splitlines()) <= 13
    for width in (50, 60, 80):
        console = Console(width=width, file=io.StringIO())
        console.print(screen(seen, width, 30))
        narrow = console.file.getvalue()  # type: ignore[attr-defined]
        assert max(len(line) for line in narrow.splitlines()) <= width
        assert re.search(r"ema-0.5-.* done .*100/100 +50.00 %", narrow), narrow
    # Where there is no terminal, what is new is said in lines.
    with Live() as live:
        live.show(seen)
        write_record(tmp_path, trials[3].name, TrialRecord(state="done", accuracy=0.25, attempts=2))
        write_record(tmp_path, trials[4].name, TrialRecord(state="failed", error="Too bad."))
        live.show(look(tmp_path))
    assert capsys.readouterr().out.splitlines() == [
        "1 of 12 trials done, 1 failed", "[2/12] ema-0.5-seed3: done, accuracy 25.00 %, begun 2 times",
        "ema-0.5-seed4: failed. Too bad.",
    ]  # fmt: skip


# ---------------------------------------------------------------- trials on this machine


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A trial sets how many threads its process computes with, and this one is not only its."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def same_run(one: RunStore, two: RunStore) -> None:
    """Bit by bit: every loss, the spectra at the ends of epochs, the events and both accuracies at the end."""
    assert one.losses().tolist() == two.losses().tolist()
    assert len(one.losses()) > 0
    ends = [{s.step: s.spectrum.f_eigenvalues.tolist() for s in store.spectra()} for store in (one, two)]
    assert {step: ends[0][step] for step in ends[0].keys() & ends[1].keys() if step % 44 == 0}
    for step in ends[0].keys() & ends[1].keys():
        assert ends[0][step] == ends[1][step], step
    assert [(e.step, e.changes) for e in one.events()] == [(e.step, e.changes) for e in two.events()]
    for kind in ("probe", "knn"):
        assert one.newest_evaluation(kind) == two.newest_evaluation(kind)


def undisturbed_equals(trial: Trial, folder: Path, elsewhere: Path, threads: int = 1) -> None:
    """The trial in the folder is what it comes to when nothing happens to it."""
    elsewhere.mkdir(exist_ok=True)
    assert run_trial(trial, elsewhere, threads, elsewhere / "flag") == ""
    with open_run(trial.name, folder, readonly=True) as one, open_run(trial.name, elsewhere, readonly=True) as two:
        same_run(one, two)
    one_record, two_record = read_record(folder, trial.name), read_record(elsewhere, trial.name)
    assert one_record.attempts > two_record.attempts == 1
    assert one_record.resumed > two_record.resumed == 0
    for name in ("state", "step", "loss", "accuracy", "knn", "effective_rank", "spectrum"):
        assert getattr(one_record, name) == getattr(two_record, name), name


def wait_for(what: Callable[[], Any], seconds: float = 150.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


def in_the_middle(folder: Path, name: str) -> int | None:
    """The process of a trial that has a checkpoint and was slowed down, so that it is surely not over; None if none."""
    with suppress(SSLLabError), open_run(name, folder) as store:
        status = store.status()
        if status.pid is None or status.state != "running" or not any(c.step for c in keep.kept(store.folder)):
            return None
        if status.speed is None:
            store.send("speed", {"steps_per_second": 2.0})
            return None
        return status.pid if status.step > min(c.step for c in keep.kept(store.folder) if c.step) else None
    return None


LOCAL = f"""
[base]
steps = 220
{TINY}
[[trials]]
name = "diverges"
lr = 100.0
weight_decay = 1.0
[[trials]]
name = "killed"
schedule = "turn"
[[trials]]
name = "plain"
steps = 44
[[schedules]]
name = "turn"
turns = [[30, {{ema = 0.5}}], [220, {{eps = 0.3}}]]
"""


@pytest.mark.usefixtures("one_thread")
def test_a_study_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One trial diverges and one has its process killed; neither keeps the others, and the killed one goes on."""
    path, folder = study(tmp_path / "local.toml", LOCAL), tmp_path / "out"
    trials = {trial.name: trial for trial in read_sweep(path).trials()}

    def kill() -> None:
        os.kill(wait_for(lambda: in_the_middle(folder, "killed-seed0")), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert cli.main(["sweep", str(path), "--out", str(folder)]) == FAILED
    killer.join()
    out, err = capsys.readouterr()
    assert "killed-seed0: begun again. Its process was killed" in out
    assert "diverges-seed0 failed: " in err
    assert "step was not applied" in err
    assert "local: 2 of 3 trials done, 1 failed." in out
    assert f"The same command goes on and tries again what failed: ssl-lab sweep {path} --out {folder}" in out
    seen = look(folder)
    assert (seen.state, [v.state for v in seen.trials]) == ("failed", ["failed", "done", "done"])
    assert [v.attempts for v in seen.trials] == [1, 2, 1]
    assert not list(folder.glob(".stop-*"))
    undisturbed_equals(trials["killed-seed0"], folder, tmp_path / "undisturbed")
    with open_run("killed-seed0", folder) as store:
        assert [event.step for event in store.events()] == [30, 220]
        assert not (store.folder / "checkpoints").exists()
    # The seed's command tests a trial as any run.
    assert cli.main(["test", "--name", "plain-seed0", "--results", str(folder), "--device", "cpu"]) == 0
    accuracy = read_record(folder, "plain-seed0").accuracy
    assert f"Accuracy: {100 * accuracy:.2f}%" in capsys.readouterr().out
    # A second start tries the one that failed, and touches nothing else.
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/trial.json") if p.parent.name != "diverges-seed0"}
    assert cli.main(["sweep", str(path), "--out", str(folder)]) == FAILED
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert read_record(folder, "diverges-seed0").attempts == 2
    # And with a file that asks for something else of a trial that is there, nothing at all.
    capsys.readouterr()
    study(path, LOCAL.replace("steps = 44", "steps = 45"))
    assert cli.main(["sweep", str(path), "--out", str(folder)]) == 2
    assert "its steps is 44, and 45 is asked for" in capsys.readouterr().err


@pytest.mark.usefixtures("one_thread")
def test_a_study_that_is_asked_to_stop_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"[base]\nsteps = 132\nschedule = 'turn'\n{TINY}\n[grid]\nema = [0.5, 0.9]\n[[schedules]]\nname = 'turn'\n"
    path, folder = study(tmp_path / "cut.toml", text + "turns = [[20, {eps = 0.3}]]"), tmp_path / "out"
    words = ["sweep", str(path), "--out", str(folder)]
    first, second = read_sweep(path).trials()

    # Whoever works on it is killed: its worker saves what it was at, and leaves.
    command = [sys.executable, "-m", "ssl_lab.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as runner:
        worker = wait_for(lambda: in_the_middle(folder, first.name))
        runner.kill()
    wait_for(lambda: read_record(folder, first.name).state == "cut")
    assert look(folder).state == "stopped"
    os.kill(worker, signal.SIGKILL)

    def ask() -> None:
        wait_for(lambda: in_the_middle(folder, first.name))
        (folder / STOP).touch()

    asker = threading.Thread(target=ask)
    asker.start()
    assert cli.main(words) == INTERRUPTED
    asker.join()
    out = capsys.readouterr().out
    assert f"Stopped before the end; nothing is lost. Left: {first.name}, {second.name}." in out
    assert f"The same command goes on: ssl-lab sweep {path} --out {folder}" in out
    seen = look(folder)
    assert (seen.state, [v.state for v in seen.trials]) == ("stopped", ["cut", "waiting"])
    assert 20 <= seen.trials[0].step < 132
    assert not (folder / STOP).exists()
    # One at a time.
    seat = Seat(folder / LOCK)
    assert seat.take()
    assert cli.main(words) == 2
    assert "Somebody works on the study" in capsys.readouterr().err
    seat.leave()
    # Its time may be over before it begins.
    assert cli.main([*words, "--minutes", "1e-9"]) == INTERRUPTED
    assert [v.state for v in look(folder).trials] == ["cut", "waiting"]
    assert cli.main(words) == 0
    assert look(folder).state == "done"
    undisturbed_equals(first, folder, tmp_path / "undisturbed")


def test_a_process_that_is_lost_again_and_again_is_given_up(tmp_path: Path) -> None:
    from ssl_lab.sweep.local import LocalCrew

    failed: dict[str, str] = {}
    lost: list[str] = []
    tasks = [
        # A function of a module that ends its process, and one that does not.
        Task("dies", os._exit, (3,)),  # type: ignore[arg-type]
        Task("lives", os.path.join, ("", "")),
        Task("raises", os.fspath, (3,)),  # type: ignore[arg-type]
    ]
    work_off(
        tasks, LocalCrew(1), flag=tmp_path / "flag", asked=lambda: False, retries=2, on_look=lambda: None,
        on_failure=failed.__setitem__, on_lost=lambda name, why: lost.append(name),
    )  # fmt: skip
    assert lost == ["dies", "dies"]
    assert set(failed) == {"dies", "raises"}
    assert failed["dies"] == (
        "Its process was killed, by somebody or by the system for want of memory. It was begun 3 times."
    )
    assert failed["raises"].startswith("TypeError: ")
    assert not (tmp_path / "flag").exists()


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_another_machine_may_be_writing_is_not_opened(tmp_path: Path) -> None:
    """It waits; and when it is asked to stop meanwhile it did not fail, and the next one waits too."""
    (trial,) = understand({"base": {"steps": 5, "width": 4, "device": "cpu"}}, "x.toml").trials()
    heard = time.time()
    write_record(tmp_path, trial.name, TrialRecord(state="running", step=3, of=5, node="elsewhere (abc)", heard=heard))
    flag = tmp_path / "flag"

    def ask() -> None:
        wait_for(lambda: read_record(tmp_path, trial.name).state in ("retrying", "failed", "done"))
        flag.touch()

    asker = threading.Thread(target=ask)
    asker.start()
    assert run_trial(trial, tmp_path, 1, flag) == ""
    asker.join()
    assert not (tmp_path / trial.name / "run.sqlite").exists()
    record = read_record(tmp_path, trial.name)
    assert (record.state, record.step, record.node, record.heard) == ("cut", 3, "elsewhere (abc)", heard)
    # The same by the run's own word, where the record has none.
    flag.unlink()
    write_record(tmp_path, trial.name, TrialRecord())
    with RunStore.create(trial.name, trial.config, tmp_path) as store:
        store.set_status(state="running", pid=1, host="elsewhere")
    asker = threading.Thread(target=ask)
    asker.start()
    assert run_trial(trial, tmp_path, 1, flag) == ""
    asker.join()
    assert read_record(tmp_path, trial.name).state == "cut"


def test_what_is_lost_when_all_is_asked_to_stop_did_not_fail(tmp_path: Path) -> None:
    """As by Ctrl-C, which reaches a worker that still loads."""
    failed: dict[str, str] = {}
    stop = threading.Event()

    class Lossy(NoCrew):
        def hand(self, task: Task) -> None:
            self.name = task.name

        def ended(self, seconds: float) -> list[Outcome]:
            stop.set()
            return [Outcome(self.name, "Its process was killed.", lost=True)]

    work_off(
        [Task("one", os.path.join, ("", ""))], Lossy(), flag=tmp_path / "flag", asked=stop.is_set, retries=0,
        on_look=lambda: None, on_failure=failed.__setitem__,
    )  # fmt: skip
    assert failed == {}


def test_ctrl_c_in_a_worker_ends_its_task_alone() -> None:
    """It may reach a worker before that ignores it."""
    from ssl_lab.sweep.local import LocalCrew

    crew, future = LocalCrew(1), Future[str]()
    future.set_exception(KeyboardInterrupt())
    crew._busy[future] = "one", ProcessPoolExecutor(1)
    (outcome,) = crew.ended(1.0)
    assert (outcome.name, outcome.lost) == ("one", True)
    crew.close()


@pytest.mark.usefixtures("one_thread")
def test_what_a_run_cost_says_its_precision(tmp_path: Path) -> None:
    said = {}
    for precision in ("float32", "float64"):
        base = {"steps": 1, "width": 4, "device": "cpu", "probe_epochs": 0, "precision": precision}
        (trial,) = understand({"base": base}, f"{precision}.toml").trials()
        assert run_trial(trial, tmp_path, 1, tmp_path / "flag") == ""
        with open_run(trial.name, tmp_path) as store:
            said[precision] = store.meta(COST)["precision"]
    assert said == {"float32": "fp32", "float64": "fp64"}


def test_where_the_images_lie_may_change(tmp_path: Path) -> None:
    (trial,) = understand({"base": {"steps": 5}}, "x.toml").trials()
    with RunStore.create(trial.name, trial.config, tmp_path) as store:
        moved = trial.config.model_copy(update={"data_dir": "/elsewhere"})
        check_setup(trial.name, moved, store, tmp_path)
        with pytest.raises(ConfigError, match="width"):
            check_setup(trial.name, moved.model_copy(update={"width": 5}), store, tmp_path)


# ---------------------------------------------------------------- on a Ray cluster


def test_without_ray_it_says_how_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    path = study(tmp_path / "x.toml", "[base]\nsteps = 5")
    assert cli.main(["sweep", str(path), "--ray", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'ssl-lab[ray]'" in capsys.readouterr().err
    words = ["reproduce", "figure2", "--dataset", "digits", "--ray", "--out", str(tmp_path / "study")]
    assert cli.main(words) == 2
    assert "pip install 'ssl-lab[ray]'" in capsys.readouterr().err
    assert cli.main([*words, "--gpus", "1.5"]) == 2
    assert "--gpus cannot be 1.5" in capsys.readouterr().err


def test_a_trial_of_a_cluster_is_computed_on_the_gpu_that_it_takes_or_on_none() -> None:
    auto = understand({"base": {"steps": 5}}, "x.toml").trials()[0]
    named = understand({"base": {"steps": 5, "device": "cuda:1"}}, "x.toml").trials()[0]
    share, none = Resources(gpus=0.25), Resources()
    assert [device_of(auto, r, True) for r in (share, none)] == ["cuda", "cpu"]
    # A task sees its own GPU alone, whatever that is called elsewhere.
    assert [device_of(named, r, True) for r in (share, none)] == ["cuda", None]
    assert [device_of(trial, share, False) for trial in (auto, named)] == [None, None]


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    from ssl_lab.sweep.on_ray import _compute, _reaches

    (tmp_path / "token").touch()
    assert _reaches(tmp_path, "token", "0.0").startswith("has ssl-lab ")
    assert "storage which all machines reach" in _reaches(tmp_path / "local", "token", "0.0")
    with pytest.raises(SSLLabError, match="does not see the study's folder"):
        _compute(tmp_path / "local", "token", "1", os.path.join, ("", ""))
    assert _compute(tmp_path, "token", "1", os.path.join, ("", "")) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["token"]


TWELVE = f"""
[base]
steps = 132
schedule = "turn"
{TINY}
[grid]
ema = [0.0, 0.5, 0.9, 0.99, 0.999]
eps = [0.1, 0.3]
[[trials]]
name = "diverges"
lr = 100.0
weight_decay = 1.0
[[trials]]
name = "larger"
batch_size = 64
[[schedules]]
name = "turn"
turns = [[30, {{rho = 0.5}}], [60, {{symmetry = "hard"}}]]
"""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes on this machine: processes of their own, two logical cores each."""
    import psutil

    from ssl_lab.sweep.on_ray import the_ray

    there = {child.pid for child in psutil.Process().children(recursive=True)}
    ray = the_ray()
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 2, "object_store_memory": 80 * 1024 * 1024, "include_log_monitor": False}
    head = {**small, "include_dashboard": False, "no_monitor": True}
    made: Any = None

    def reap() -> None:
        with suppress(Exception):
            made.shutdown()
        for child in psutil.Process().children(recursive=True):
            if child.pid not in there:
                with suppress(psutil.Error):
                    child.kill()
                    child.wait(10)

    def start() -> Any:
        """None where a part of Ray was not there within its 15 s, as on a very busy machine."""
        nonlocal made
        made = None
        try:
            made = Cluster(initialize_head=True, head_node_args=head)
            made.add_node(**small)
        except Exception:
            reap()
            return None
        return made

    try:
        yield wait_for(start, 240.0)
    finally:
        if ray.is_initialized():
            ray.shutdown()
        reap()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("one_thread")
def test_twelve_trials_on_two_nodes_of_which_one_dies(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import psutil

    path, folder = study(tmp_path / "twelve.toml", TWELVE), tmp_path / "out"
    trials = {trial.name: trial for trial in read_sweep(path).trials()}
    assert len(trials) == 12
    (doomed,) = cluster.worker_nodes
    hit: list[str] = []

    def kill() -> None:
        """The machine dies: all its processes at once, while it trains something that has a checkpoint."""
        mark = f"({doomed.node_id[:6]})"

        def middle() -> list[str]:
            on_it = [name for name in trials if mark in read_record(folder, name).node]
            return [name for name in on_it if in_the_middle(folder, name)]

        hit.extend(wait_for(middle))
        parts = [psutil.Process(info.process.pid) for infos in doomed.all_processes.values() for info in infos]
        for process in [*parts, *(child for part in parts for child in part.children(recursive=True))]:
            with suppress(psutil.Error):
                process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    status = cli.main(["sweep", str(path), "--out", str(folder), "--address", cluster.address])
    killer.join()
    out, err = capsys.readouterr()
    assert status == FAILED, out + err
    # 11 results and one failure, which is named with its reason.
    seen = look(folder)
    assert (seen.state, seen.done, seen.count("failed")) == ("failed", 11, 1)
    assert [v.name for v in seen.trials if v.state == "failed"] == ["diverges-seed0"]
    assert "diverges-seed0 failed: " in err
    assert "step was not applied" in err
    assert all(v.accuracy is not None and v.accuracy > 0.3 for v in seen.trials if v.state == "done")
    with (folder / "results.csv").open(newline="") as file:
        assert sum(row["state"] == "done" for row in csv.DictReader(file)) == 11
    assert sum(row["accuracy_n"] for row in summary(seen)) == 11
    # The node's death met trials in the middle, which went on elsewhere from their checkpoints, to the same numbers.
    assert hit
    again = [v for v in seen.trials if v.attempts > 1]
    assert {v.name for v in again} >= set(hit)
    resumed = [v for v in again if v.record.resumed > 0]
    assert {v.name for v in resumed} >= set(hit)
    assert all(doomed.node_id[:6] not in v.node for v in again)
    assert f"{hit[0]}: begun again. Its process or its machine was lost" in out
    for v in resumed:
        undisturbed_equals(trials[v.name], folder, tmp_path / "undisturbed")
    assert not [p for p in folder.iterdir() if p.name.startswith((".here", ".begun", ".stop"))]

    # The papers' study goes the same way, on what is left of the cluster.
    from ssl_lab.reproduce.progress import look as look_at_job
    from ssl_lab.reproduce.study import run_study
    from ssl_lab.sweep.on_ray import RayCrew
    from tests.ssl_lab.test_reproduce import tiny

    jobs, papers = tiny(["directpred", "untrained"], epochs=2), tmp_path / "papers"
    papers.mkdir()
    crew = RayCrew(papers, Resources(), cluster.address)
    assert crew.machines == 1
    assert run_study(jobs, papers, workers=1, threads=1, crew=crew, probe_epochs=2)
    assert all(look_at_job(job, papers).done for job in jobs)
