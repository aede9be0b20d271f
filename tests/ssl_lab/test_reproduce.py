"""The study: rows and jobs, references, cut and gone on with, and a report that says what the files say."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_lab import cli
from ssl_lab.config import presets
from ssl_lab.errors import ConfigError, DataError, StoreError, WriteError
from ssl_lab.reproduce.command import INTERRUPTED
from ssl_lab.reproduce.findings import findings
from ssl_lab.reproduce.progress import LOCK, STOP, Progress, look
from ssl_lab.reproduce.published import PUBLISHED, published
from ssl_lab.reproduce.record import RECORD, StudyRecord, read_record
from ssl_lab.reproduce.recorder import Recorder
from ssl_lab.reproduce.reference import distances, read_reference
from ssl_lab.reproduce.results import Outcome, Seeds, over_seeds, read_outcome
from ssl_lab.reproduce.rows import ITEMS, LESSON, PAPER, ROWS, SMALL, Job, chosen, jobs
from ssl_lab.reproduce.study import _pretrained, run_job, run_study
from ssl_lab.reproduce.theory_check import checks
from ssl_lab.seat import Seat, taken
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import SpectrumRecord, open_run
from ssl_lab.sweep.work import STALE

LESSONS = {"no-predictor", "no-stop-gradient", "linear"}


def made(items: list[str], scale: Any = PAPER, dataset: str = "cifar10", **more: Any) -> list[Job]:
    asked = {"seeds": scale.seeds, "epochs": scale.epochs, "device": "auto", "data_dir": None} | more
    return jobs(chosen(items), scale, dataset=dataset, **asked)


def tiny(rows: list[str], epochs: int = 2, seeds: int = 1) -> list[Job]:
    """Runs of some rows on the digits, of a network that steps at once."""
    small = {"width": 4, "projector_hidden": 16, "projector_dim": 8, "predictor_hidden": 16}
    found = made(["all"], dataset="digits", epochs=epochs, seeds=seeds, device="cpu")
    return [replace(job, config=job.config.model_copy(update=small)) for job in found if job.row in rows]


def test_every_preset_of_the_papers_is_a_row_of_some_item() -> None:
    needed = {row for item in ITEMS.values() for row in item.rows}
    assert set(presets()) - LESSONS <= needed
    assert needed | {"untrained", "supervised"} == set(ROWS)
    for rows in PUBLISHED.values():
        assert set(rows) <= set(ROWS)
    assert published("cifar10", "directpred", "P").accuracy == 85.21  # type: ignore[union-attr]
    assert published("cifar10", "optimal", "P") is None


def test_the_jobs_of_the_paper() -> None:
    found = made(["all"])
    names = [job.name for job in found]
    assert len(names) == len(set(names)) == 3 * len(ROWS)
    assert names[0] == "untrained-seed0"
    by_name = {job.name: job.config for job in found}
    byol = by_name["byol-seed1"]
    assert (byol.epochs, byol.batch_size, byol.width, byol.seed, byol.knobs.ema) == (101, 128, 64, 1, 0.996)
    assert by_name["directpred-eps05-seed0"].knobs.eps == 0.5
    assert by_name["directpred-freq3-seed0"].knobs.freq == 3
    assert by_name["directcopy-none-seed0"].knobs.norm == "none"
    assert by_name["optimal-seed0"].knobs.predictor == "optimal"
    assert by_name["directpred-centred-seed0"].knobs.centred
    assert (by_name["untrained-seed0"].epochs, by_name["supervised-seed0"].epochs) == (0, 30)
    assert {job.row for job in made(["figure3"])} == {"untrained", "supervised", "simsiam", "simsiam-symmetric"}
    assert made(["theory"]) == []
    small = {job.name: job.config for job in made(["table1"], SMALL)}
    assert (small["byol-seed0"].width, small["byol-seed0"].image_size, small["byol-seed0"].knobs.ema) == (8, 16, 0.98)
    assert (small["simsiam-seed0"].knobs.ema, small["simsiam-seed0"].knobs.lr_predictor) == (0.0, 0.03)
    with pytest.raises(ConfigError, match="table9"):
        chosen(["table9"])


def test_numbers_over_seeds() -> None:
    assert str(Seeds((84.0, 85.0, 86.0))) == "85.00 ± 1.00"
    assert str(Seeds((84.123,))) == "84.12"
    assert over_seeds([None, None]) is None
    assert over_seeds([None, 3.0]).values == (3.0,)  # type: ignore[union-attr]


# ---------------------------------------------------------------- references


def write_reference(path: Path, d: int = 8) -> dict[str, np.ndarray]:
    """Three epochs, columns out of order."""
    rng = np.random.default_rng(0)
    f = rng.permuted(np.tile(2.0 ** -np.arange(d), (3, 1)), axis=1)
    arrays = {
        "epoch": np.array([0, 1, 2]), "f_eigenvalues": f, "wp_eigenvalues": np.sqrt(f),
        "alignment": np.where(f > 0.1, 0.95, 0.2), "asymmetry": np.array([1.4, 0.5, 0.1]),
    }  # fmt: skip
    np.savez(path, **arrays)
    return arrays


def test_a_reference_is_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "seed-eigenspace-byol-symmetric.npz"
    arrays = write_reference(path)
    found = read_reference(str(path))
    assert found.row == "byol-symmetric"
    assert read_reference(f"byol={path}").row == "byol"
    assert found.f_eigenvalues[1].tolist() == (2.0 ** -np.arange(8)).tolist()
    # A cosine belongs to its eigenvalue.
    assert found.alignment[2].tolist() == [0.95] * 4 + [0.2] * 4
    assert found.aligned.tolist() == [4, 4, 4]
    longer = arrays | {"asymmetry": np.append(arrays["asymmetry"], 0.05)}
    np.savez(path, **longer)
    assert read_reference(str(path)).asymmetry.tolist() == arrays["asymmetry"].tolist()
    share = 2.0 ** -np.arange(8) / np.sum(2.0 ** -np.arange(8))
    assert found.effective_rank[0] == pytest.approx(np.exp(-np.sum(share * np.log(share))))


def test_what_is_no_reference_is_said(tmp_path: Path) -> None:
    good = tmp_path / "byol.npz"
    arrays = write_reference(good)

    def refused(path: Path, words: str, word: str = "") -> None:
        with pytest.raises(DataError, match=words):
            read_reference(word or str(path))

    refused(tmp_path / "no-row.npz", "ends with no row")
    refused(good, "no row 'moco'", f"moco={good}")
    refused(tmp_path / "simsiam.npz", "cannot be read")
    bad = tmp_path / "simsiam.npz"
    bad.write_bytes(b"junk")
    refused(bad, "cannot be read")
    np.savez(bad, **{name: arrays[name] for name in list(arrays)[:4]})
    refused(bad, "no array 'asymmetry'")
    np.savez(bad, **{**arrays, "alignment": arrays["alignment"][:, :5]})
    refused(bad, "'alignment' has the shape")
    np.savez(bad, **{**arrays, "asymmetry": np.array([1.0, np.nan, 0.0])})
    refused(bad, "not finite")
    np.savez(bad, **{**arrays, "asymmetry": np.array([{}, 1, 2], dtype=object)}, allow_pickle=True)
    refused(bad, "cannot be read")


# ---------------------------------------------------------------- a study


def test_a_study_from_nothing_to_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In worker processes, as the command line runs it."""
    write_reference(tmp_path / "byol.npz", d=32)
    words = [
        "reproduce",
        "figure2",
        "--dataset",
        "digits",
        "--seeds",
        "2",
        "--epochs",
        "2",
        "--out",
        str(tmp_path / "s"),
    ]
    words += ["--workers", "2", "--device", "cpu", "--scale", "small", "--reference", str(tmp_path / "byol.npz")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "[8/8]" in out
    assert "min left" in out
    assert re.search(r"^  epoch 2: aligned \d+ \(4\), effective rank ", out, re.MULTILINE)
    folder = tmp_path / "s"
    text, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    for row in ("byol", "byol-symmetric"):
        with open_run(f"{row}-seed1", folder, readonly=True) as store:
            assert store.status().state == "done"
            assert store.last_step() == 22
            kinds = {kind: store.newest_evaluation(kind) for kind in ("probe", "authors-last", "authors-best")}
            assert all(found is not None and 0.5 < found[1] <= 1 for found in kinds.values())
            # Nothing is left that the report does not need.
            assert not (store.folder / "checkpoints").exists()
    # Two figures and the distance of each epoch to the reference, in both.
    assert text.count("data:image/png;base64,") == page.count("data:image/png;base64,") == 2
    assert re.search(r"^\| 1 \| \d+ \| 4 \| ", text, re.MULTILINE)
    assert re.search(r"^\| 2 \| \d+ \| 4 \| ", text, re.MULTILINE)
    assert "not the papers' setting" in text
    assert "2 epochs at batch 128, small of width 16, 2 seeds" in text
    assert "http://" not in page.replace("http://www.w3.org", "")
    record = read_record(folder / RECORD)
    assert (record.state, record.done, record.items, record.seeds, record.epochs) == ("done", 8, ("figure2",), 2, 2)
    assert (record.data, record.scale, record.papers, record.train, record.test) == (
        "digits",
        "small",
        False,
        1437,
        360,
    )
    (run,) = (run for run in record.of_row("byol") if run.seed == 1)
    assert (run.state, run.step, run.of, run.directions) == ("done", 22, 22, 32)
    with open_run("byol-seed1", folder, readonly=True) as store:
        end = store.newest_spectrum()
        assert end is not None
        assert (run.effective_rank, run.aligned) == (end.spectrum.effective_rank, end.spectrum.aligned)
        for kind, value in (("probe", run.probe), ("authors-best", run.authors_best), ("knn", run.knn)):
            assert value == 100 * store.newest_evaluation(kind)[1], kind  # type: ignore[index]
    assert record.of_row("supervised")[0].probe > 50  # type: ignore[operator]
    # It may be sent around.
    assert str(tmp_path) not in (folder / RECORD).read_text()
    # A second call does nothing again, and the report may be written of something else that is there.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/run.sqlite")}
    table = ["table1" if word == "figure2" else word for word in words]
    assert cli.main([*table, "--report-only"]) == 0
    again = (folder / "report.md").read_text()
    assert "Not there yet: simsiam, simsiam-symmetric" in again
    assert cli.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/run.sqlite")} == before
    for row in ("untrained", "supervised", "byol"):
        found = [read_outcome(job, folder) for job in made(["table1"], SMALL, "digits", epochs=2, device="cpu")]
        mean = over_seeds([o.probe for o in found if o is not None and o.job.row == row])
        assert f"| {row} | 2 | {mean} |" in again
    # Other settings are not mixed with these.
    assert cli.main(["3" if word == "2" and words[i - 1] == "--epochs" else word for i, word in enumerate(words)]) == 2
    assert "epochs is 2, and 3 is asked for" in capsys.readouterr().err


def test_a_study_that_is_cut_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    (job,) = tiny(["directpred"], epochs=60)
    flag = tmp_path / "flag"
    assert run_job(job, tmp_path / "whole", 1, 3, flag) == ""
    stop = threading.Event()

    def cut() -> None:
        while not look(job, tmp_path / "cut").steps:
            time.sleep(0.01)
        stop.set()

    watcher = threading.Thread(target=cut)
    watcher.start()
    assert _pretrained(job, tmp_path / "cut", 3, stop) == ""
    watcher.join()
    stopped = look(job, tmp_path / "cut")
    assert 0 < stopped.steps < 660
    assert not stopped.done
    # A flag that is there from the start lets it do little more than begin.
    flag.touch()
    assert run_job(job, tmp_path / "cut", 1, 3, flag) == ""
    assert not look(job, tmp_path / "cut").done
    flag.unlink()
    assert run_job(job, tmp_path / "cut", 1, 3, flag) == ""
    with open_run(job.name, tmp_path / "whole") as whole, open_run(job.name, tmp_path / "cut") as again:
        assert again.losses().tolist() == whole.losses().tolist()
        for kind in ("probe", "authors-last", "authors-best"):
            assert again.newest_evaluation(kind) == whole.newest_evaluation(kind)
        assert again.meta("study")["images"] == whole.meta("study")["images"] == 660 * 128


def test_a_study_is_worked_on_by_one_and_lets_go_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "figure3", "--dataset", "digits", "--scale", "lesson", "--seeds", "1", "--epochs", "200"]
    words += ["--workers", "1", "--device", "cpu", "--out", str(tmp_path)]
    seat = Seat(tmp_path / LOCK)
    assert seat.take()
    assert cli.main(words) == 2
    assert "Somebody works on the study" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/run.sqlite"))
    seat.leave()

    def ask() -> None:
        while not (tmp_path / RECORD).is_file() or read_record(tmp_path / RECORD).done < 2:
            time.sleep(0.05)
        (tmp_path / STOP).touch()

    watcher = threading.Thread(target=ask)
    watcher.start()
    assert cli.main(words) == INTERRUPTED
    watcher.join()
    record = read_record(tmp_path / RECORD)
    assert record.state == "stopped"
    assert 2 <= record.done < 4
    assert not (tmp_path / STOP).exists()
    assert not taken(tmp_path / LOCK)


