"""What one of two ranks does for ``test_distributed.py``: many checks in one process, which takes seconds to start.

``python -m tests.ssl_lab.ranks_at_work FOLDER`` with torchrun's variables set; leaves FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from ssl_lab import RunStore, Trainer, preset
from ssl_lab.config import RunConfig
from ssl_lab.distributed import BEGIN, END, Leader, build, follow
from ssl_lab.errors import ConfigError
from ssl_lab.loop import drive, fingerprint, plan
from ssl_lab.ranks import DriftError, Ranks
from ssl_lab.store import open_run
from tests.ssl_lab.conftest import small_config

STEPS = 50
CASES: dict[str, dict[str, Any]] = {
    "byol": {},
    "directpred": {},
    "directcopy": {},
    "directpred-centred": {},
    "directpred-freq5": {},
    "optimal": {},
    "no-stop-gradient": {},
    "byol-symmetric": {},
    "penalty": {"name": "byol-one-layer", "knobs": {"symmetry": "penalty", "symmetry_strength": 0.5}},
    "linear": {"batch_size": 64},
    "resnet": {"name": "directpred", "encoder": "resnet18", "width": 2, "batch_size": 16},
}
TURNS: dict[int, dict[str, Any]] = {
    7: {"predictor": "none"}, 12: {"predictor": "mlp", "symmetry": "hard"}, 20: {"ema": 0.5, "lr": 0.1},
    26: {"predictor": "directcopy", "eps": 0.3}, 33: {"augmentation": 0.5},
}  # fmt: skip
WHOLE: dict[str, Any] = {"steps": 300, "turn": (15, {"ema": 0.9})}
"""The run that is compared with one that is cut."""


def case(name: str) -> RunConfig:
    fields = {**CASES[name]}
    return small_config(fields.pop("name", name), precision="float64", **fields)


def whole_config() -> RunConfig:
    """As the command line makes it."""
    return preset("directpred", device="cpu", width=4, epochs=None)


class _Watched(Trainer):
    """Looks after each step at what the ranks have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gradient: torch.Tensor | None = None
        self.gradients_differed = True
        self.predictors_alike = True
        self.log: list[tuple[int, dict[str, Any]]] = []
        """Steps done before each step, and the knobs that it was made with."""
        # Called with this rank's own gradient, before it is reduced.
        self._weights.parameters[0].register_hook(lambda g: setattr(self, "gradient", g.clone()))

    def step(self) -> Any:
        self.log.append((self.step_count, self.knobs.model_dump()))
        record = super().step()
        assert self.ranks is not None
        assert self.gradient is not None
        for mine, alike in ((self.gradient, False), (self.predictor.matrix().detach().contiguous(), True)):
            first, second = self.ranks.gathered(mine.contiguous())
            if alike:
                self.predictors_alike &= torch.equal(first, second)
            else:
                self.gradients_differed &= not torch.equal(first, second)
        return record


class _Leads(Leader, _Watched):
    pass


def together(ranks: Ranks, config: RunConfig) -> _Watched:
    return build(_Leads if ranks.rank == 0 else _Watched, ranks, config)


def compare(ranks: Ranks, name: str) -> dict[str, Any]:
    """Losses of two ranks beside those of one process, in the same process of rank 0."""
    config = case(name)
    trainer = together(ranks, config)
    found: dict[str, Any] = {}
    if ranks.rank == 0:
        alone = Trainer(config, trainer.dataset)
        pairs = []
        for step in range(STEPS):
            if step == STEPS // 2:
                for one in (trainer, alone):
                    one.set(lr=0.05)
            pairs.append((trainer.step().loss, alone.step().loss))
        mine, theirs = (one.state_dict()["tensors"] for one in (trainer, alone))
        ranks.tell(END)
        found = {
            "loss": max(abs(a - b) / abs(b) for a, b in pairs),
            "state": max(float((mine[key] - theirs[key]).double().abs().max()) for key in theirs),
            "kinds": sorted({str(t.dtype) for t in theirs.values() if t.is_floating_point()}),
            "moved": abs(pairs[0][1] - pairs[-1][1]),
        }
    else:
        follow(trainer)
    return {**found, "alike": trainer.predictors_alike, "differed": trainer.gradients_differed}


def steered(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A run that a page steers by commands in its file."""
    config = small_config("directpred", spectrum_every=5)
    trainer = together(ranks, config)
    found: dict[str, Any] = {}
    if ranks.rank == 0:
        with RunStore.create("steered", config, folder) as store, open_run("steered", folder) as page:

            def turn(record: Any) -> None:
                if record.step in TURNS:
                    page.send("set", TURNS[record.step])

            drive(trainer, store, owner="train", until=40, on_record=turn)
            found = {
                "events": [(event.step, event.changes) for event in store.events()],
                "fingerprint": fingerprint(trainer),
            }
        # A state taken over lands on the others too: the next steps are the same.
        state = trainer.state_dict()
        losses = [trainer.step().loss for _ in range(3)]
        trainer.load_state_dict(state)
        found["again"] = [trainer.step().loss for _ in range(3)] == losses
        ranks.tell(END)
    else:
        follow(trainer)
    trainer.check_alike()
    return {**found, "log": trainer.log}


def whole(ranks: Ranks, folder: Path) -> None:
    config = whole_config()
    trainer = build(Leader if ranks.rank == 0 else Trainer, ranks, config)
    if ranks.rank:
        follow(trainer)
        return
    with RunStore.create("whole", config, folder) as store:
        plan(store, [WHOLE["turn"]])
        drive(trainer, store, owner="train", until=WHOLE["steps"])
    ranks.tell(END)


def refusals(ranks: Ranks) -> dict[str, str]:
    """What both ranks are told."""
    found = {}
    for name, config in (
        ("uneven", small_config(batch_size=33)),
        ("device", small_config(device="cuda:1")),
        ("too many", small_config(device="cuda")),
    ):
        try:
            build(Trainer, ranks, config)
        except ConfigError as error:
            found[name] = str(error)
    for name, error, about in (
        ("one of them", "There is no such folder." if ranks.rank else "", ""),
        ("unlike", "", f"ssl-lab {ranks.rank}"),
    ):
        try:
            ranks.agree(error, about)
        except ConfigError as why:
            found[name] = str(why)
    trainer = build(Trainer, ranks, small_config())
    trainer.step()
    trainer.check_alike()
    if ranks.rank == 1:
        # By as little as there is.
        weights = trainer._weights.flat
        weights[3] = torch.nextafter(weights[3], torch.tensor(1.0))
    try:
        trainer.check_alike()
    except DriftError as error:
        found["drift"] = str(error)
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    ranks = Ranks()
    found: dict[str, Any] = {name: compare(ranks, name) for name in CASES}
    found["steered"] = steered(ranks, folder)
    whole(ranks, folder)
    found["refusals"] = refusals(ranks)
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found))
    ranks.close()


if __name__ == "__main__":
    assert BEGIN != END
    assert "RANK" in os.environ
    main()
