"""Knobs as widgets: a turn becomes a command, the engine's word comes back, and the two do not chase each other."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.controls import KnobBoard, KnobControl, Transport, waiting_knobs
from ssl_lab import Knobs, RunStore, preset
from ssl_lab.store import Status


@pytest.fixture
def sent() -> list[tuple[str, dict[str, Any]]]:
    return []


def status(**fields: Any) -> Status:
    plain = Status("paused", "", 0, 0.0, Knobs(), None, 0.0, None, None, None, 0.0, 0.0)
    return replace(plain, **fields)


def in_publisher(call: Any, *arguments: Any) -> None:
    """As the publisher does it, from a thread of its own."""
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join()


def test_every_knob_has_a_control_that_sends_its_value(sent: list[tuple[str, dict[str, Any]]]) -> None:
    board = KnobBoard(Knobs(), lambda kind, payload: sent.append((kind, payload)))
    wanted = {
        "predictor": "directcopy", "ema": 0.5, "stop_gradient": False, "symmetry": "hard", "symmetry_strength": 2.0,
        "eps": 0.2, "rho": 0.6, "freq": 5, "centred": True, "norm": "spectral", "lr": 0.1, "lr_predictor": 0.2,
        "weight_decay": 0.001, "weight_decay_predictor": 0.002, "augmentation": 0.5,
    }  # fmt: skip
    assert set(wanted) == set(board.controls) == set(Knobs.model_fields)
    for name, value in wanted.items():
        assert board.controls[name].control.value == getattr(Knobs(), name)
        board.controls[name].control.value = value
    assert sent == [("set", {name: value}) for name, value in wanted.items()]
    # What the widgets sent is what the engine takes.
    Knobs().changed(wanted)
    board.close()


def test_the_engines_word_is_shown_and_not_sent_back(sent: list[tuple[str, dict[str, Any]]]) -> None:
    board = KnobBoard(Knobs(), lambda kind, payload: sent.append((kind, payload)))
    now = Knobs().changed({"predictor": "directpred", "ema": 0.25, "lr": 0.0, "eps": 7.0, "stop_gradient": False})
    in_publisher(board.show, status(knobs=now), set())
    assert sent == []
    assert board.controls["predictor"].control.value == "directpred"
    assert board.controls["ema"].control.value == 0.25
    assert "data-value='0.25'" in board.controls["ema"].engine.value
    assert "DirectPred" in board.controls["predictor"].engine.value
    # Beyond what the slider offers: it makes room instead of showing something else.
    assert board.controls["eps"].control.value == 7.0
    # No logarithm of zero: the slider stands at its end, the engine's value says 0.
    assert "data-value='0.0'" in board.controls["lr"].engine.value
    in_publisher(board.show, status(knobs=now), set())
    assert sent == []
    board.close()


def test_a_turn_under_way_is_not_undone(sent: list[tuple[str, dict[str, Any]]]) -> None:
    board = KnobBoard(Knobs(), lambda kind, payload: sent.append((kind, payload)))
    board.controls["ema"].control.value = 0.5
    in_publisher(board.show, status(), {"ema"})
    assert board.controls["ema"].control.value == 0.5
    # Refused, or answered with another value: the control goes back to the engine's.
    in_publisher(board.show, status(), set())
    assert board.controls["ema"].control.value == 0.996
    assert sent == [("set", {"ema": 0.5})]
    board.close()


def test_a_knob_without_effect_says_why(sent: list[tuple[str, dict[str, Any]]]) -> None:
    board = KnobBoard(Knobs(), lambda kind, payload: sent.append((kind, payload)))
    in_publisher(board.show, status(), set())
    assert "No effect now" in board.controls["eps"].help.value
    assert "No effect" not in board.controls["ema"].help.value
    in_publisher(board.show, status(knobs=preset("directpred").knobs), set())
    assert "No effect" not in board.controls["eps"].help.value
    assert "largest" in board.controls["eps"].help.value
    board.close()


def test_transport(sent: list[tuple[str, dict[str, Any]]]) -> None:
    transport = Transport(lambda kind, payload: sent.append((kind, payload)))
    for button in (transport.run, transport.pause, transport.step, transport.step10):
        button.click()
    transport.speed.value = 10.0
    assert sent == [
        ("run", {}), ("pause", {}), ("step", {"steps": 1}), ("step", {"steps": 10}),
        ("speed", {"steps_per_second": 10.0}),
    ]  # fmt: skip
    in_publisher(transport.show, status(state="running", speed=10.0))
    assert (transport.run.disabled, transport.pause.disabled) == (True, False)
    in_publisher(transport.show, status(state="paused", speed=3.0))
    assert (transport.run.disabled, transport.pause.disabled, transport.speed.value) == (False, True, 3.0)
    in_publisher(transport.show, status(state="done"))
    assert transport.run.disabled
    assert len(sent) == 5
    transport.close()


def test_waiting_knobs(tmp_path: Path) -> None:
    with RunStore.create("run", preset("byol"), tmp_path) as store:
        store.send("set", {"ema": 0.5})
        store.send("run")
        assert waiting_knobs(store) == {"ema"}
        store.answer(store.waiting()[0], 0)
        assert waiting_knobs(store) == set()


def test_what_the_publisher_writes_while_a_message_is_taken_in_is_not_told_as_the_person_s_word() -> None:
    turned: list[Any] = []
    knob = KnobControl("ema", 0.5, lambda _name, value: turned.append(value))
    in_publisher(knob.show, 0.5, "", True)
    writer = threading.Thread(target=knob.show, args=(0.5, "", True))
    set_trait = knob.control.set_trait

    def interrupted(name: str, value: Any) -> None:
        set_trait(name, value)
        if not writer.ident:
            writer.start()
            # Either it writes in the midst of the message, or it waits for its end.
            writer.join(timeout=0.3)

    knob.control.set_trait = interrupted
    data = {"method": "update", "state": {"value": 0.9}, "buffer_paths": []}
    knob.control._handle_msg({"content": {"data": data}, "buffers": []})
    writer.join()
    assert turned == [0.9]
    knob.close()
