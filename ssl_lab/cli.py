"""``ssl-lab``: the command line.

``ssl-lab`` alone opens the bench; ``ssl-lab train`` and ``ssl-lab test`` take the seed's flags in both spellings
(``--one-layer-predictor`` and ``--one_layer_predictor``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ssl_lab import __version__
from ssl_lab.config import PRESETS, RunConfig, dataset_info, parse_assignment, parse_knobs, plain_value, preset
from ssl_lab.errors import ConfigError, RunMissingError, SSLLabError, StoreError, shown
from ssl_lab.interrupt import Interruptible
from ssl_lab.keep import LIMIT
from ssl_lab.mirror import writable
from ssl_lab.reproduce.command import Reproduce
from ssl_lab.store import FILE_NAME, GOAL, RunStore, check_name, free_name, list_runs, open_run, results_dir
from ssl_lab.sweep.command import SweepStudy

if TYPE_CHECKING:
    from ssl_lab.distributed import Job
    from ssl_lab.trainer import StepRecord, Trainer

DIFFERENT, CLOSE = 1, 3
"""Exit statuses of a replay that is not bit-equal: though it should be, and because it cannot be."""

Turn = tuple[int, dict[str, Any]]

_FIELDS = ("batch_size", "width", "encoder", "stem", "image_size", "train_limit", "test_limit", "data_dir")
"""Flags of ``train`` that are settings, left to the preset if they are not given."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell expects it."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Pre-train a network without labels, probe it with a linear classifier and print the accuracy."""

    name: str
    """Name of the run; its files go to results/NAME."""
    model: Literal["byol", "simsiam", "directpred", "directcopy"] | None = None
    """Method. Give this or --preset."""
    preset: str | None = None
    """A named row of the papers' tables, such as simsiam-symmetric-stable."""
    dataset: str | None = None
    """digits, cifar10, stl10, fashion-mnist, gaussian, or a folder with train/<class>/* and test/<class>/* images.
    Default digits, or what the preset is about."""
    symmetry: bool = False
    """Make Wp symmetric after each step (hard symmetry)."""
    one_layer_predictor: bool = False
    """One linear layer as predictor."""
    eigenspace: bool = False
    """Draw the eigenspace figure at the end (its curves are recorded in any case)."""
    epochs_pretraining: int = 101
    """Passes over the training images without labels."""
    steps: int | None = None
    """Train exactly this many steps, instead of --epochs-pretraining; with --resume the new end of the run."""
    epochs_finetuning: int = 50
    """Epochs of the linear probe on the frozen encoder; 0 for no probe."""
    seed: int = 0
    """Seed of every random stream."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    batch_size: int | None = None
    """Images a step; each gives two views. Default 128, or the preset's own."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Number format of the large products; auto takes bfloat16 on a GPU, a CPU takes it if told to and has it. float64
    is for all numbers, to compare runs by; slow."""
    width: int | None = None
    """Channels of the encoder's first stage; default 64 for a ResNet-18, 16 for the small encoder."""
    encoder: Literal["small", "resnet18", "linear"] | None = None
    """Encoder, if not the data set's own."""
    stem: Literal["small-image", "large-image"] | None = None
    """First layers of a ResNet; default by the size of the images."""
    image_size: int | None = None
    """Height and width that a folder's images are brought to; default 32."""
    train_limit: int | None = None
    """Train on this many images only."""
    test_limit: int | None = None
    """Test on this many images only."""
    data_dir: str | None = None
    """Folder for downloads; default SSL_LAB_DATA or ./data."""
    set: tuple[str, ...] = ()
    """Knobs to start with, such as --set ema=0.99 eps=0.2."""
    at: tuple[str, ...] = ()
    """Knobs to turn after so many steps, such as --at 120:predictor=none 300:predictor=directpred,eps=0.2."""
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="config")] = ()
    """Other settings, such as --config momentum=0.8 projector_dim=64."""
    checkpoint_mb: float | None = None
    """Disk for the run's checkpoints, in MB; default SSL_LAB_CHECKPOINT_MB or 1000. The newest is kept in any case."""
    gpus: int | None = None
    """Have this many processes of this machine share the run, each on a GPU of its own; with --device cpu they share
    the cores. On several machines use torchrun."""
    max_restarts: int = 0
    """With --gpus: how often all processes are started again from the last checkpoint after one of them died."""
    resume: bool = False
    """Go on with a run that was stopped; its recorded settings count."""
    overwrite: bool = False
    """Lose the run of this name that is there."""
    results: str | None = None
    """Folder of all runs; default SSL_LAB_RESULTS or ./results."""

    def config(self) -> RunConfig:
        """The configuration that the flags ask for."""
        if self.preset is None and self.model is None:
            raise ConfigError("Say what to train: --model byol|simsiam|directpred|directcopy, or --preset NAME.")
        if self.preset is not None and self.model is not None:
            raise ConfigError("Give --model or --preset, not both.")
        knobs: dict[str, Any] = {}
        name = self.preset or self.model or ""
        if self.one_layer_predictor and name in PRESETS and PRESETS[name].knobs.get("predictor", "mlp") == "mlp":
            knobs["predictor"] = "linear"
        if self.symmetry:
            knobs["symmetry"] = "hard"
        knobs |= dict(parse_assignment(word) for word in self.set)
        fields = dict(_setting(word) for word in self.settings) | {
            field: value for field in _FIELDS if (value := getattr(self, field)) is not None
        }
        return preset(
            name, dataset=None if self.dataset is None else _dataset(self.dataset), knobs=knobs, seed=self.seed,
            device=self.device, precision=self.precision,
            epochs=self.epochs_pretraining if self.steps is None else None, **fields,
        )  # fmt: skip

    def run(self) -> int:
        """Trains and probes; gives the exit status."""
        if "WORLD_SIZE" in os.environ:
            from ssl_lab.ranks import joined

            if joined():
                from ssl_lab.distributed import as_rank

                return as_rank(lambda job: self._restarted(job)._run(job))
        return self._run()

    def launch(self, words: list[str]) -> int:
        """Has the processes of --gpus run the command line ``words``; gives the exit status."""
        if self.gpus is None or self.gpus < 1:
            raise ConfigError(f"--gpus takes a whole number from 1 on, and not {self.gpus}.")
        if self.max_restarts < 0:
            raise ConfigError(f"--max-restarts takes a whole number from 0 on, and not {self.max_restarts}.")
        from ssl_lab.distributed import launch

        return launch(
            words, name=self.name, ranks=self.gpus, restarts=self.max_restarts,
            device=None if self.resume else self.device,
        )  # fmt: skip

    def _restarted(self, job: Job) -> Train:
        """What to do in this start of the ranks: after a rank died, to go on with what they had begun."""
        if self.resume or not (results_dir(self.results) / check_name(self.name) / FILE_NAME).is_file():
            return self
        with open_run(self.name, self.results, readonly=True) as store:
            if not job.goes_on_with(store):
                return self
        return replace(self, resume=True, overwrite=False, at=())

    def _run(self, job: Job | None = None) -> int:
        if self.max_restarts and job is None:
            raise ConfigError("--max-restarts goes with --gpus; torchrun has it as a flag of its own.")
        _limit_checkpoints(self.checkpoint_mb)
        check_name(self.name)
        if self.epochs_finetuning < 0:
            raise ConfigError("The probe cannot have fewer than 0 epochs: --epochs-finetuning 0 is no probe at all.")
        if self.steps is not None and self.steps < 1:
            raise ConfigError("A run has at least one step: --steps 1 or more.")
        if self.resume and self.overwrite:
            raise ConfigError("Give --resume or --overwrite, not both.")
        turns = [_turn(word) for word in self.at]
        trainer, store = self._go_on(turns, job) if self.resume else self._begin(turns, job)
        with store:
            if not self._pretrain(trainer, store, job):
                return INTERRUPTED
            if self.epochs_finetuning and trainer.dataset.info.labelled:
                self._probe(trainer, store)
            else:
                if self.epochs_finetuning:
                    print(f"No probe: {trainer.dataset.info.title} has no classes to tell apart.")
                metrics = store.metrics()
                print(f"{trainer.step_count} steps done" + (f", loss {metrics.loss!r}." if metrics else "."))
            if self.eigenspace:
                print(f"Eigenspace figure: {draw_eigenspace(store)}")
        return 0

    def _begin(self, turns: list[Turn], job: Job | None) -> tuple[Trainer, RunStore]:
        from ssl_lab.loop import plan
        from ssl_lab.trainer import Trainer

        config = self.config()
        # The data, the device and the turns are tried before a file is made, or an old one lost.
        trainer = Trainer(config) if job is None else job.trainer(config)
        end = (config.epochs or 0) * trainer.steps_per_epoch if self.steps is None else self.steps
        for step, _ in turns:
            if not 0 <= step <= end:
                raise ConfigError(f"A knob cannot be turned at step {step:,}: this run goes from step 0 to {end:,}.")
        store = RunStore.create(self.name, config, self.results, overwrite=self.overwrite)
        try:
            # All at once: a start after this one goes on only with what is signed, and then has no other word of it.
            with store.transaction(durable=True):
                if self.steps is not None:
                    store.set_meta(GOAL, self.steps)
                if turns:
                    plan(store, turns)
                if job is not None:
                    job.sign(store)
        except BaseException:
            store.close()
            raise
        shared = job.describe() if job is not None else ""
        print(f"{self.name}: {_settings(config, self.steps)}; {_sizes(trainer)}{shared}.")
        return trainer, store

    def _go_on(self, turns: list[Turn], job: Job | None) -> tuple[Trainer, RunStore]:
        from ssl_lab.trainer import Trainer

        if turns:
            raise ConfigError("Knobs are planned when a run begins: --at does not go with --resume.")
        store = open_run(self.name, self.results)
        try:
            config, done = store.config(), store.last_step()
            goal = store.meta(GOAL) if self.steps is None else self.steps
            if config.epochs is None and goal is None:
                raise ConfigError(
                    f"The run {self.name!r} has no end: it was begun on the page. Open it there, with "
                    f"?run={self.name} in the address, or say how far to go: --steps N."
                )
            if self.steps is not None:
                if self.steps < done:
                    raise ConfigError(
                        f"The run {self.name!r} is recorded up to step {done:,} already: --steps {done} or more."
                    )
                if store.driven():
                    raise SSLLabError(f"The run {self.name!r} is being trained right now; stop it first.")
                store.set_meta(GOAL, self.steps)
            print(f"Going on with {self.name} as it was set up: {_settings(config, goal)}.")
            if job is None:
                return Trainer(config), store
            trainer = job.trainer(config)
            # Else a later start of ours would take the run of whoever drives it for its own.
            if store.driven():
                raise SSLLabError(f"The run {self.name!r} is being trained right now; stop it first.")
            job.sign(store)
            return trainer, store
        except BaseException:
            store.close()
            raise

    def _pretrain(self, trainer: Trainer, store: RunStore, job: Job | None) -> bool:
        from ssl_lab import checkpoint
        from ssl_lab.loop import drive, resume

        seen = resume(trainer, store) if self.resume else 0
        goal = store.meta(GOAL)
        until = (trainer.config.epochs or 0) * trainer.steps_per_epoch if goal is None else int(goal)
        heed = Interruptible() if job is None else job.attentive()
        with _Progress(trainer, until) as progress, heed as stop:
            state = drive(
                trainer, store, owner="train", until=until, events_seen=seen, stop=stop, on_record=progress.update
            )
        if job is not None:
            # What is left to do is done here alone.
            job.end()
        if state != "done":
            several = "" if self.gpus is None else f" --gpus {self.gpus}"
            print(
                f"Stopped after {trainer.step_count} of {until} steps; nothing is lost. Go on with: "
                f"ssl-lab train --name {self.name} --resume{several}"
            )
            return False
        about = {"config": json.loads(trainer.config.model_dump_json()), "step": trainer.step_count}
        checkpoint.save(store.folder / checkpoint.ENCODER, trainer.online.state_dict(), about)
        return True

    def _probe(self, trainer: Trainer, store: RunStore) -> None:
        from dataclasses import replace

        from tqdm import tqdm

        from ssl_lab import checkpoint
        from ssl_lab.evaluation import SEED_PROBE
        from ssl_lab.pretrain import probe

        epochs = self.epochs_finetuning
        often = 0.1 if sys.stderr.isatty() else 5.0
        with tqdm(total=epochs, desc="probe", unit="epoch", dynamic_ncols=True, mininterval=often) as bar:
            result = probe(trainer, replace(SEED_PROBE, epochs=epochs), on_epoch=lambda _done, _total: bar.update())
        about = {"classes": list(trainer.dataset.classes), "epochs": self.epochs_finetuning}
        checkpoint.save(store.folder / checkpoint.CLASSIFIER, result.state(), about)
        store.add_evaluation(trainer.step_count, "probe", result.accuracy_last)
        print(f"Accuracy: {100 * result.accuracy_last:.2f}%")


