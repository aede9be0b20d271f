"""The command line as a person runs it: real processes, real files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ssl_lab import RunStore, cli, keep, preset
from ssl_lab.store import open_run

SMALL = ["--width", "4", "--epochs-pretraining", "3", "--epochs-finetuning", "5", "--device", "cpu"]


def run(*words: str, results: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ssl_lab.cli", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "SSL_LAB_RESULTS": str(results)},
    )  # fmt: skip


def here(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """In this process, which saves the seconds in which torch loads."""
    status = cli.main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_LAB_RESULTS", str(tmp_path))
    return tmp_path


def test_train_and_test_to_97_percent_and_the_same_to_the_bit(results: Path) -> None:
    """The README's promise, in processes of their own."""
    flags = ["--model", "directpred", "--dataset", "digits", "--epochs-pretraining", "60", "--seed", "0"]
    with ThreadPoolExecutor() as both:
        outputs = list(both.map(lambda name: run("train", *flags, "--name", name, results=results), ("a", "b")))
    accuracies = []
    for output in outputs:
        assert output.returncode == 0, output.stderr
        accuracies.append(float(re.findall(r"^Accuracy: (\d+\.\d\d)%$", output.stdout, re.MULTILINE)[0]))
    assert accuracies[0] >= 97.0
    assert accuracies[0] == accuracies[1]
    with open_run("a", results) as a, open_run("b", results) as b:
        assert len(a.losses()) == 660
        assert a.losses().tolist() == b.losses().tolist()
    tested = run("test", "--name", "a", results=results)
    assert tested.returncode == 0, tested.stderr
    assert f"Accuracy: {accuracies[0]:.2f}%" in tested.stdout
    assert (results / "a" / "eigenspace.png").stat().st_size > 20_000
    for name in ("encoder.safetensors", "classifier.safetensors", "run.sqlite"):
        assert (results / "a" / name).is_file()


