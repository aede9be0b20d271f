"""Knobs, presets and run configurations: what is taken, what is refused, and in which words."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_lab import Knobs, RunConfig, preset, presets
from ssl_lab.config import DATASETS, idle_knobs, knob_choices, knob_meta, knob_range, parse_assignment, parse_knobs
from ssl_lab.errors import ConfigError, KnobError

# REFERENCE.md section 2, row by row: what differs from the two-layer BYOL of tau .996.
ROWS = {
    "byol": {"predictor": "mlp", "ema": 0.996, "symmetry": "off"},
    "byol-symmetric": {"predictor": "mlp", "ema": 0.996, "symmetry": "hard"},
    "byol-one-layer": {"predictor": "linear", "ema": 0.996},
    "simsiam": {"predictor": "mlp", "ema": 0.0, "symmetry": "off"},
    "simsiam-symmetric": {"predictor": "mlp", "ema": 0.0, "symmetry": "hard", "weight_decay": 4e-4},
    "simsiam-symmetric-decay": {"symmetry": "hard", "ema": 0.0, "weight_decay": 0.0, "weight_decay_predictor": 4e-4},
    "simsiam-symmetric-stable": {"symmetry": "hard", "ema": 0.0, "weight_decay": 0.0, "lr": 0.2, "lr_predictor": 2.0},
    "simsiam-one-layer": {"predictor": "linear", "ema": 0.0},
    "directpred": {"predictor": "directpred", "ema": 0.996, "eps": 0.1, "rho": 0.3, "freq": 1},
    "directpred-freq5": {"predictor": "directpred", "freq": 5, "eps": 0.1, "rho": 0.3},
    "directpred-simsiam": {"predictor": "directpred", "ema": 0.0, "eps": 0.1, "rho": 0.3},
    "directpred-centred": {"predictor": "directpred", "ema": 0.996, "eps": 0.1, "rho": 0.3, "centred": True},
    "directpred-deeper": {"predictor": "directpred", "ema": 0.996},
    "directcopy": {"predictor": "directcopy", "ema": 0.996, "eps": 0.3, "rho": 0.5, "norm": "fro"},
    "directcopy-simsiam": {"predictor": "directcopy", "ema": 0.0, "eps": 0.3, "rho": 0.5},
    "optimal": {"predictor": "optimal", "ema": 0.996, "rho": 0.3, "freq": 1},
    "no-predictor": {"predictor": "none"},
    "no-stop-gradient": {"stop_gradient": False, "predictor": "mlp"},
    "linear": {
        "predictor": "linear",
        "ema": 0.0,
        "lr": 0.02,
        "lr_predictor": 0.02,
        "weight_decay": 0.05,
        "weight_decay_predictor": 0.05,
    },
}


def test_every_row_of_the_papers_is_a_preset() -> None:
    assert list(presets()) == list(ROWS)
    for name, expected in ROWS.items():
        knobs = preset(name).knobs.model_dump()
        assert {key: knobs[key] for key in expected} == expected, name
        shared = {"lr": 0.03, "lr_predictor": 0.03, "augmentation": 1.0, "stop_gradient": True} | expected
        assert {key: knobs[key] for key in shared} == shared, name
    assert preset("directpred-deeper").projector_layers == 3
    assert preset("byol", dataset="cifar10").model_dump(include={"projector_dim", "projector_hidden", "width"}) == {
        "projector_dim": 128, "projector_hidden": 512, "width": 64,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tau": 0.9}, ["'tau'", "ema"]),
        ({"ema": 1.5}, ["'ema'", "1.5", "a number from 0 to 1"]),
        ({"ema": "high"}, ["'ema'", "'high'", "a number from 0 to 1"]),
        ({"ema": True}, ["'ema'", "True", "a number"]),
        ({"ema": float("nan")}, ["'ema'", "nan"]),
        ({"ema": None}, ["'ema'", "None"]),
        ({"freq": 1.5}, ["'freq'", "1.5", "a whole number from 1"]),
        ({"freq": 0}, ["'freq'", "0", "from 1"]),
        (
            {"predictor": "two-layer"},
            ["'predictor'", "'two-layer'", "mlp, linear, directpred, directcopy, optimal, none"],
        ),
        ({"stop_gradient": 0}, ["'stop_gradient'", "True or False"]),
        ({"lr": -0.1}, ["'lr'", "-0.1"]),
        ({"lr": 0.1, "symmetry": "soft"}, ["'symmetry'", "'soft'", "off, penalty, hard"]),
    ],
)
def test_a_bad_knob_is_named_with_its_value_and_what_is_allowed(changes: dict[str, object], words: list[str]) -> None:
    knobs = Knobs()
    with pytest.raises(KnobError) as error:
        knobs.changed(changes)
    for word in words:
        assert word in str(error.value)
    assert knobs == Knobs()


def test_numbers_of_numpy_are_numbers() -> None:
    knobs = Knobs().changed({"ema": np.float32(0.5), "freq": np.int64(3), "lr": 1})
    assert (knobs.ema, knobs.freq, knobs.lr) == (0.5, 3, 1.0)


def test_a_difference_leads_from_one_to_the_other() -> None:
    a, b = preset("byol").knobs, preset("directcopy-simsiam").knobs
    assert a.changed(a.difference(b)) == b
    assert a.difference(a) == {}


def test_every_knob_tells_all_a_page_needs() -> None:
    for name, field in Knobs.model_fields.items():
        meta = knob_meta(name)
        assert field.description
        assert meta.group
        assert meta.label
        assert meta.source
        if meta.scale == "choice":
            assert knob_choices(name)
        elif meta.scale != "switch":
            low, high = knob_range(name)  # type: ignore[misc]
            assert low <= getattr(Knobs(), name) <= high


def test_what_does_nothing_says_so() -> None:
    direct = idle_knobs(preset("directpred").knobs)
    assert {"norm", "symmetry", "lr_predictor"} <= set(direct)
    assert "eps" not in direct
    assert "lr_predictor" not in idle_knobs(preset("directpred-freq5").knobs)
    assert {"eps", "freq", "norm"} <= set(idle_knobs(preset("byol").knobs))
    assert "ema" in idle_knobs(preset("no-stop-gradient").knobs)
    assert "symmetry" in idle_knobs(preset("no-predictor").knobs)


def test_a_config_survives_json() -> None:
    for name in presets():
        config = preset(name, seed=7, epochs=3)
        assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "moco"}, ["'moco'", "byol"]),
        ({"name": "byol", "dataset": "imagenet"}, ["'imagenet'", "digits", "train/<class>"]),
        ({"name": "byol", "seed": "a"}, ["'seed'", "'a'"]),
        ({"name": "byol", "batch_size": 1}, ["'batch_size'", "1"]),
        ({"name": "byol", "widht": 3}, ["'widht'"]),
        ({"name": "byol", "probe_layers": 2}, ["'probe_layers'"]),
        ({"name": "byol", "predictor_hidden": 8}, ["'predictor_hidden'", "32"]),
    ],
)
def test_a_bad_setting_is_named(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        preset(**arguments)  # type: ignore[arg-type]
    for word in words:
        assert word in str(error.value)


def test_a_folder_is_found_from_elsewhere_and_large_images_get_their_stem(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    config = preset("byol", dataset="pictures")
    assert config.dataset == str(tmp_path / "pictures")
    assert (config.encoder, config.stem) == ("resnet18", "small-image")
    assert preset("byol", dataset="pictures", image_size=96).stem == "large-image"
    assert preset("byol", dataset="stl10").stem == "large-image"
    assert preset("byol", dataset="cifar10").stem == "small-image"


def test_data_sets_have_a_recipe() -> None:
    assert set(DATASETS) == {"digits", "cifar10", "stl10", "fashion-mnist", "gaussian"}
    assert DATASETS["cifar10"].recipe.jitter == (0.4, 0.4, 0.4, 0.1)
    assert DATASETS["cifar10"].recipe.blur_taps == 0
    assert DATASETS["stl10"].recipe.jitter == (0.8, 0.8, 0.8, 0.2)
    assert (DATASETS["stl10"].recipe.blur_taps, DATASETS["stl10"].recipe.mean) == (9, None)


def test_knobs_are_read_from_text() -> None:
    assert parse_assignment("ema=0.99") == ("ema", 0.99)
    assert parse_assignment("freq=5") == ("freq", 5)
    assert parse_assignment("predictor=none") == ("predictor", "none")
    for word in ("false", "False", "FALSE"):
        assert parse_assignment(f"stop_gradient={word}") == ("stop_gradient", False)
    assert parse_knobs("ema=0.9, predictor=none,lr=1e-05") == {"ema": 0.9, "predictor": "none", "lr": 1e-05}
    assert parse_knobs("") == {}
    for knobs in (preset(name).knobs for name in presets()):
        text = ",".join(f"{name}={value}" for name, value in knobs.model_dump().items())
        assert parse_knobs(text) == knobs.model_dump()
    for text, error, words in (
        ("ema", ConfigError, "'ema'"), ("ema=7", KnobError, "'ema'"), ("tau=0.9", KnobError, "'tau'"),
        ("ema=NaN", KnobError, "nan"), ("ema=[0.5]", KnobError, "'ema'"),
        ("stop_gradient=1", KnobError, "True or False"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            parse_knobs(f"lr=0.1,{text}")