@dataclass(frozen=True, kw_only=True)
class Test:
    """Print the accuracy of a trained run on the test images and draw its eigenspace figure."""

    name: str
    """Name of the run."""
    only_vis: bool = False
    """Only draw the figure."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    results: str | None = None
    """Folder of all runs; default SSL_LAB_RESULTS or ./results."""

    def run(self) -> int:
        """Tests and draws; gives the exit status."""
        with open_run(self.name, self.results) as store:
            if not self.only_vis and not dataset_info(store.config().dataset).labelled:
                print("No accuracy: the data of this run has no classes to tell apart.")
            elif not self.only_vis:
                print(f"Accuracy: {100 * self._accuracy(store):.2f}%")
            print(f"Eigenspace figure: {draw_eigenspace(store)}")
        return 0

    def _accuracy(self, store: RunStore) -> float:
        from ssl_lab import checkpoint
        from ssl_lab.evaluation import ProbeResult
        from ssl_lab.trainer import Trainer

        try:
            weights, _ = checkpoint.load(store.folder / checkpoint.ENCODER)
            classifier, _ = checkpoint.load(store.folder / checkpoint.CLASSIFIER)
        except RunMissingError as error:
            raise RunMissingError(
                f"{error} The run {self.name!r} was not trained and probed to its end; go on with: "
                f"ssl-lab train --name {self.name} --resume"
            ) from None
        trainer = Trainer(store.config().model_copy(update={"device": self.device}))
        try:
            trainer.online.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise StoreError(f"{store.folder / checkpoint.ENCODER} does not fit this run: {reason}") from None
        result = ProbeResult.from_state(classifier)
        labels = trainer.dataset.test.labels
        predicted = result.predict(trainer.features(trainer.dataset.test.images).cpu())
        return float((predicted == labels).float().mean())


def draw_eigenspace(store: RunStore) -> Path:
    """Writes the four-panel eigenspace figure of a run's recorded epochs beside its file.

    Raises:
        RunMissingError: no spectrum was recorded.
    """
    from ssl_lab.figures import save_figure, spectra_figure

    # Of the spectra that a page asked for in between, the figure shows those at the ends of epochs.
    records = [r for r in store.spectra() if abs(r.epoch - round(r.epoch)) < 1e-9]
    if not records:
        raise RunMissingError(f"The run {store.name!r} has not come to the end of an epoch; there is nothing to draw.")
    figure = spectra_figure([r.epoch for r in records], [r.spectrum for r in records], title=store.name)
    path = store.folder / "eigenspace.png"
    save_figure(figure, path)
    return path


@dataclass(frozen=True, kw_only=True)
class Runs:
    """List the runs that are there, newest first."""

    results: str | None = None
    """Folder of all runs; default SSL_LAB_RESULTS or ./results."""

    def run(self) -> int:
        """Prints the list; gives the exit status."""
        runs = list_runs(self.results)
        if not runs:
            print(f"No runs in {results_dir(self.results)} yet.")
            return 0
        rows = [("NAME", "STATE", "STEP", "EPOCH", "KNN", "PROBE", "PRESET", "DATA")]
        for run in runs:
            rows.append((
                run.name, run.status.state, str(run.status.step), f"{run.status.epoch:.1f}", _percent(run.knn),
                _percent(run.probe), run.config.preset, Path(run.config.dataset).name,
            ))  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return 0


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Go through a run again from its config, seed and knob events, and say whether it comes to the same numbers.

    Exit status: 0 bit-equal, 1 not the same though it should be, 3 only close, on another machine or version.
    """

    name: tyro.conf.Positional[str]
    """Name of the run."""
    results: str | None = None
    """Folder of all runs; default SSL_LAB_RESULTS or ./results."""

    def run(self) -> int:
        """Replays; gives the exit status."""
        from tqdm import tqdm

        from ssl_lab.replay import replay

        with _open(self.name, self.results) as store:
            often = 0.1 if sys.stderr.isatty() else 5.0
            with tqdm(
                total=store.last_step(), desc="replay", unit="step", dynamic_ncols=True, mininterval=often
            ) as bar:
                report = replay(store, on_step=lambda _: bar.update())
        print(report.describe())
        if report.equal:
            return 0
        return CLOSE if report.excused else DIFFERENT


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run out: as a script or a command line that do it again from nothing, as tables, arrays, or one file.

    script (.py) and command (.sh) do the run again, knobs turned on the way included; csv and parquet have a row for
    each step; npz has the spectra too; sqlite is the whole record in one file, to be opened on any bench.
    """

    name: tyro.conf.Positional[str]
    """Name of the run, or the path of a run's file."""
    kind: Annotated[Literal["script", "command", "csv", "parquet", "npz", "sqlite"], tyro.conf.arg(name="as")]
    """What to write it as."""
    out: str | None = None
    """File to write; default NAME with the kind's suffix, here; - for the terminal (script, command and csv)."""
    results: str | None = None
    """Folder of all runs; default SSL_LAB_RESULTS or ./results."""

    def run(self) -> int:
        """Writes; gives the exit status."""
        from ssl_lab import export

        with _open(self.name, self.results) as store:
            if self.out == "-":
                self._print(store)
                return 0
            path = Path(f"{check_name(store.name)}{export.KINDS[self.kind]}" if self.out is None else self.out)
            if self.out is None and path.exists():
                raise ConfigError(f"There is a {path} here already. Say where to write to: --out FILE.")
            export.write(store, self.kind, path)
        print(f"Wrote {path}.")
        return 0

    def _print(self, store: RunStore) -> None:
        from ssl_lab import export

        if self.kind == "csv":
            lines = export.csv_lines(store)
        elif self.kind in ("script", "command"):
            lines = iter([export.script(store) if self.kind == "script" else export.command(store)])
        else:
            raise ConfigError(
                f"Only script, command and csv go to the terminal; give a file for {self.kind}: --out FILE."
            )
        try:
            sys.stdout.writelines(lines)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has seen enough, such as `head`; the interpreter must not try again when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Begin a new run that shares another one's past up to a step, and goes on from there by itself."""

    name: tyro.conf.Positional[str]
    """Name of the run, or the path of a run's file; it is only read."""
    step: int | None = None
    """Steps that both have in common; default all that are recorded."""
    before_event: int | None = None
    """Fork just before the knob event of this number, and so without it and all that came after."""
    as_name: str | None = None
    """Name of the new run; default NAME-fork-1, -2, ..."""
    results: str | None = None
    """Folder of all runs; default SSL_LAB_RESULTS or ./results."""

    def run(self) -> int:
        """Forks; gives the exit status."""
        if self.step is not None and self.before_event is not None:
            raise ConfigError("Give --step or --before-event, not both.")
        with _open(self.name, self.results) as store:
            step, events = self.step, None
            if self.before_event is not None:
                known = {event.number: event for event in store.events()}
                if self.before_event not in known:
                    raise ConfigError(
                        f"The run {store.name!r} has no knob event {self.before_event}: it has {len(known)} of them."
                    )
                step, events = known[self.before_event].step, self.before_event - 1
            # A name has at most 100 characters.
            name = self.as_name or free_name(f"{store.name[:80]}-fork", self.results)
            with store.fork(name, step, events=events, results=results_dir(self.results)) as child:
                turned = len(child.events())
                print(
                    f"{name} has what {store.name} has up to step {child.last_step():,}, with {turned} "
                    f"knob event{'s' * (turned != 1)}. Go on to step M with: "
                    f"ssl-lab train --name {name} --resume --steps M"
                )
        return 0


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How pages are served."""

    port: int | None = None
    """Port to listen on; default the first free one from 8866."""
    ip: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets others in, such as a class: they need the token of the address."""
    token: str | None = None
    """Word that visitors have to know; default none on this machine alone, else a random one."""
    own_only: bool = False
    """Visitors steer the runs that they made, and the host all of them; default where others are let in."""
    no_own_only: bool = False
    """Visitors steer every run; default on this machine alone."""
    no_browser: bool = False
    """Do not open a browser, only say where the page is."""
    theme: Literal["auto", "light", "dark"] = "auto"
    """Colours; auto as the visitor's system prefers."""
    max_visitors: int = 40
    """Pages that may be open at once; further ones are told so."""
    max_runs: int | None = None
    """Runs that a visitor may keep; default 20 where others are let in."""
    visitor_mb: float | None = None
    """Disk for the runs of one visitor, in MB; default 500 where others are let in."""
    preheat: int | None = None
    """Kernels kept ready for the next pages; default 1, and where others are let in as many as the memory allows."""
    checkpoint_mb: float | None = None
    """Disk for the checkpoints of one run, in MB; default SSL_LAB_CHECKPOINT_MB or 1000."""

    def serve(self, folder: Path, query: Mapping[str, str] | None = None, file: Path | None = None) -> int:
        """Serves until stopped; gives the exit status."""
        try:
            from lab.serve import serve
        except ImportError as error:
            raise SSLLabError(
                f"The bench needs {error.name}, which is not installed here: pip install ssl-lab with all it asks for. "
                "ssl-lab train and test work without it."
            ) from None
        from ssl_lab.desk import EngineDesk

        _limit_checkpoints(self.checkpoint_mb)
        if self.own_only and self.no_own_only:
            raise ConfigError("Give --own-only or --no-own-only, not both.")
        own = True if self.own_only else False if self.no_own_only else None
        for flag, value, least in (
            ("max-visitors", self.max_visitors, 1), ("max-runs", self.max_runs, 1), ("preheat", self.preheat, 0),
        ):  # fmt: skip
            if value is not None and value < least:
                raise ConfigError(f"--{flag} takes a whole number from {least} on, and not {value}.")
        most_bytes = None
        if self.visitor_mb is not None:
            if not 0 < self.visitor_mb < float("inf"):
                raise ConfigError(f"The disk of a visitor cannot be {self.visitor_mb:g} MB: it takes a number above 0.")
            most_bytes = int(self.visitor_mb * 1e6)
        desk = EngineDesk(folder)
        theme = {"light": False, "dark": True, "auto": None}[self.theme]
        try:
            serve(
                folder, port=self.port, ip=self.ip, open_browser=not self.no_browser, dark=theme,
                token=self.token, own_only=own, max_visitors=self.max_visitors, max_runs=self.max_runs,
                max_bytes=most_bytes, preheat=self.preheat, beside=desk.engine_beside(), query=query, file=file,
            )  # fmt: skip
        finally:
            desk.close()
        return 0


