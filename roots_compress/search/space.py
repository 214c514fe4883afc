"""Which candidates there are: the choices in every order that makes sense."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal

from roots_compress.configs.recipe.schema import Recipe, StageConfig
from roots_compress.stages.registry import stage_of

Candidate = tuple[str, ...]
"""Names of choices, in the order in which they are carried out; none for the model as it is."""


def candidates_of(kinds: Mapping[str, str], quantizing: Container[str]) -> tuple[Candidate, ...]:
    """Return every sequence with at most one choice of each kind, one that quantizes last.

    Short ones come first, and of equal length those that change least before they quantize; else the order is
    that of the choices.
    """
    by_kind: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        by_kind.setdefault(kind, []).append(name)
    ends = [by_kind.pop(kind) for kind in tuple(by_kind) if kind in quantizing]
    lasts = [(), *((name,) for names in ends for name in names)]
    orders = [order for length in range(len(by_kind) + 1) for order in permutations(by_kind, length)]
    changes = [names for order in orders for names in product(*(by_kind[kind] for kind in order))]
    return tuple(sorted(((*names, *last) for names in changes for last in lasts), key=len))


def controls_of(choices: Mapping[str, StageConfig]) -> dict[str, StageConfig]:
    """Return the controls that the choices' stages name, such as a student without its teacher."""
    controls = {}
    for choice in choices.values():
        if control := stage_of(choice).control(choice):
            word, settings = control
            name = f"{choice.name}-{word}"
            controls[name] = settings.model_copy(update={"name": name})
    return controls


@dataclass(frozen=True)
class Space:
    """A recipe with a search: its candidates, and the recipe that each of them is."""

    recipe: Recipe
    choices: dict[str, StageConfig]
    """By name, controls included."""
    candidates: tuple[Candidate, ...]
    """Each after its own beginning; controls last."""
    controls: frozenset[Candidate]
    """The model quantized and nothing else, and the controls that stages name."""
    listed: tuple[Candidate, ...] = ()
    """Those that the recipe lists, in their order; none where every order is a candidate."""

    @classmethod
    def of(cls, recipe: Recipe) -> Space:
        """Return the space of a recipe that has a search."""
        assert recipe.search is not None
        choices = {choice.name: choice for choice in recipe.search.choices}
        if listed := recipe.search.candidates:
            parts = (candidate[:length] for candidate in listed for length in range(len(candidate) + 1))
            return cls(recipe, choices, tuple(dict.fromkeys(parts)), frozenset(), listed)
        controls = controls_of(choices)
        quantizing = {name: choice.kind for name, choice in choices.items() if choice.quantizes}
        kinds = {name: choice.kind for name, choice in choices.items()}
        candidates = (*candidates_of(kinds, set(quantizing.values())), *((name,) for name in controls))
        alone = frozenset((name,) for name in (*quantizing, *controls))
        return cls(recipe, {**choices, **controls}, candidates, alone)

    def recipe_of(self, candidate: Candidate) -> Recipe:
        """Return a candidate as a recipe without a search."""
        stages = (*self.recipe.stages, *(self.choices[name] for name in candidate))
        return self.recipe.model_copy(update={"stages": stages, "search": None})

    def role_of(self, candidate: Candidate) -> Literal["baseline", "candidate", "control"]:
        """Say what a candidate is to the answer."""
        if not candidate:
            return "baseline"
        return "control" if candidate in self.controls else "candidate"