def test_ctrl_c_stops_cleanly_and_resume_lands_where_it_would_have(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--model", "byol", *SMALL, "--epochs-pretraining", "40"]
    with subprocess.Popen(
        [sys.executable, "-m", "ssl_lab.cli", *words, "--name", "cut"], stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if (results / "cut" / "run.sqlite").is_file():
                with open_run("cut", results, readonly=True) as store:
                    if store.last_step() >= 5:
                        break
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == cli.INTERRUPTED, output
    assert "--resume" in output
    with open_run("cut", results) as store:
        assert store.status().state == "asleep"
        assert 5 <= store.last_step() < 440
        assert not store.driven()
    status, out, _ = here(capsys, "test", "--name", "cut")
    assert status == 2 or "Accuracy" not in out
    assert here(capsys, "train", "--name", "cut", "--resume", "--epochs-finetuning", "5")[0] == 0
    assert here(capsys, *words, "--name", "whole")[0] == 0
    with open_run("cut", results) as cut, open_run("whole", results) as whole:
        assert cut.losses().tolist() == whole.losses().tolist()
        assert cut.newest_evaluation("probe") == whole.newest_evaluation("probe")


def test_both_spellings_and_all_the_seeds_flags(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = here(
        capsys, "train", "--model", "simsiam", "--name", "first", "--epochs_pretraining", "1",
        "--epochs_finetuning", "1", "--symmetry", "--eigenspace", "--one_layer_predictor", "--width", "4",
        "--device", "cpu",
    )  # fmt: skip
    assert status == 0, err
    assert "Accuracy: " in out
    assert "eigenspace.png" in out
    assert "step" in err  # the bar
    with open_run("first", results) as store:
        knobs = store.config().knobs
        assert (knobs.predictor, knobs.symmetry, knobs.ema) == ("linear", "hard", 0.0)
        assert len(store.losses()) == 11
    status, out, _ = here(capsys, "test", "--name", "first", "--only_vis")
    assert status == 0
    assert "Accuracy" not in out


def test_one_layer_goes_with_a_preset_too(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *SMALL, "--epochs-pretraining", "1", "--one-layer-predictor", "--name"]
    for name, expected in (("byol", "linear"), ("directcopy", "directcopy")):
        assert here(capsys, *words, name, "--preset", name)[0] == 0
        with open_run(name, results) as store:
            assert store.config().knobs.predictor == expected


def test_a_run_without_end_is_not_ended_by_the_command_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunStore.create("endless", preset("byol"), results).close()
    status, _, err = here(capsys, "train", "--name", "endless", "--resume")
    assert status == 2
    assert "has no end" in err
    assert "--steps" in err
    with open_run("endless", results) as store:
        assert store.status().state == "queued"


def test_a_name_that_is_taken(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--preset", "directcopy", *SMALL, "--epochs-pretraining", "1", "--name", "x"]
    assert here(capsys, *words)[0] == 0
    before = (results / "x" / "run.sqlite").read_bytes()
    status, _, err = here(capsys, *words)
    assert status == 2
    assert "--resume" in err
    assert "--overwrite" in err
    assert (results / "x" / "run.sqlite").read_bytes() == before
    # What cannot be trained does not cost the old run.
    assert here(capsys, *words, "--overwrite", "--dataset", str(results / "nowhere"))[0] == 2
    assert (results / "x" / "run.sqlite").read_bytes() == before
    assert here(capsys, *words, "--overwrite", "--seed", "5")[0] == 0
    with open_run("x", results) as store:
        assert store.config().seed == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--name", "n"], "--model"),
        (["train", "--name", "n", "--model", "byol", "--preset", "byol"], "not both"),
        (["train", "--name", "n", "--preset", "moco"], "'moco'"),
        (["train", "--name", "n/m", "--model", "byol"], "cannot be called"),
        (["train", "--name", "n", "--model", "byol", "--set", "ema=7"], "'ema'"),
        (["train", "--name", "n", "--model", "byol", "--set", "ema"], "KNOB=VALUE"),
        (["train", "--name", "n", "--model", "byol", "--batch-size", "5000"], "5000"),
        (["train", "--name", "n", "--model", "byol", "--device", "cuda:77"], "cuda:77"),
        (["train", "--name", "n", "--resume"], "no run 'n'"),
        (["test", "--name", "n"], "no run 'n'"),
        (["train", "--name", "n", "--model", "byol", "--steps", "0"], "at least one step"),
        (["train", "--name", "n", "--model", "byol", "--epochs-finetuning", "-1"], "--epochs-finetuning 0"),
        (["train", "--name", "n", "--model", "byol", "--config", "width=4"], "momentum, loss, start, spectrum_every"),
        (["train", "--name", "n", "--model", "byol", "--config", "momentum=2"], "'momentum'"),
        (["train", "--name", "n", "--model", "byol", "--at", "ema=0.5"], "STEP:KNOB=VALUE"),
        (["train", "--name", "n", "--model", "byol", "--at", "5:"], "STEP:KNOB=VALUE"),
        (["train", "--name", "n", "--model", "byol", "--at", "5:ema=0.5,tau=1"], "'tau'"),
        (["train", "--name", "n", "--model", "byol", "--steps", "9", "--at", "10:ema=0.5"], "step 10"),
        (["train", "--name", "n", "--resume", "--at", "10:ema=0.5"], "--resume"),
        (["export", "n", "--as", "csv"], "no run 'n'"),
        (["fork", "n"], "no run 'n'"),
        (["fork", "n", "--step", "1", "--before-event", "1"], "not both"),
        (["watch", "n"], "no run 'n'"),
        (["watch", "n/run.sqlite"], "run.sqlite"),
        (["train", "--name", "n", "--model", "byol", "--checkpoint-mb", "0"], "above 0"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_nothing(
    words: list[str], said: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = here(capsys, *words)
    assert status == 2
    assert said in err
    assert "Traceback" not in err
    assert list(results.iterdir()) == []


def test_the_list_of_runs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No runs" in here(capsys, "runs")[1]
    here(capsys, "train", "--model", "byol", *SMALL, "--epochs-pretraining", "1", "--name", "one", "--set", "ema=0.9")
    out = here(capsys, "runs")[1]
    assert re.search(r"^one +done +11 +1\.0 ", out, re.MULTILINE)
    with open_run("one", results) as store:
        assert store.config().knobs.ema == 0.9
        assert store.fingerprints()[0]["torch"] == torch.__version__


def test_a_folder_of_images(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    for split, count in (("train", 12), ("test", 4)):
        for shade, name in ((40, "dark"), (200, "light")):
            (pictures / split / name).mkdir(parents=True)
            for i in range(count):
                noise = generator.integers(0, 40, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise + np.uint8(shade)).save(pictures / split / name / f"{i}.png")
    status, out, err = here(
        capsys, "train", "--model", "directpred", "--dataset", str(pictures), "--name", "folder", "--batch-size", "8",
        "--epochs-pretraining", "2", "--epochs-finetuning", "10", "--width", "4", "--device", "cpu",
    )  # fmt: skip
    assert status == 0, err
    with open_run("folder", results) as store:
        assert (store.config().encoder, len(store.losses())) == ("resnet18", 6)
    status, out, _ = here(capsys, "test", "--name", "folder")
    assert status == 0
    assert "Accuracy: " in out


def test_steps_and_planned_turns_and_a_new_end(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--preset", "directpred", "--width", "4", "--device", "cpu", "--epochs-finetuning", "0"]
    turns = ["--at", "3:predictor=none", "7:ema=0.5,predictor=mlp", "--config", "momentum=0.5", "spectrum_every=4"]
    assert here(capsys, *words, *turns, "--steps", "14", "--name", "whole")[0] == 0
    status, out, _ = here(capsys, *words, *turns, "--steps", "10", "--name", "cut")
    assert status == 0
    assert "10 steps" in out
    assert "Accuracy" not in out
    # Without a word it is at its end; with another end it goes on to the same numbers.
    assert here(capsys, "train", "--name", "cut", "--resume", "--epochs-finetuning", "0")[0] == 0
    with open_run("cut", results) as cut:
        assert (cut.last_step(), cut.status().state, cut.config().momentum) == (10, "done", 0.5)
    assert here(capsys, "train", "--name", "cut", "--resume", "--steps", "14", "--epochs-finetuning", "1")[0] == 0
    with open_run("cut", results) as cut, open_run("whole", results) as whole:
        assert cut.losses().tolist() == whole.losses().tolist()
        assert [(e.step, e.changes) for e in cut.events()] == [
            (3, {"predictor": "none"}), (7, {"predictor": "mlp", "ema": 0.5}),
        ]  # fmt: skip
        assert {4, 8, 12} <= {record.step for record in whole.spectra()}
        assert cut.newest_evaluation("probe") is not None
    status, _, err = here(capsys, "train", "--name", "cut", "--resume", "--steps", "13")
    assert status == 2
    assert "--steps 14 or more" in err


def test_the_disk_for_checkpoints_is_bounded(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(keep.LIMIT, "500")  # Is put back in the end.
    words = ["train", "--preset", "byol", "--width", "4", "--device", "cpu", "--epochs-finetuning", "0"]
    words += ["--steps", "12", "--at", "3:ema=0.5", "5:ema=0.6", "8:ema=0.7"]
    assert here(capsys, *words, "--name", "roomy")[0] == 0
    roomy = keep.kept(results / "roomy")
    assert [c.step for c in roomy] == [3, 5, 8, 12]
    room = 2.5 * roomy[0].bytes
    assert here(capsys, *words, "--name", "tight", "--checkpoint-mb", str(room / 1e6))[0] == 0
    tight = keep.kept(results / "tight")
    assert len(tight) == 2
    assert tight[-1].step == 12
    assert sum(c.bytes for c in tight) <= room


def test_a_fork_by_the_command_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--preset", "byol", "--width", "4", "--device", "cpu", "--epochs-finetuning", "0", "--name", "a"]
    assert here(capsys, *words, "--steps", "12", "--at", "5:ema=0.5", "8:lr=0.1")[0] == 0
    status, out, _ = here(capsys, "fork", "a", "--before-event", "2")
    assert status == 0
    assert "ssl-lab train --name a-fork-1 --resume --steps M" in out
    assert here(capsys, "train", "--name", "a-fork-1", "--resume", "--steps", "12", "--epochs-finetuning", "0")[0] == 0
    assert here(capsys, "fork", "a", "--step", "5", "--as-name", "b")[0] == 0
    assert here(capsys, "fork", "a")[0] == 0
    with open_run("a", results) as a, open_run("a-fork-1", results) as undone, open_run("b", results) as b:
        assert undone.losses()[:8].tolist() == a.losses()[:8].tolist()
        assert undone.losses()[9] != a.losses()[9]
        assert [event.number for event in undone.events()] == [1]
        assert (b.last_step(), len(b.events())) == (5, 1)
    with open_run("a-fork-2", results) as whole:
        assert (whole.last_step(), len(whole.events())) == (12, 2)
    for more, said in ((["--step", "13"], "no step 13"), (["--before-event", "3"], "no knob event 3")):
        status, _, err = here(capsys, "fork", "a", *more)
        assert status == 2
        assert said in err