@dataclass(frozen=True, kw_only=True)
class App(Serving):
    """Serve the notebooks as apps with Voila and open the front page in the browser."""

    results: str | None = None
    """Folder of all runs; default SSL_LAB_RESULTS or ./results."""

    def run(self) -> int:
        """Serves until stopped; gives the exit status."""
        return self.serve(results_dir(self.results))


@dataclass(frozen=True, kw_only=True)
class Watch(Serving):
    """Open a run on the bench, live or finished: one of this machine, of another process, or a file from anywhere.

    A run that this machine can reach is steered from the page. What lies where nothing can be written, such as a
    mounted folder of a GPU box, and files from elsewhere are looked at, and forked into the results folder here.
    """

    name: tyro.conf.Positional[str]
    """Name of the run, or the path of a run's file or folder."""
    step: int | None = None
    """Step to look at; default now."""
    results: str | None = None
    """Folder of all runs; default SSL_LAB_RESULTS or ./results."""

    def run(self) -> int:
        """Serves until stopped; gives the exit status."""
        with _open(self.name, self.results) as store:
            path, said = store.path, store.meta("name")
            if self.step is not None and not 0 <= self.step <= store.last_step():
                raise ConfigError(
                    f"The run {store.name!r} has no step {self.step}: it is recorded up to step {store.last_step():,}."
                )
        query = {} if self.step is None else {"step": str(self.step)}
        folder = results_dir(self.results)
        # A file that was brought from elsewhere lies in a folder that is no run's.
        at_home = path.parent.parent.absolute() == folder.absolute() or said == path.parent.name
        if path.name == FILE_NAME and at_home and writable(path):
            return self.serve(path.parent.parent, {"run": path.parent.name, **query})
        # The folder of a run that can only be looked at cannot take its forks.
        here = folder if os.access(folder if folder.exists() else folder.parent, os.W_OK) else results_dir("results")
        return self.serve(here, query, path.absolute())


