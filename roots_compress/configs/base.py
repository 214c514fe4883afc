"""The base of every configuration object: frozen, strict, and torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


def faults_at(faults: Iterable[tuple[tuple[str | int, ...], str]], *, kind: str) -> ValidationError:
    """Return the error to raise in a validator, which pydantic merges so that each fault keeps its place.

    Args:
        faults: each with the keys that lead to it from what is validated.
        kind: `setting` where that is a group of settings, `recipe` where it is the whole recipe.
    """
    details = [
        InitErrorDetails(type=PydanticCustomError(kind, "{text}", {"text": text}), loc=place, input=None)
        for place, text in faults
    ]
    return ValidationError.from_exception_data("settings", details)


class Settings(BaseModel):
    """A frozen group of settings. Unknown keys, wrong types and numbers written as text are errors.

    The string under each field is its documentation: it appears in `docs/recipes.md` and in the schema.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_the_rest_of_a_default(cls, given: object) -> object:
        """Let an inner group that is given in part keep what its field's default sets otherwise.

        A field's default may differ from the group's own: recovery learns at another rate than training does.
        """
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        for name, field in cls.model_fields.items():
            part, default = given.get(name), field.default
            if isinstance(part, Mapping) and isinstance(default, Settings):
                filled[name] = {**{key: getattr(default, key) for key in default.model_fields_set}, **part}
        return filled


Group = TypeVar("Group", bound=Settings)


def groups_of(settings: Settings, kind: type[Group]) -> Iterator[tuple[tuple[str, ...], Group]]:
    """Yield the inner groups of a class, however deep they are, each with the keys that lead to it."""
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if isinstance(value, kind):
            yield (key,), value
        elif isinstance(value, Settings):
            yield from (((key, *keys), group) for keys, group in groups_of(value, kind))


# YAML has neither paths nor tuples: these two, and only these, are read from its strings and lists.
PathSetting = Annotated[Path, Strict(False)]
PathListSetting = Annotated[tuple[PathSetting, ...], Strict(False)]

MOST_THREADS = 1024
"""As many as the largest machines have cores; where many more are asked for, the system kills the process."""
Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A fraction to remove: 0 removes nothing, and 1 would remove everything, so it is not allowed."""
PositiveInt = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
LEAST_BLOCK_SIZE = 8
BlockSize = Annotated[int, Field(ge=LEAST_BLOCK_SIZE)]
"""Tokens of a window."""
PositiveFloat = Annotated[float, Field(gt=0.0)]
