"""The quick form of the corpus: an input of each generator. `python -m tests.bad_inputs` is the long."""

from __future__ import annotations

import json

from tests.bad_inputs.classes import CLASSES, NOT_APPLICABLE
from tests.bad_inputs.corpus import GENERATORS, planned
from tests.faults.commands import Commands

QUICK = len(GENERATORS)
"""Malformed inputs of the quick form: one of each generator."""
MAIN = "from tests.bad_inputs.__main__ import main; raise SystemExit(main())"


def test_every_class_has_a_generator_or_a_reason() -> None:
    made = {number for generator in GENERATORS for number in generator.classes}
    assert made <= set(CLASSES)
    assert made | set(NOT_APPLICABLE) == set(CLASSES)


def test_a_plan_takes_each_generator_in_turn_and_none_too_often() -> None:
    cases = planned(GENERATORS, 2000)
    assert len(cases) == len(set(cases)) == 2000
    assert {generator for generator, _ in cases} == set(GENERATORS)
    assert all(number < generator.variants for generator, number in cases)


def test_malformed_inputs_are_refused_and_nothing_is_written(commands: Commands) -> None:
    """In a process of its own, which forks: threads that other tests started would not survive that."""
    commands.start("--seed", "0", "--count", str(QUICK), code=MAIN)
    code = commands.end()
    lines = [json.loads(line) for line in commands.said().splitlines() if line.startswith("{")]
    faulty = [line for line in lines if "case" in line]
    assert not faulty, json.dumps(faulty, indent=1)
    assert code == 0, commands.said()
    assert lines[-1]["inputs"] == lines[-1]["as it should be"] == QUICK