Subcommand = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Test, tyro.conf.subcommand("test")]
    | Annotated[Runs, tyro.conf.subcommand("runs")]
    | Annotated[Replay, tyro.conf.subcommand("replay")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Fork, tyro.conf.subcommand("fork")]
    | Annotated[Watch, tyro.conf.subcommand("watch")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[SweepStudy, tyro.conf.subcommand("sweep")]
    | Annotated[App, tyro.conf.subcommand("app")]
)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``ssl-lab``; gives the exit status: 0, 2 for what was refused, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # A bare ``ssl-lab``, or one with the app's own flags, opens the front page.
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words = ["app", *words]
    if words[0] == "--version":
        print(f"ssl-lab {__version__}")
        return 0
    command: Train | Test | Runs | Replay | Export | Fork | App | Watch | Reproduce | SweepStudy = tyro.cli(
        Subcommand,
        prog="ssl-lab", args=words, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,),
    )  # fmt: skip
    try:
        if isinstance(command, Train) and command.gpus is not None and "TORCHELASTIC_RUN_ID" not in os.environ:
            return command.launch(words)
        return command.run()
    except SSLLabError as error:
        print(f"ssl-lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


# ------------------------------------------------------------------ small parts


def _setting(word: str) -> tuple[str, Any]:
    """``momentum=0.8`` as ("momentum", 0.8): a setting without a flag of its own."""
    others = [name for name in RunConfig.model_fields if name not in (*Train.__dataclass_fields__, "epochs", "knobs")]
    name, _, text = word.partition("=")
    if name not in others or not text:
        raise ConfigError(f"--config takes FIELD=VALUE and not {word!r}. The fields are: {', '.join(others)}.")
    return name, plain_value(text)


def _turn(word: str) -> Turn:
    """``120:predictor=none,ema=0.9`` as (120, {"predictor": "none", "ema": 0.9}), checked."""
    step, _, text = word.partition(":")
    knobs = parse_knobs(text)
    if not (step.isascii() and step.isdigit()) or not knobs:
        raise ConfigError(f"--at takes STEP:KNOB=VALUE[,KNOB=VALUE], such as 120:predictor=none, and not {word!r}.")
    if len(step) > 15:
        raise ConfigError(f"A run has no step {shown(step)}.")
    return int(step), knobs


def _open(name: str, results: str | None) -> RunStore:
    """A run to look at: by its name, or else the file or folder at a path."""
    path = Path(name).expanduser()
    there = path.is_file() or (path / FILE_NAME).is_file()
    if path.name == name and ((results_dir(results) / name / FILE_NAME).is_file() or not there):
        return open_run(name, results, readonly=True)
    return RunStore.open(path, readonly=True)


def _limit_checkpoints(megabytes: float | None) -> None:
    """For this process and the engine that it starts."""
    if megabytes is None:
        return
    if not 0 < megabytes < float("inf"):
        raise ConfigError(f"The disk for checkpoints cannot be {megabytes:g} MB: it takes a number above 0.")
    os.environ[LIMIT] = str(megabytes)


def _dataset(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.absolute()) if path.is_dir() else name


def _settings(config: RunConfig, goal: int | None) -> str:
    length = f"{config.epochs} epochs" if goal is None else f"{goal:,} steps"
    return f"{config.preset} on {config.dataset}, seed {config.seed}, {length}"


def _sizes(trainer: Trainer) -> str:
    data = trainer.dataset
    return (
        f"{len(data.train.images):,} training and {len(data.test.images):,} test images, "
        f"{trainer.steps_per_epoch} steps an epoch on {trainer.device}"
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"


class _Progress:
    """A bar with step, loss, images/s and the time left, written at most ten times a second."""

    def __init__(self, trainer: Trainer, until: int) -> None:
        from tqdm import tqdm

        # In a log file a line every few seconds is plenty.
        often = 0.1 if sys.stderr.isatty() else 5.0
        self._bar = tqdm(
            total=until, initial=trainer.step_count, desc="train", unit="step", dynamic_ncols=True, mininterval=often
        )
        self._batch = trainer.config.batch_size
        self._shown, self._last = time.monotonic(), trainer.step_count

    def update(self, record: StepRecord) -> None:
        now = time.monotonic()
        if now - self._shown >= 0.5:
            rate = (record.step - self._last) * self._batch / (now - self._shown)
            self._shown, self._last = now, record.step
            self._bar.set_postfix_str(f"loss {record.loss:.4f}, {rate:,.0f} images/s", refresh=False)
        self._bar.update(record.step - self._bar.n)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


if __name__ == "__main__":
    sys.exit(main())
