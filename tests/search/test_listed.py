"""Candidates in a given order: what is tried, what is passed over, where the search ends."""

from __future__ import annotations

import pytest

from roots_compress.configs.recipe.loading import parse_recipe
from roots_compress.errors import InputError
from roots_compress.search.choice import Budgets, Point
from roots_compress.search.space import Space
from roots_compress.search.succession import Outcome, first_untried, next_listed

LISTED = (("q",), ("Q",), ("p", "q"), ("p", "Q"))
WHOLE = Outcome(Point(100, 10, 1.0), 1.0)


def after(outcomes: dict[tuple[str, ...], Point], **budgets: float) -> tuple[str, ...] | None:
    known = {(): WHOLE, **{names: Outcome(point, 1.0) for names, point in outcomes.items()}}
    goal = next_listed(LISTED, known, {}, Budgets(**budgets), 100.0)
    return goal and first_untried(goal, known)


Q, Q4, P, PQ = Point(25, 5, 1.01), Point(15, 4, 1.1), Point(80, 8, 1.05), Point(20, 4, 1.06)


@pytest.mark.parametrize(
    ("outcomes", "budget", "expected"),
    [
        ({}, 30, ("q",)),
        ({("q",): Q}, 30, None),
        ({("q",): Q}, 20, ("Q",)),
        # What begins a candidate is made and measured first.
        ({("q",): Q, ("Q",): Q4}, 14, ("p",)),
        ({("q",): Q, ("Q",): Q4, ("p",): P}, 14, ("p", "q")),
        # By what was seen, p and q together miss a tenth of it by far, and p and Q by less than a half.
        ({("q",): Q, ("Q",): Q4, ("p",): P}, 10, ("p", "Q")),
        ({("q",): Q, ("Q",): Q4, ("p",): P}, 1, None),
        # A beginning that happens to keep the budget is no candidate.
        ({("q",): Q, ("Q",): Q4, ("p",): Point(9, 9, 1)}, 10, ("p", "q")),
    ],
)
def test_the_first_that_is_open_and_not_hopeless_comes_next(
    outcomes: dict[tuple[str, ...], Point], budget: float, expected: tuple[str, ...] | None
) -> None:
    assert after(outcomes, bytes=budget) == expected


def test_a_model_that_keeps_the_budgets_as_it_is_ends_the_search_where_it_is_listed() -> None:
    listed: tuple[tuple[str, ...], ...] = ((), *LISTED)
    tried: dict[tuple[str, ...], Outcome] = {(): WHOLE}
    assert next_listed(listed, tried, {}, Budgets(bytes=100), 9.0) is None
    assert next_listed(listed, tried, {}, Budgets(bytes=99), 9.0) == ("q",)
    assert next_listed(LISTED, tried, {}, Budgets(bytes=100), 9.0) == ("q",)
    assert recipe([[], ["q"]]).listed == ((), ("q",))


def test_what_failed_is_passed_over_and_no_time_ends_it() -> None:
    known: dict[tuple[str, ...], Outcome] = {(): WHOLE}
    assert next_listed(LISTED, known, {("q",): "no room"}, Budgets(bytes=30), 9.0) == ("Q",)
    assert next_listed(LISTED, known, {}, Budgets(bytes=30), 0.0) is None


def test_what_was_begun_is_finished_whatever_the_time_unless_it_became_hopeless() -> None:
    known = {names: Outcome(point, 5.0) for names, point in {(): WHOLE.point, ("q",): Q, ("p",): P}.items()}
    for candidate in (("p", "q"), ("p", "Q")):
        assert next_listed(LISTED, known, {}, Budgets(bytes=18), -1.0, candidate) == candidate
    assert next_listed(LISTED, known, {}, Budgets(bytes=9), -1.0, ("p", "q")) is None
    assert next_listed(LISTED, known, {("p", "Q"): "no room"}, Budgets(bytes=18), -1.0, ("p", "Q")) is None
    done = {**known, ("p", "q"): Outcome(PQ, 5.0)}
    assert next_listed(LISTED, done, {}, Budgets(bytes=18), -1.0, ("p", "q")) is None


def recipe(candidates: list[list[str]]) -> Space:
    choices = [
        {"kind": "quantize", "name": "q"},
        {"kind": "quantize", "name": "Q", "scheme": "int4"},
        {"kind": "prune", "name": "p"},
    ]
    search = {"max_minutes": 1, "choices": choices, "candidates": candidates}
    return Space.of(parse_recipe({"name": "s", "model": "m", "gates": {"max_bytes": 1}, "search": search}))


def test_listed_candidates_come_after_their_beginnings_and_without_controls() -> None:
    space = recipe([["q"], ["p", "Q"]])
    assert space.candidates == ((), ("q",), ("p",), ("p", "Q"))
    assert space.listed == (("q",), ("p", "Q"))
    assert space.role_of(("q",)) == "candidate"


@pytest.mark.parametrize(
    ("names", "words"), [(["P"], "no choice"), (["q", "Q"], "one kind"), (["q", "p"], "quantize last")]
)
def test_a_candidate_that_cannot_be_is_named(names: list[str], words: str) -> None:
    with pytest.raises(InputError, match=r"search\.candidates\[1\]") as caught:
        recipe([["q"], names])
    assert words in str(caught.value)


def test_what_is_unknown_does_not_begin_once_the_time_is_too_short_for_one_before_it() -> None:
    listed = (("q",), ("p", "q"), ("r", "q"), ("Q",))
    points: dict[tuple[str, ...], Point] = {(): WHOLE.point, ("q",): Q, ("p",): P}
    known = {names: Outcome(point, 5.0) for names, point in points.items()}
    assert next_listed(listed, known, {}, Budgets(bytes=18), 5.0) == ("p", "q")
    assert next_listed(listed, known, {}, Budgets(bytes=18), 4.9) is None
    # Hopeless is not late: what follows is tried.
    assert next_listed(listed, known, {}, Budgets(bytes=9), 4.9) == ("r", "q")
    # A known one that fits is tried after one that does not.
    quick = {**known, ("Q",): Outcome(Q4, 1.0)}
    after_it = (("q",), ("p", "q"), ("r", "q"), ("p", "Q"))
    assert next_listed(after_it, quick, {}, Budgets(bytes=14), 4.9) == ("p", "Q")
