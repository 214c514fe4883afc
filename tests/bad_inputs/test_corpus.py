"""The quick form of the corpus: some inputs of each generator. `python -m tests.bad_inputs` is the long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.bad_inputs.classes import CLASSES, NOT_APPLICABLE
from tests.bad_inputs.corpus import GENERATORS, planned

QUICK = 150
"""Malformed inputs of the quick form."""


def test_every_class_has_a_generator_or_a_reason() -> None:
    made = {number for generator in GENERATORS for number in generator.classes}
    assert made <= set(CLASSES)
    assert made | set(NOT_APPLICABLE) == set(CLASSES)


def test_a_plan_takes_each_generator_in_turn_and_none_too_often() -> None:
    cases = planned(GENERATORS, 2000)
    assert len(cases) == len(set(cases)) == 2000
    assert {generator for generator, _ in cases} == set(GENERATORS)
    assert all(number < generator.variants for generator, number in cases)


def test_malformed_inputs_are_refused_and_nothing_is_written() -> None:
    """In a process of its own, which forks: threads that other tests started would not survive that."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bad_inputs", "--seed", "0", "--count", str(QUICK)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    faulty = [line for line in lines if "case" in line]
    assert not faulty, json.dumps(faulty, indent=1)
    assert ended.returncode == 0, ended.stderr
    assert lines[-1]["inputs"] == lines[-1]["as it should be"] == QUICK