def test_the_record_says_how_long_it_still_takes(tmp_path: Path) -> None:
    found = tiny(["byol", "directpred"], epochs=30)
    now = 100.0
    recorder = Recorder(tmp_path, chosen(["table1"]), found, LESSON, "digits", "digits", clock=lambda: now)

    def left(*steps: int) -> float | None:
        recorder.write("running", [Progress(job, n, 330, False) for job, n in zip(found, steps, strict=True)])
        return read_record(tmp_path / RECORD).left_seconds

    # What was there before says nothing of how fast it goes.
    assert left(100, 0) is None
    now = 110.0
    # 100 steps in 10 s; 230 + 230 steps and two probes of a quarter of 330 are left.
    assert left(100, 100) == pytest.approx((230 + 230 + 2 * 82.5) / 10)
    recorder.failures["byol-seed0"] = "It broke."
    left(100, 100)
    assert [(run.state, run.why) for run in read_record(tmp_path / RECORD).runs] == [
        ("failed", "It broke."),
        ("running", ""),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("junk", "Invalid JSON"),
        ("[]", "expected"),
        ('{"format": 2}', "format"),
        ('{"items": [], "scale": "small", "data": "x", "seeds": 1, "epochs": 1, "runs": [{"row": 5}]}', "row"),
        (
            '{"items": [], "scale": "small", "data": "x", "seeds": 1, "epochs": 1, '
            '"runs": [{"row": "byol", "seed": 0, "probe": 120}]}',
            "probe",
        ),
        (" " * 1_000_001, "1,000,001 bytes"),
    ],
)
def test_a_record_that_is_none_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(StoreError, match=re.escape(said)):
        read_record(tmp_path / RECORD)


