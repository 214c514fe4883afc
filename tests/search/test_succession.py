"""What is tried next, on made-up models, against trying everything."""

from __future__ import annotations

import math

import pytest

from roots_compress.search.choice import Budgets, Point, best
from roots_compress.search.space import Candidate
from roots_compress.search.succession import Outcome, effects_of, first_untried, next_candidate, predict
from tests.search.toys import CANDIDATES, KINDS, START, effects, points, table

BUDGETS = [
    Budgets(bytes=300),
    Budgets(bytes=150, milliseconds=4),
    Budgets(cost=1.4),
    Budgets(bytes=1),
]


def search(
    truth: dict[Candidate, Outcome], budgets: Budgets, seconds: float = math.inf, tries: int = 1000
) -> dict[Candidate, Outcome]:
    """Carry a search out on a table of what would come of each candidate."""
    tried: dict[Candidate, Outcome] = {(): truth[()]}
    while tries and (goal := next_candidate(CANDIDATES, tried, (), budgets, seconds)) is not None:
        candidate = first_untried(goal, tried)
        assert candidate not in tried
        assert candidate[:-1] in tried, "what a candidate begins with is made first"
        tried[candidate] = truth[candidate]
        seconds -= truth[candidate].seconds
        tries -= 1
    return tried


@pytest.mark.parametrize("budgets", BUDGETS)
@pytest.mark.parametrize("seed", range(5))
def test_with_time_enough_everything_is_tried(seed: int, budgets: Budgets) -> None:
    truth = table(seed, interaction=0.3)
    assert search(truth, budgets) == truth


@pytest.mark.parametrize("budgets", BUDGETS)
@pytest.mark.parametrize("seed", range(10))
def test_where_effects_multiply_the_best_of_all_is_found_at_once(seed: int, budgets: Budgets) -> None:
    truth = table(seed)
    expected = best(points(truth), budgets)
    found = search(truth, budgets, tries=len(KINDS) + max(0, len(expected) - 1))
    assert best(points(found), budgets) == expected


@pytest.mark.parametrize("budgets", BUDGETS)
def test_where_they_nearly_multiply_half_the_tries_mostly_do(budgets: Budgets) -> None:
    hits = 0
    for seed in range(20):
        truth = table(seed, interaction=0.1)
        found = search(truth, budgets, tries=len(CANDIDATES) // 2)
        hits += best(points(found), budgets) == best(points(truth), budgets)
    assert hits >= 16


def test_each_choice_is_tried_by_itself_first() -> None:
    tried = list(search(table(0), Budgets(bytes=1), tries=len(KINDS)))
    assert tried == list(CANDIDATES[: len(KINDS) + 1])


def test_nothing_is_begun_that_is_predicted_not_to_fit_into_the_time() -> None:
    truth = table(3)
    singles = {each: truth[each] for each in CANDIDATES if len(each) <= 1}
    costs = {name: effect.seconds for name, effect in effects(3).items()}
    for left in (0.0, 0.5, 5.0, 30.0):
        found = search({**truth, **singles}, Budgets(bytes=1), left + sum(costs.values()))
        spent = sum(truth[each].seconds for each in found if len(each) > 1)
        assert spent <= left
    assert next_candidate(CANDIDATES, {(): truth[()]}, (), Budgets(), 0.0) is None


def test_nothing_is_built_on_what_failed() -> None:
    truth, failed = table(0), {("p1",)}
    tried = {each: truth[each] for each in CANDIDATES if len(each) <= 1 and each not in failed}
    seen = []
    while (goal := next_candidate(CANDIDATES, tried, failed, Budgets(bytes=1), math.inf)) is not None:
        seen.append(candidate := first_untried(goal, tried))
        tried[candidate] = truth[candidate]
    assert seen
    assert not [each for each in seen if "p1" in each]
    # A combination that failed rules out only what begins with it.
    others = {each: truth[each] for each in CANDIDATES if len(each) <= 1}
    assert next_candidate(CANDIDATES, others, {("d1", "p1")}, Budgets(), math.inf) is not None


def test_an_effect_is_the_geometric_mean_over_where_it_was_seen() -> None:
    def outcome(size: float, seconds: float) -> Outcome:
        return Outcome(Point(size, 1.0, 1.0), seconds)

    seen = {(): outcome(100, 0), ("p",): outcome(50, 2), ("q",): outcome(40, 4), ("p", "q"): outcome(5, 8)}
    found = effects_of(seen)
    assert found["p"] == Outcome(Point(0.5, 1.0, 1.0), 2)
    assert found["q"].point.bytes == pytest.approx(math.sqrt(0.4 * 0.1))
    assert found["q"].seconds == 6


def test_a_prediction_starts_from_the_longest_beginning_that_was_tried() -> None:
    known = effects(0)
    tried = {(): Outcome(START, 1.0), ("d1",): Outcome(Point(7.0, 7.0, 7.0), 1.0)}
    predicted = predict(("d1", "p1", "q1"), tried, known)
    factors = [a * b for a, b in zip(known["p1"].point, known["q1"].point, strict=True)]
    assert predicted.point == pytest.approx([7 * factor for factor in factors])
    assert predicted.seconds == pytest.approx(known["p1"].seconds + known["q1"].seconds)
