"""Which candidates there are, and which of them are controls."""

from __future__ import annotations

from itertools import permutations

import pytest

from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.recipe.loading import parse_recipe
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.search.space import Space, candidates_of

KINDS = {"p": "prune", "P": "prune", "d": "distill", "q": "quantize", "Q": "quantize"}


def legal(candidate: tuple[str, ...]) -> bool:
    kinds = [KINDS[name] for name in candidate]
    return len(set(kinds)) == len(kinds) and "quantize" not in kinds[:-1]


def test_candidates_are_all_legal_sequences_and_no_others() -> None:
    every = {each for length in range(len(KINDS) + 1) for each in permutations(KINDS, length)}
    found = candidates_of(KINDS, {"quantize"})
    assert len(found) == len(set(found))
    assert set(found) == {each for each in every if legal(each)}


def test_each_candidate_comes_after_its_own_beginning_and_cheap_controls_first() -> None:
    found = candidates_of(KINDS, {"quantize"})
    assert found[:6] == ((), ("q",), ("Q",), ("p",), ("P",), ("d",))
    for index, candidate in enumerate(found[1:], start=1):
        assert candidate[:-1] in found[:index]


@pytest.fixture
def recipe() -> Recipe:
    return parse_recipe(
        {
            "name": "s",
            "model": "m",
            "gates": {"max_bytes": 1},
            "search": {
                "max_minutes": 1.0,
                "choices": [
                    {"kind": "quantize", "name": "int8"},
                    {"kind": "distill", "name": "half", "student": "small", "training": {"steps": 7}},
                    {"kind": "prune", "name": "p"},
                ],
            },
        }
    )


def test_the_same_student_without_its_teacher_is_a_control_and_stands_alone(recipe: Recipe) -> None:
    space = Space.of(recipe)
    assert [each for each in space.candidates if "half-untaught" in each] == [("half-untaught",)]
    control = space.choices["half-untaught"]
    assert isinstance(control, DistillConfig)
    assert (control.student, control.training.steps) == ("small", 7)
    assert (control.loss.cross_entropy_weight, control.loss.divergence_weight) == (1.0, 0.0)


def test_the_unpruned_model_quantized_alone_is_a_control(recipe: Recipe) -> None:
    space = Space.of(recipe)
    roles = {each: space.role_of(each) for each in space.candidates}
    assert {each for each, role in roles.items() if role == "control"} == {("int8",), ("half-untaught",)}
    assert roles[()] == "baseline"
    assert roles["p", "int8"] == "candidate"


def test_a_candidate_is_a_recipe_of_the_stages_and_its_choices(recipe: Recipe) -> None:
    made = Space.of(recipe).recipe_of(("p", "int8"))
    assert [stage.name for stage in made.stages] == ["p", "int8"]
    assert made.search is None
    assert made.gates == recipe.gates
