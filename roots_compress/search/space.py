"""Which candidates there are: the choices in every order that makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal

from roots_compress.configs.recipe.schema import Recipe, StageConfig
from roots_compress.configs.training import DistillLossConfig

Candidate = tuple[str, ...]
"""Names of choices, in the order in which they are carried out; none for the model as it is."""

LAST = "quantize"
"""The kind that nothing can follow."""
UNTAUGHT = "untaught"
"""Ends the name of a control: a student that learns from the text alone."""


def candidates_of(kinds: Mapping[str, str]) -> tuple[Candidate, ...]:
    """Return every sequence with at most one choice of each kind, one that quantizes last.

    Short ones come first, and of equal length those that change least before they quantize; else the order is
    that of the choices.

    Args:
        kinds: the kind of each choice, by name.
    """
    by_kind: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        by_kind.setdefault(kind, []).append(name)
    lasts = [(), *((name,) for name in by_kind.pop(LAST, []))]
    orders = [order for length in range(len(by_kind) + 1) for order in permutations(by_kind, length)]
    changes = [names for order in orders for names in product(*(by_kind[kind] for kind in order))]
    return tuple(sorted(((*names, *last) for names in changes for last in lasts), key=len))


def controls_of(choices: Mapping[str, StageConfig]) -> dict[str, StageConfig]:
    """Return a control for each choice that distils: the same student, trained alike, without the teacher."""
    alone = DistillLossConfig(cross_entropy_weight=1.0, divergence_weight=0.0)
    return {
        f"{name}-{UNTAUGHT}": choice.model_copy(update={"name": f"{name}-{UNTAUGHT}", "loss": alone})
        for name, choice in choices.items()
        if choice.kind == "distill"
    }


@dataclass(frozen=True)
class Space:
    """A recipe with a search: its candidates, and the recipe that each of them is."""

    recipe: Recipe
    choices: dict[str, StageConfig]
    """By name, controls included."""
    candidates: tuple[Candidate, ...]
    """Each after its own beginning; controls last."""

    @classmethod
    def of(cls, recipe: Recipe) -> Space:
        """Return the space of a recipe that has a search."""
        assert recipe.search is not None
        choices = {choice.name: choice for choice in recipe.search.choices}
        controls = controls_of(choices)
        candidates = candidates_of({name: choice.kind for name, choice in choices.items()})
        return cls(recipe, {**choices, **controls}, (*candidates, *((name,) for name in controls)))

    def recipe_of(self, candidate: Candidate) -> Recipe:
        """Return a candidate as a recipe without a search."""
        stages = (*self.recipe.stages, *(self.choices[name] for name in candidate))
        return self.recipe.model_copy(update={"stages": stages, "search": None})

    def role_of(self, candidate: Candidate) -> Literal["baseline", "candidate", "control"]:
        """Say what a candidate is to the answer.

        Controls are the model quantized and nothing else, and students that had no teacher.
        """
        if not candidate:
            return "baseline"
        alone = len(candidate) == 1 and (
            self.choices[candidate[0]].kind == LAST or candidate[0].endswith(f"-{UNTAUGHT}")
        )
        return "control" if alone else "candidate"
