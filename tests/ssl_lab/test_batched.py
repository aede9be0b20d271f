"""Several trainers stepped as one: each is what it is alone, whatever is turned and whoever comes and goes.

Numbers that are followed over many steps are those of networks with a smooth nonlinearity. With a ReLU a last digit
decides now and then on which side of 0 an input lies, and from there on any two orders of a sum lead apart, by the
third digit; so a ReLU's steps are compared one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_lab import Trainer
from ssl_lab.batched import AGREEMENT, Batch, NotMadeError, Verdict, differences, worth_it
from ssl_lab.errors import NonFiniteLossError, SSLLabError
from ssl_lab.graphs import StepGraphs
from ssl_lab.loop import Pace, drive
from ssl_lab.store import RunStore
from ssl_lab.together import Company, Families
from ssl_lab.trainer import StepRecord
from tests.ssl_lab.test_fast_path import HAS_BF16, Log

Make = Callable[..., Trainer]
Turns = Sequence[dict[str, Any]]

EMA: Turns = [{"ema": 0.0}, {"ema": 0.5}, {"ema": 0.9}, {"ema": 0.99}, {"ema": 0.999}]
LR: Turns = [{"lr": lr, "lr_predictor": 2 * lr} for lr in (0.003, 0.01, 0.03, 0.06, 0.1)]
MODES: Turns = [
    {"predictor": "directpred"}, {"predictor": "linear"}, {"predictor": "mlp"}, {"predictor": "directpred", "eps": 0.3},
    {"predictor": "linear", "symmetry_strength": 0.5},
]  # fmt: skip


def smooth(trainer: Trainer) -> Trainer:
    """With SiLU in place of ReLU."""
    for network in (trainer.online, trainer.target, trainer.predictor):
        for part in network.modules():
            for name, child in list(part.named_children()):
                if isinstance(child, nn.ReLU):
                    setattr(part, name, nn.SiLU())
    return trainer


def family(parent: Trainer, turns: Turns, *, exact: bool = False) -> list[Trainer]:
    """Forks of ``parent``, each with its turn; ``exact`` as on a CPU, else as on a GPU."""
    found = []
    for turn in turns:
        fork = smooth(parent.fork())
        fork._exact = exact
        fork.set(**turn)
        found.append(fork)
    return found


def parent_of(make: Make, name: str, steps: int = 3, **fields: Any) -> Trainer:
    parent = smooth(make(name, **fields))
    for _ in range(steps):
        parent.step()
    return parent


def step_together(batch: Batch, members: Sequence[Trainer] | None = None) -> list[StepRecord]:
    """One step of each; those that are a group of their own make it alone."""
    outcomes, records = batch.step(members), []
    for trainer in members or batch.trainers:
        outcome = outcomes[trainer]
        if isinstance(outcome, NotMadeError):
            assert outcome.__cause__ is None, outcome
            outcome = trainer.step()
        assert isinstance(outcome, StepRecord), outcome
        records.append(outcome)
    return records


def assert_equal(together: Sequence[Trainer], alone: Sequence[Trainer]) -> None:
    for number, (mine, theirs) in enumerate(zip(together, alone, strict=True)):
        assert mine.step_count == theirs.step_count
        for name, apart in differences(mine, theirs).items():
            # Momentum is a sum of small differences.
            limit = 3 * AGREEMENT if name.startswith("momentum") else AGREEMENT
            assert apart <= limit, (number, name, apart)


@pytest.mark.parametrize(
    ("name", "turns", "exact", "later"),
    [
        ("byol", EMA, False, {"symmetry": "penalty", "ema": 0.0}),
        ("byol-one-layer", EMA, True, {"predictor": "directcopy"}),
        ("directpred", LR, False, {"freq": 2, "rho": 0.7, "centred": True}),
        ("simsiam", LR, False, {"symmetry": "hard", "ema": 0.9}),
        ("byol-one-layer", MODES, True, {"symmetry": "penalty", "augmentation": 0.5}),
        ("no-stop-gradient", EMA, False, {"stop_gradient": True}),
    ],
)
def test_fifty_steps_together_are_fifty_steps_alone(
    name: str, turns: Turns, exact: bool, later: dict[str, Any], make_trainer: Make
) -> None:
    parent = parent_of(make_trainer, name)
    alone, together = family(parent, turns, exact=exact), family(parent, turns, exact=exact)
    batch = Batch(together)
    for step in range(50):
        if step in (20, 35):
            # At one of them first, so that it leaves its group; then at all.
            for trainer in [*alone[1:2], *together[1:2]] if step == 20 else [*alone, *together]:
                trainer.set(**later)
        expected = [trainer.step() for trainer in alone]
        for mine, theirs in zip(step_together(batch), expected, strict=True):
            assert mine.step == theirs.step
            assert mine.loss == pytest.approx(theirs.loss, abs=1e-5)
            assert mine.penalty == pytest.approx(theirs.penalty, rel=1e-4, abs=1e-6)
    assert_equal(together, alone)


def test_members_leave_and_come_back_and_lag_behind(make_trainer: Make) -> None:
    """No neighbours in the stack, steps alone between, other views than the rest."""
    parent = parent_of(make_trainer, "byol")
    alone, together = family(parent, EMA), family(parent, EMA)
    batch = Batch(together)
    for here in [[0, 1, 2, 3, 4]] * 3 + [[0, 2, 4]] * 4 + [[1, 2]] * 3 + [[0, 1, 2, 3, 4]] * 5:
        for row in here:
            alone[row].step()
        step_together(batch, [together[row] for row in here])
    for row in (1, 3):
        for trainer in (alone[row], together[row]):
            trainer.step()
    assert_equal(together, alone)
    # Into another batch, in another order and with a stranger.
    stranger, same = family(parent, [{"ema": 0.3}])[0], family(parent, [{"ema": 0.3}])[0]
    again = [stranger, together[3], together[1]]
    other = Batch(again)
    for _ in range(5):
        for trainer in (same, alone[3], alone[1]):
            trainer.step()
        step_together(other)
    assert_equal(again, [same, alone[3], alone[1]])


def test_other_seeds_and_the_linear_model(make_trainer: Make) -> None:
    make = lambda: [smooth(make_trainer("byol-one-layer", seed=seed)) for seed in (1, 2)]  # noqa: E731
    linear = lambda: [  # noqa: E731
        make_trainer(
            "byol-one-layer", encoder="linear", projector_layers=0, loss="euclidean", momentum=0.0,
            knobs={"ema": ema, "lr": 0.01},
        )
        for ema in (0.0, 0.9)
    ]  # fmt: skip
    for some in (make, linear):
        alone, together = some(), some()
        batch = Batch(together)
        for _ in range(10):
            for trainer in alone:
                trainer.step()
            step_together(batch)
        assert_equal(together, alone)
    with pytest.raises(ValueError, match="one shape"):
        Batch([make()[0], linear()[0]])


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16")
def test_products_may_be_of_half_the_digits(make_trainer: Make) -> None:
    parent = parent_of(make_trainer, "byol", precision="bfloat16")
    alone, together = family(parent, EMA), family(parent, EMA)
    batch = Batch(together)
    seen: list[torch.dtype] = []
    batch._network.encoder.conv2.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    for _ in range(5):
        expected = [trainer.step() for trainer in alone]
        for mine, theirs in zip(step_together(batch), expected, strict=True):
            assert mine.loss == pytest.approx(theirs.loss, abs=0.02)
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for t in together[0].state_dict()["tensors"].values() if t.is_floating_point()} == {torch.float32}
    assert worth_it(together, steps=1, rounds=1).agrees, "compared in full float32"


def test_a_state_stays_its_trainers_own(make_trainer: Make) -> None:
    together = family(parent_of(make_trainer, "directpred"), EMA)
    batch = Batch(together)
    step_together(batch)
    before = [trainer.state_dict()["tensors"] for trainer in together]
    saved = together[2].state_dict()
    images = together[2].dataset.test.images[:20]
    features, spectrum = together[2].features(images), together[2].spectrum()
    twin = smooth(together[2].fork())
    twin._exact = False
    assert torch.equal(twin.features(images), features)
    for _ in range(3):
        step_together(batch)
    assert not torch.equal(together[2].features(images), features)
    together[2].load_state_dict(saved)
    assert torch.equal(together[2].features(images), features)
    assert together[2].spectrum().effective_rank == spectrum.effective_rank
    # The others' rows were not touched by it, and its own is a row still.
    assert together[1].step_count == together[2].step_count + 3
    assert not torch.equal(together[1].state_dict()["tensors"]["correlation"], before[1]["correlation"])
    step_together(batch)
    twin.step()
    assert_equal([together[2]], [twin])


def test_one_that_diverges_takes_nobody_with_it(make_trainer: Make) -> None:
    """As on a GPU, where nothing is looked at before it is written."""
    parent = parent_of(make_trainer, "directpred")
    turns: Turns = [{"ema": 0.5}, {"ema": 0.9}, {"ema": 0.99}]
    alone, together = family(parent, turns), family(parent, turns)
    batch = Batch(together)
    together[1]._weights.flat.fill_(float("nan"))
    for _ in range(5):
        for trainer in (alone[0], alone[2]):
            trainer.step()
        losses = [record.loss for record in step_together(batch)]
        assert [loss == loss for loss in losses] == [True, False, True]
    assert_equal([together[0], together[2]], [alone[0], alone[2]])


# ---------------------------------------------------------------- as a graph


def captured(batch: Batch) -> StepGraphs:
    batch.graphs = StepGraphs(torch.device("cpu"))
    return batch.graphs


def test_captured_steps_are_plain_ones_to_the_bit(make_trainer: Make) -> None:
    """Whoever is there: rows, views and rates are read where they lie."""
    parent = parent_of(make_trainer, "byol")
    plain, graphed = family(parent, EMA), family(parent, EMA)
    batches = Batch(plain), Batch(graphed)
    graphs = captured(batches[1])
    for here in [[0, 1, 2, 3, 4]] * 4 + [[0, 2, 4]] * 3 + [[0, 1, 4]] * 3 + [[1, 2]] * 3 + [[0, 1, 2, 3, 4]] * 6:
        for batch in batches:
            step_together(batch, [batch.trainers[row] for row in here])
    for turn in ({"lr": 0.05}, {"ema": 0.7}, {"predictor": "directpred"}, {"eps": 0.4}):
        for mine, theirs in zip(plain, graphed, strict=True):
            mine.set(**turn)
            theirs.set(**turn)
        for _ in range(3):
            for batch in batches:
                step_together(batch)
    for mine, theirs in zip(plain, graphed, strict=True):
        assert set(differences(mine, theirs).values()) == {0.0}
    assert graphs.captures > 3


def operations(batch: Batch, **turn: Any) -> list[str]:
    for trainer in batch.trainers:
        trainer.set(**turn)
    place, path = batch._place(list(range(len(batch.trainers)))), batch.trainers[-1].path()
    views = batch.trainers[0].views()
    with Log() as log:
        batch._learn(views, path, place, True)
    return log.rows


@pytest.mark.parametrize("name", ["byol", "byol-one-layer", "directpred", "directcopy", "byol-symmetric"])
def test_a_step_holds_no_number_that_a_knob_sets_and_reads_none_back(name: str, make_trainer: Make) -> None:
    batch = Batch(family(parent_of(make_trainer, name), EMA))
    for _ in range(2):
        step_together(batch)
    before = operations(batch)
    rates = {"lr": 0.07, "lr_predictor": 0.11, "weight_decay": 3e-3, "ema": 0.123, "rho": 0.777, "eps": 0.345}
    assert operations(batch, **rates) == before
    forbidden = ("_local_scalar_dense", "linalg_eigh", "linalg_svd", "nonzero", "is_nonzero", "_linalg_check_errors")
    assert not [row for row in before if any(word in row for word in forbidden)]


def test_five_as_one_are_few_operations(make_trainer: Make) -> None:
    """What it is for: not five times those of one."""
    parent = parent_of(make_trainer, "byol")
    one = family(parent, EMA)[2]
    with Log() as log:
        one._learn(one.views(), one.path())
    assert len(operations(Batch(family(parent, EMA)))) < 2.5 * len(log.rows)


# ---------------------------------------------------------------- worth it


@pytest.mark.parametrize("name", ["byol", "directpred"])
def test_both_ways_are_measured_on_copies_and_agree(name: str, make_trainer: Make) -> None:
    parent = make_trainer(name)
    for _ in range(3):
        parent.step()
    trainers = [parent.fork() for _ in EMA]
    for trainer, turn in zip(trainers, EMA, strict=True):
        trainer.set(**turn)
    before = [trainer.state_dict()["tensors"] for trainer in trainers]
    verdict = worth_it(trainers, steps=1, rounds=2)
    assert verdict.agrees, str(verdict)
    assert len(verdict.alone) == len(verdict.together) == 2
    assert "one after another" in str(verdict)
    for trainer, tensors in zip(trainers, before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in trainer.state_dict()["tensors"].items())


def test_a_batch_that_is_wrong_or_fails_is_not_worth_it(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainers = family(parent_of(make_trainer, "byol"), EMA[1:3])
    step = Batch._learn

    def wrong(batch: Batch, *arguments: Any) -> None:
        step(batch, *arguments)
        batch._stack["online_statistics"][1].mul_(1.001)

    def failing(*_: Any) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(Batch, "_learn", wrong)
    verdict = worth_it(trainers, steps=1, rounds=1)
    assert not verdict.agrees
    assert verdict.apart > 1e-4
    monkeypatch.setattr(Batch, "_learn", failing)
    verdict = worth_it(trainers, steps=1, rounds=1)
    assert not verdict.worth_it
    assert "no kernel for this" in str(verdict)
    assert len(verdict.alone) == 1


# ---------------------------------------------------------------- in threads


def kept(_: Sequence[Trainer]) -> Verdict:
    return Verdict(alone=[1.0], together=[2.0], apart=0.0, captured=False)


def left(_: Sequence[Trainer]) -> Verdict:
    return Verdict(alone=[2.0], together=[1.0], apart=0.0, captured=False)


QUIET = Pace(knn_share=1e-6, knn_pause=1e6, checkpoint=1e6)


def drive_all(
    trainers: Sequence[Trainer], folder: Path, untils: Sequence[int], company: Company | None
) -> dict[int, Exception]:
    """Every trainer by its loop, in its thread, into its file; gives what ended those that failed."""
    failures: dict[int, Exception] = {}
    begin = threading.Barrier(len(trainers))

    def run(number: int) -> None:
        trainer = trainers[number]
        with RunStore.create(f"run{number}", trainer.config, folder) as store:
            if company is not None:
                company.join(trainer)
            begin.wait()
            try:
                drive(trainer, store, owner="train", until=untils[number], pace=QUIET)
            except SSLLabError as error:
                failures[number] = error
            finally:
                if company is not None:
                    company.leave(trainer)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(trainers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=200)
        assert not thread.is_alive()
    return failures


def test_loops_in_threads_step_together_and_one_ends_and_one_fails(make_trainer: Make, tmp_path: Path) -> None:
    def begun() -> list[Trainer]:
        found = family(smooth(make_trainer("byol")), EMA, exact=True)
        found[3].set(lr=100.0)
        found[3]._weights.flat.mul_(1e18)
        return found

    untils = [40, 25, 40, 40, 40]
    alone, together = begun(), begun()
    company = Company(kept, patience=2.0, settled=0.0)
    expected = drive_all(alone, tmp_path / "alone", untils, None)
    failures = drive_all(together, tmp_path / "together", untils, company)
    assert list(failures) == list(expected) == [3]
    assert isinstance(failures[3], NonFiniteLossError)
    assert company.shared >= 20
    others = [0, 1, 2, 4]
    assert_equal([together[i] for i in others], [alone[i] for i in others])
    for number in others:
        with RunStore.open(tmp_path / "together" / f"run{number}") as store:
            assert store.recorded_losses()[0].tolist() == list(range(1, untils[number] + 1))


def test_where_it_is_not_worth_it_or_breaks_everyone_goes_alone(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = smooth(make_trainer("byol-one-layer"))
    alone = family(parent, EMA[:3], exact=True)
    drive_all(alone, tmp_path / "alone", [10] * 3, None)
    unwanted, broken = Company(left, patience=2.0, settled=0.0), Company(kept, patience=2.0, settled=0.0)

    def failing(*_: Any) -> None:
        raise RuntimeError("no kernel for this")

    for name, company in (("unwanted", unwanted), ("broken", broken)):
        together = family(parent, EMA[:3], exact=True)
        monkeypatch.setattr(Batch, "_learn", failing)
        assert drive_all(together, tmp_path / name, [10] * 3, company) == {}
        assert company.shared == 0
        for mine, theirs in zip(together, alone, strict=True):
            assert set(differences(mine, theirs).values()) == {0.0}
    assert any("no kernel for this" in verdict.failure for verdict in broken.verdicts.values())


def test_nobody_waits_for_one_that_stands(make_trainer: Make) -> None:
    """And it is waited for again when it is back; till then it is some steps behind, and the others let it catch up."""
    first, second = family(parent_of(make_trainer, "byol-one-layer"), EMA[1:3])
    company = Company(kept, patience=0.3, settled=0.0)
    for trainer in (first, second):
        company.join(trainer)

    def steps(trainer: Trainer, count: int) -> threading.Thread:
        thread = threading.Thread(target=lambda: [trainer.step() for _ in range(count)])
        thread.start()
        return thread

    for thread in (steps(first, 10), steps(second, 10)):
        thread.join(60)
    assert first.step_count == second.step_count == 13
    assert company.shared >= 1
    steps(first, 5).join(60)
    assert first.step_count == 18
    shared = company.shared
    for thread in (steps(first, 10), steps(second, 15)):
        thread.join(60)
    assert first.step_count == second.step_count == 28
    assert company.shared > shared


def test_an_engine_gives_a_family_of_one_shape_one_company(make_trainer: Make) -> None:
    a, b, c, d = (make_trainer("byol", seed=seed, width=4 + (seed == 3)) for seed in range(4))
    assert Families().admit(a, "family") is None, "a CPU's runs are replayed bit by bit"
    assert a.company is None
    families = Families(everywhere=True)
    company = families.admit(a, "family")
    assert company is not None
    assert families.admit(b, "family") is company
    assert families.admit(c, "another") is not company
    assert families.admit(d, "family") is not company
    assert len(company.members) == 2
    company.leave(b)
    assert len(company.members) == 1
    assert b.company is None
    wide = make_trainer("byol", seed=1, precision="float64")
    assert families.admit(wide, "family") is None, "a batch is of float32"
    assert wide.company is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["byol", "directpred", "directcopy", "simsiam"])
def test_both_ways_agree_on_a_gpu_and_a_step_as_one_is_captured(name: str, make_trainer: Make) -> None:
    trainers = family(parent_of(make_trainer, name, device="cuda"), EMA[1:], exact=False)
    verdict = worth_it(trainers, steps=8, rounds=3)
    assert verdict.agrees, str(verdict)
    assert verdict.captured, str(verdict)
