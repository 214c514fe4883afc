"""One request from a checkpoint and bounds to a compressed model: planned, searched for, explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roots_compress.advice.bounds import Bounds
from roots_compress.advice.candidates import candidates_for
from roots_compress.advice.explain import at_the_end, cost, explain
from roots_compress.advice.facts import look_at
from roots_compress.advice.recipe import chain_recipe, name_of, search_recipe
from roots_compress.configs.recipe.growth import read_resolved
from roots_compress.configs.recipe.loading import check_paths, refuse_missing
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.stage import StageSettings
from roots_compress.errors import InputError, recipe_key
from roots_compress.events import Events
from roots_compress.io.atomic import real_path
from roots_compress.pipeline.forecast.outlook import choice_seconds
from roots_compress.pipeline.forecast.table import duration
from roots_compress.pipeline.preflight import Setting, prepare
from roots_compress.pipeline.runner import run_recipe
from roots_compress.report.text import megabytes
from roots_compress.results import RunMetrics, candidate_label
from roots_compress.search.run import run_search
from roots_compress.search.space import Candidate

MINUTES, MOST_MINUTES = 60.0, 1e6
"""After so many no further candidate is begun, unless another number is asked for."""


@dataclass(frozen=True)
class Request:
    """What is to be compressed, and to what."""

    setting: Setting
    bounds: Bounds
    folder: Path
    """Of the run."""
    sizes: Mapping[Candidate, int]
    """About how many bytes candidates that are tried come to."""
    left_out: Mapping[Candidate, str]
    """Why others are not tried."""

    @property
    def listed(self) -> tuple[Candidate, ...]:
        """The candidates, in the order in which they are tried; none where a chain was given."""
        search = self.setting.recipe.search
        return () if search is None else search.candidates or ()


def request(
    checkpoint: Path,
    bounds: Bounds,
    settings: Mapping[str, Any],
    *,
    stages: Sequence[StageSettings | Mapping[str, Any]] = (),
    folder: Path | None = None,
    minutes: float = MINUTES,
    fresh: bool = False,
    spelled: Callable[[str], str] = str,
) -> Request:
    """Look at a checkpoint, and check all that can be checked before it is compressed.

    Args:
        checkpoint: a folder of Hugging Face or of this program, or a GGUF file.
        bounds: what the result must keep.
        settings: of the whole run (`data`, `evaluation`, `seed`, `device`), in a recipe's form.
        stages: a chain to carry out, as a recipe has it, in place of trying candidates.
        folder: of the run; by default `runs/` and the checkpoint's name.
        minutes: after so many no further candidate is begun.
        fresh: whether a run that is there is to be deleted.
        spelled: returns what a caller calls `max_minutes`.

    Raises:
        InputError: the checkpoint is missing, is none, or is quantized; a setting does not suit it; or the
            folder is in use.
    """
    refuse_missing(checkpoint, recipe_key("model"))
    if not 0 < minutes < MOST_MINUTES:
        raise InputError(
            f"must be above 0 and below {MOST_MINUTES:,.0f}, not {minutes:g}",
            where=spelled("max_minutes"),
            remedy="Give minutes above 0, such as 60.",
        )
    name = name_of(checkpoint)
    where = folder or Path("runs") / name
    _refuse_other_run(where, checkpoint, fresh=fresh)
    facts = look_at(checkpoint, Path.cwd(), records=settings.get("data", {}).get("records"))
    sizes: dict[Candidate, int] = {}
    left_out: dict[Candidate, str] = {}
    given = {"name": name, "model": checkpoint.absolute(), **settings}
    if stages:
        recipe = chain_recipe(facts, stages, bounds.gates(facts.task), given)
    else:
        candidates = candidates_for(facts, bounds, minutes=minutes)
        left_out = candidates.left_out
        sizes = {names: candidates.bytes_of(names, facts) for names in candidates.listed}
        recipe = search_recipe(facts, candidates, bounds, given, minutes=minutes)
    recipe = recipe.from_folder(Path.cwd())
    check_paths(recipe)
    return Request(prepare(recipe, where), bounds, where, sizes, left_out)


def foresee(request: Request) -> Iterator[str]:
    """Yield what each candidate is expected to come to and to take, in the order in which they are tried."""
    seconds = choice_seconds(request.setting, request.folder)
    for candidate in request.listed:
        parts = [candidate_label(candidate)]
        if candidate in request.sizes:
            parts.append(f"about {megabytes(request.sizes[candidate])} MB")
        if candidate and all(name in seconds for name in candidate):
            parts.append(f"about {duration(sum(seconds[name] for name in candidate))}")
        yield ", ".join(parts)


def carry_out(request: Request, *, fresh: bool = False, events: Events) -> tuple[RunMetrics, list[str]]:
    """Search for the first candidate that keeps the bounds; return the run's figures and why it was chosen.

    The run ends as the candidate's; its `recipe.yaml` repeats it. A chain that was given is carried out.

    Raises:
        InputError, StageError: the model as it is cannot be made or measured.
    """
    go = run_search if request.listed else run_recipe
    metrics = go(request.setting, request.folder, fresh=fresh, events=events)
    said: list[str] = []
    if metrics.search is not None:
        task, left_out = request.setting.task, request.left_out
        said += explain(task, request.bounds, request.listed, metrics.search, left_out=left_out)
        said.append(cost(metrics, request.folder))
    said += at_the_end(request.setting.task, request.bounds, metrics)
    return metrics, said


def _refuse_other_run(folder: Path, checkpoint: Path, *, fresh: bool) -> None:
    """Refuse a folder in which another model is being compressed.

    Raises:
        InputError: it is.
    """
    there: Recipe | None = None if fresh else read_resolved(folder)
    if there is not None and (there.model is None or real_path(there.model) != real_path(checkpoint)):
        raise InputError(
            f"the folder is in use by a run that began with {there.model or 'a model it trained'}",
            where=folder,
            remedy="Name another folder with --run, or start this one anew with --fresh.",
        )
