"""What to aim at next: the candidate that what is known speaks for most, within the time that is left."""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Mapping, Sequence
from typing import NamedTuple

from roots_compress.search.choice import Budgets, Point, overrun, rank
from roots_compress.search.space import Candidate


class Outcome(NamedTuple):
    """What came of a candidate."""

    point: Point
    seconds: float
    """What its last stage took, with export and measurement; the stages before it are other candidates."""


def next_candidate(
    candidates: Sequence[Candidate],
    outcomes: Mapping[Candidate, Outcome],
    failed: Collection[Candidate],
    budgets: Budgets,
    seconds_left: float,
) -> Candidate | None:
    """Return the untried candidate to aim at; None where nothing is left, or nothing fits into the time.

    Each choice is tried by itself first, in the order of `candidates`: that measures what it does, and gives
    the controls. From then on it is the one with the best predicted rank. `first_untried` says what of it is
    made next.

    Args:
        candidates: all there are, each after its own beginning.
        outcomes: of those that were tried, the empty candidate among them.
        failed: those that could not be made; none that begins with one is tried, nor one that holds a choice
            which failed by itself.
        budgets: what `rank` orders by.
        seconds_left: candidates that are predicted to take longer, their untried beginnings included, are
            left out. What a choice takes that was never tried is not known: it is begun while there is time.
    """
    if seconds_left <= 0:
        return None
    open_ones = [each for each in candidates if each not in outcomes and not ruled_out(each, failed)]
    for candidate in open_ones:
        if len(candidate) == 1:
            return candidate
    effects = effects_of(outcomes)
    goals = [
        candidate
        for candidate in open_ones
        if all(name in effects for name in candidate)
        and predict(candidate, outcomes, effects).seconds <= seconds_left
    ]
    if not goals:
        return None
    return min(goals, key=lambda each: rank(predict(each, outcomes, effects).point, budgets))


FAR = math.log(1.5)
"""A listed candidate that is predicted to overrun its budgets by more, in nats, is not tried."""


def next_listed(
    listed: Sequence[Candidate],
    outcomes: Mapping[Candidate, Outcome],
    failed: Collection[Candidate],
    budgets: Budgets,
    seconds_left: float,
    begun: Candidate | None = None,
) -> Candidate | None:
    """Return which of candidates in a given order to aim at; None once one of them keeps the budgets.

    It is the first that is untried and neither has failed nor is predicted to miss by far. What holds a
    choice that was never seen has no prediction, and is tried, unless the time is too short for one before
    it, which is expected to lose less. Arguments are those of `next_candidate`.

    Args:
        begun: the candidate that was aimed at last. If only beginnings of it are made, it is finished,
            whatever the time: what was spent on them would be for nothing.
    """
    if any(overrun(outcomes[each].point, budgets) == 0 for each in listed if each in outcomes):
        return None
    effects, is_late = effects_of(outcomes), seconds_left <= 0
    for candidate in listed:
        if candidate in outcomes or ruled_out(candidate, failed):
            continue
        if not all(name in effects for name in candidate):
            if candidate == begun or not is_late:
                return candidate
            continue
        predicted = predict(candidate, outcomes, effects)
        if overrun(predicted.point, budgets) > FAR:
            continue
        if candidate == begun or predicted.seconds <= seconds_left:
            return candidate
        is_late = True
    return None


def first_untried(candidate: Candidate, tried: Container[Candidate]) -> Candidate:
    """Return the shortest untried beginning of a candidate, or itself: each is made from the one before."""
    return next(part for part in _beginnings(candidate) if part not in tried)


def effects_of(outcomes: Mapping[Candidate, Outcome]) -> dict[str, Outcome]:
    """Return what each choice was seen to do, as a last stage: factors on the figures, and mean seconds.

    A factor is the geometric mean over the candidates that end with the choice, each against the candidate
    that it begins with.
    """
    seen: dict[str, list[Outcome]] = {}
    for candidate, outcome in outcomes.items():
        before = outcomes.get(candidate[:-1])
        if candidate and before is not None:
            factors = (after / was for after, was in zip(outcome.point, before.point, strict=True))
            seen.setdefault(candidate[-1], []).append(Outcome(Point(*factors), outcome.seconds))
    return {name: _mean(each) for name, each in seen.items()}


def predict(
    candidate: Candidate, outcomes: Mapping[Candidate, Outcome], effects: Mapping[str, Outcome]
) -> Outcome:
    """Return a candidate's figures as if effects multiplied, and the seconds until it is there.

    The effects of what is untried in it are applied to the longest of its beginnings that was tried.
    """
    start = max((part for part in _beginnings(candidate) if part in outcomes), key=len)
    point, seconds = outcomes[start].point, 0.0
    for name in candidate[len(start) :]:
        point = Point(*(cost * factor for cost, factor in zip(point, effects[name].point, strict=True)))
        seconds += effects[name].seconds
    return Outcome(point, seconds)


def ruled_out(candidate: Candidate, failed: Collection[Candidate]) -> bool:
    """Return whether a candidate need not be tried, for it or what it is made of could not be made."""
    return any(part in failed for part in _beginnings(candidate)) or any(
        (name,) in failed for name in candidate
    )


def _beginnings(candidate: Candidate) -> list[Candidate]:
    """Return a candidate's parts from the empty one to itself."""
    return [candidate[:length] for length in range(len(candidate) + 1)]


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    figures = zip(*(outcome.point for outcome in outcomes), strict=True)
    factors = (math.exp(math.fsum(map(math.log, each)) / len(each)) for each in figures)
    return Outcome(Point(*factors), math.fsum(outcome.seconds for outcome in outcomes) / len(outcomes))
