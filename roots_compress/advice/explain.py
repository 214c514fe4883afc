"""What a compression came to, in plain sentences: what was tried, what was chosen, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from roots_compress.advice.bounds import Bounds
from roots_compress.io.disk import amount, folder_bytes
from roots_compress.pipeline.forecast.table import duration
from roots_compress.report.text import megabytes
from roots_compress.results import CandidateResult, RunMetrics, SearchResult, candidate_label
from roots_compress.run.stage_cache import FOLDER_NAME as STAGE_CACHE
from roots_compress.search.space import Candidate
from roots_compress.tasks.base import Task


def explain(
    task: Task[Any],
    bounds: Bounds,
    listed: tuple[Candidate, ...],
    search: SearchResult,
    *,
    left_out: Mapping[Candidate, str],
) -> Iterator[str]:
    """Yield the sentences.

    Args:
        task: of the models.
        bounds: what was asked for.
        listed: the candidates in the order in which they were to be tried.
        search: what came of them.
        left_out: why others were not listed.
    """
    rows = {row.stages: row for row in search.candidates}
    baseline, best = rows[()], rows[search.best]
    yield f"Asked for: {'; '.join(bounds.told(task))}."
    if left_out:
        yield f"Left out: {'; '.join(reasons(left_out))}."
    for stages in listed:
        label = candidate_label(stages)
        if stages in rows:
            row = rows[stages]
            missed = "; ".join(misses(task, bounds, row, baseline).values())
            verdict = f"misses: {missed}" if missed else "keeps them all"
            beginnings = (stages[:count] for count in range(1, len(stages) + 1))
            seconds = sum(rows[each].seconds or 0.0 for each in beginnings if each in rows)
            took = f", in {duration(seconds)}" if seconds else ""
            yield f"{label}: {figures(task, row, baseline)}{took}: {verdict}."
        elif label in search.failed:
            yield f"{label} could not be made: {search.failed[label].rstrip('.')}."
    untried = [each for each in listed if each not in rows and candidate_label(each) not in search.failed]
    names = ", ".join(map(candidate_label, untried))
    if best.keeps_budgets:
        kept = sum(rows[each].keeps_budgets for each in listed if each in rows)
        least = "loses least of those that keep them all" if kept > 1 else "keeps them all"
        nothing = "" if best.stages else ": nothing was compressed"
        yield f"Chosen: {candidate_label(best.stages)}, which {least}{nothing}."
        if not best.stages:
            yield f"Ask for less than {megabytes(best.bytes)} MB, or for more speed, to have it compressed."
        if untried:
            yield f"Not tried, because more loss is expected of them: {names}."
        return
    missed = "; ".join(misses(task, bounds, best, baseline).values())
    yield (
        f"No candidate keeps all bounds. Nearest: {candidate_label(best.stages)}, with "
        f"{figures(task, best, baseline)}. It misses: {missed}."
    )
    if untried:
        yield f"Not tried, because they are predicted to miss by far or the time was over: {names}."


def reasons(left_out: Mapping[Candidate, str]) -> Iterator[str]:
    """Yield why candidates were left out, those that share a reason together."""
    for why in dict.fromkeys(left_out.values()):
        yield f"{', '.join(candidate_label(each) for each in left_out if left_out[each] == why)} ({why})"


def at_the_end(task: Task[Any], bounds: Bounds, metrics: RunMetrics) -> Iterator[str]:
    """Yield a sentence where the gates, judged by the timing at the end, say what the search did not find."""
    missed = {gate.gate: gate.line for gate in metrics.gates if not gate.passed}
    known = set[str]()
    if metrics.search is not None:
        rows = {row.stages: row for row in metrics.search.candidates}
        known = {*misses(task, bounds, rows[metrics.search.best], rows[()])}
    if missed.keys() == known:
        return
    if missed:
        yield f"Missed, when its stages were timed in turns at the end: {'; '.join(missed.values())}."
    else:
        yield "When its stages were timed in turns at the end, it kept all bounds."


def cost(metrics: RunMetrics, folder: Path) -> str:
    """Return what a search took, in a sentence: its time, and what its folder holds."""
    assert metrics.search is not None
    spent = sum(row.seconds or 0.0 for row in metrics.search.candidates) + (metrics.timing_seconds or 0.0)
    others = folder_bytes(folder / STAGE_CACHE)
    kept = f", {amount(others)} of it the stages of other candidates in {STAGE_CACHE}/" if others else ""
    return f"In all it took {duration(spent)}. {folder} holds {amount(folder_bytes(folder))}{kept}."


def figures(task: Task[Any], row: CandidateResult, baseline: CandidateResult) -> str:
    """Return a candidate's size, speed and quality beside the model's own."""
    metric = task.metric
    change = metric.change(1.0 if metric.relative else 0.0, row.figures[metric.compared_name])
    return (
        f"{megabytes(row.bytes)} MB ({baseline.bytes / row.bytes:.2f}x smaller), "
        f"{_speedup(task, row, baseline):.2f}x as fast, {change}"
    )


def misses(
    task: Task[Any], bounds: Bounds, row: CandidateResult, baseline: CandidateResult
) -> dict[str, str]:
    """Return by how much a candidate misses each bound that it misses, by the gates that the bounds are."""
    found = {}
    if bounds.max_bytes is not None and row.bytes > bounds.max_bytes:
        over = row.bytes / bounds.max_bytes
        allowed_mb = megabytes(bounds.max_bytes)
        found["max_bytes"] = f"{megabytes(row.bytes)} MB, {over:.2f} times the {allowed_mb} MB allowed"
    speedup = _speedup(task, row, baseline)
    if bounds.min_speedup is not None and speedup < bounds.min_speedup:
        asked = f"{bounds.min_speedup:g} times asked for"
        found[task.workload.speedup_bound] = f"{speedup:.2f} times as fast, {asked}"
    if bounds.max_loss is not None:
        metric = task.metric
        # As the search weighs it: a loss as a factor, or as a difference.
        cost = metric.cost(row.figures[metric.compared_name])
        allowed = bounds.gates(task)[metric.compared_bound]
        if cost > metric.cost(allowed):
            start = 1.0 if metric.relative else 0.0
            change = metric.change(start, row.figures[metric.compared_name])
            limit = metric.change(start, allowed).removeprefix(f"{metric.heading} ")
            found[metric.compared_bound] = f"{change}, {limit} allowed"
    return found


def _speedup(task: Task[Any], row: CandidateResult, baseline: CandidateResult) -> float:
    time = task.workload.time_name
    return baseline.figures[time] / row.figures[time]