def test_a_record_is_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "there").write_text('{"items": [], "scale": "small", "data": "x", "seeds": 1, "epochs": 1}')
    assert read_record(tmp_path / "there").scale == "small"
    (tmp_path / RECORD).symlink_to(tmp_path / "there")
    with pytest.raises(StoreError, match="not a plain file"):
        read_record(tmp_path / RECORD)
    (tmp_path / RECORD).unlink()
    os.mkfifo(tmp_path / RECORD)
    # Without a look at what it is, this would wait for ever.
    said: list[str] = []

    def read() -> None:
        with pytest.raises(StoreError) as caught:
            read_record(tmp_path / RECORD)
        said.append(str(caught.value))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert "not a plain file" in said[0]


@pytest.mark.parametrize(
    ("changes", "papers"),
    [
        ({}, True),
        ({"train": None}, True),
        ({"epochs": 100}, True),
        ({"data": "stl10", "train": 105_000}, True),
        ({"epochs": 2}, False),
        ({"epochs": 99}, False),
        ({"encoder": "small"}, False),
        ({"width": 16}, False),
        ({"image_size": 16}, False),
        ({"train": 49_999}, False),
        ({"data": "stl10"}, False),
        ({"data": "digits"}, False),
        ({"scale": "small"}, False),
    ],
)
def test_a_study_may_be_compared_with_print_if_it_is_the_papers(changes: dict[str, Any], papers: bool) -> None:
    said = {"items": ("table1",), "scale": "paper", "data": "cifar10", "seeds": 3, "epochs": 101}
    said |= {"encoder": "resnet18", "width": 64, "image_size": None, "train": 50_000}
    assert StudyRecord(**(said | changes)).papers is papers


