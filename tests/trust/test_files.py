"""What a stranger made does no harm: some hundred hostile inputs for each loader, and planted faults that are found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.trust.files import CASES, MEMORY, SECONDS, attempt
from benchmarks.trust.mutations import TEXTS, json_text, mutated, spoiled


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_inputs_are_refused_in_words(case, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    verdict = case.run(case.quick, tmp_path)
    assert verdict.failures == []
    assert verdict.tried == case.quick


@pytest.mark.parametrize("name", ["files-run", "files-link", "files-images"])
def test_planted_faults_are_found(name: str, tmp_path: Path) -> None:
    (case,) = (case for case in CASES if case.name == name)
    assert case.fault is not None
    verdict = case.fault(tmp_path)
    words = " ".join(verdict.failures)
    for seen in (
        "KeyError",
        "what lies outside has changed",
        "pickle.find_class",
        "subprocess.Popen",
        "took more than",
    ):
        assert seen in words


def test_an_input_that_ends_its_process_is_one_failure_and_the_next_is_tried(tmp_path: Path) -> None:
    verdict = attempt("files-link", 12, tmp_path, faults=True)
    assert verdict.tried == 12
    assert [line.split()[0] for line in verdict.failures if "took more than" in line] == ["4", "9"]


def test_the_same_number_gives_the_same_input() -> None:
    def made(seed: int) -> tuple[bytes, object, str]:
        r = random.Random(seed)
        return spoiled(r, b"some bytes" * 50), repr(mutated(r, {"a": [1, {"b": "c"}]})), json_text(r, {"a": [1, 2.5]})

    assert made(3) == made(3)
    assert len({made(seed)[0] for seed in range(50)}) > 40
    assert len(set(TEXTS)) == len(TEXTS)


def test_the_bounds_are_those_that_are_promised() -> None:
    assert (MEMORY, SECONDS) == (1_000_000_000, 5.0)
    assert {case.name: case.whole for case in CASES if case.whole != 20_000} == {"files-names": 10_000}