def test_the_papers_jobs_make_a_record_that_may_be_compared(tmp_path: Path) -> None:
    for epochs, papers in ((PAPER.epochs, True), (2, False)):
        found = made(["table1"], epochs=epochs)
        recorder = Recorder(tmp_path, chosen(["table1"]), found, PAPER, "cifar10", "CIFAR-10")
        recorder.write("running", [Progress(job, 0, 1, False) for job in found])
        assert read_record(tmp_path / RECORD).papers is papers


def test_one_run_that_fails_does_not_keep_the_others(tmp_path: Path) -> None:
    good, bad = tiny(["untrained", "directpred"], epochs=1)
    knobs = bad.config.knobs.changed({"lr": 100.0, "weight_decay": 1.0})
    bad = replace(bad, config=bad.config.model_copy(update={"knobs": knobs, "epochs": 5}))
    said: dict[str, str] = {}
    whole = run_study(
        [bad, good], tmp_path, workers=1, probe_epochs=2, on_failure=lambda job, why: said.update({job.name: why})
    )
    assert not whole
    assert list(said) == ["directpred-seed0"]
    assert "step was not applied" in said["directpred-seed0"]
    assert look(good, tmp_path).done


def test_a_read_that_fails_does_not_end_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a run that another machine closes this moment: what was last read of it stays."""
    (job,) = tiny(["untrained"])
    seen: list[list[Progress]] = []

    def closed(*_: Any, **__: Any) -> Progress:
        raise StoreError("It cannot be read this moment.")

    def show(progress: list[Progress]) -> None:
        seen.append(progress)
        monkeypatch.setattr("ssl_lab.reproduce.study.look", closed if len(seen) == 1 else look)

    assert run_study([job], tmp_path, workers=1, probe_epochs=2, on_change=show)
    assert len(seen) > 1
    assert seen[1] == seen[0]


def test_a_cluster_is_let_go_of_whatever_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cluster:
        with_ray, closed = True, False

        def close(self) -> None:
            self.closed = True

    def full(*_: Any) -> None:
        raise WriteError("The disk is full.")

    crew = Cluster()
    monkeypatch.setattr("ssl_lab.reproduce.command.Reproduce._crew", lambda *_: (crew, 1))
    monkeypatch.setattr("ssl_lab.reproduce.recorder.Recorder.write", full)
    assert cli.main(["reproduce", "figure2", "--dataset", "digits", "--ray", "--out", str(tmp_path / "study")]) == 2
    assert crew.closed


def test_a_study_knows_when_its_time_is_over(tmp_path: Path) -> None:
    found = tiny(["byol", "directpred"], epochs=30)
    assert not run_study(found, tmp_path, workers=1, probe_epochs=2, deadline=0.0)
    assert [look(job, tmp_path).steps for job in found] == [0, 0]


def test_a_study_that_is_asked_to_stop_while_it_loads_stops(tmp_path: Path) -> None:
    found = tiny(["untrained"])
    (tmp_path / STOP).touch()
    assert not run_study(found, tmp_path, workers=1, probe_epochs=2)
    assert not (tmp_path / STOP).exists()
    # One that was meant for a process of before does not count.
    (tmp_path / STOP).touch()
    os.utime(tmp_path / STOP, (time.time() - STALE - 1,) * 2)
    assert run_study(found, tmp_path, workers=1, probe_epochs=2)


def test_the_ceiling_learns(tmp_path: Path) -> None:
    (job,) = tiny(["supervised"])
    assert run_job(job, tmp_path, 1, 2, tmp_path / "flag") == ""
    outcome = read_outcome(job, tmp_path)
    assert outcome is not None
    assert outcome.probe > 90


def test_a_projector_layer_may_be_kept_for_the_probe(tmp_path: Path) -> None:
    (job,) = tiny(["directpred-deeper"], epochs=1)
    assert run_job(job, tmp_path, 1, 2, tmp_path / "flag") == ""
    outcome = read_outcome(job, tmp_path)
    assert outcome is not None
    assert outcome.reused is not None
    assert outcome.reused != outcome.probe


def test_distances_are_of_the_epochs_that_both_have(tmp_path: Path) -> None:
    (job,) = tiny(["byol"], epochs=2)
    run_job(job, tmp_path, 1, 2, tmp_path / "flag")
    write_reference(tmp_path / "byol.npz")
    outcome = read_outcome(job, tmp_path)
    assert outcome is not None
    found = distances(outcome.spectra, read_reference(str(tmp_path / "byol.npz")))
    assert [d.epoch for d in found] == [1.0, 2.0]
    assert found[1].aligned == (outcome.spectra[-1].spectrum.aligned, 4)
    assert found[1].asymmetry == (outcome.spectra[-1].spectrum.asymmetry, pytest.approx(0.1))


def test_the_theory_holds() -> None:
    assert [check.what for check in checks() if not check.holds] == []
    assert len(checks()) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table9"], "table9"),
        (["theory", "--scale", "huge"], "huge"),
        (["theory", "--seeds", "0"], "--seeds"),
        (["theory", "--minutes", "0"], "--minutes"),
        (["theory", "--data", "imagenet"], "imagenet"),
        (["table1", "--dataset", "nowhere"], "nowhere"),
        (["theory", "--reference", "nothing.npz"], "nothing.npz"),
    ],
)
def test_what_cannot_be_is_said(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reproduce", *words, "--out", str(tmp_path / "s")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def outcome(row: str, probe: float, rank: float = 5.0, aligned: tuple[int, ...] = (1, 2, 3)) -> Outcome:
    """A run that came to these numbers."""
    d = 8
    spectra = [
        SpectrumRecord(
            i + 1, 10 * (i + 1), float(i + 1),
            Spectrum(
                f_eigenvalues=np.ones(d), wp_eigenvalues=np.ones(d), alignment=np.array([0.95] * n + [0.0] * (d - n)),
                wp_diagonal=np.ones(d), asymmetry=0.0, effective_rank=rank,
            ),
        )
        for i, n in enumerate(aligned)
    ]  # fmt: skip
    (job,) = (job for job in made(["all"], seeds=1) if job.row == row)
    return Outcome(job=job, probe=probe, authors_best=probe + 1, spectra=spectra, cost={})


def test_what_must_show_is_decided_by_the_numbers() -> None:
    good = {
        "untrained": [outcome("untrained", 40.0)], "directpred": [outcome("directpred", 84.0)],
        "byol-one-layer": [outcome("byol-one-layer", 83.6)], "simsiam": [outcome("simsiam", 79.0)],
        "simsiam-symmetric": [outcome("simsiam-symmetric", 20.0, rank=1.1)],
        "byol": [outcome("byol", 84.0, aligned=(1, 2, 4)), outcome("byol", 84.0, aligned=(2, 2, 4))],
    }  # fmt: skip
    assert all(f.holds for f in findings(good, papers=True))
    assert len(findings(good, papers=True)) == 7
    assert len(findings(good, papers=False)) == 4
    for row, worse in (
        ("directpred", outcome("directpred", 44.0)),
        ("simsiam", outcome("simsiam", 79.0, rank=1.2)),
        ("simsiam-symmetric", outcome("simsiam-symmetric", 79.0, rank=4.0)),
        ("byol", outcome("byol", 84.0, aligned=(3, 2, 1))),
    ):
        assert not all(f.holds for f in findings({**good, row: [worse]}, papers=False)), row
    assert findings({}, papers=True) == []
