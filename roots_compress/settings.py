"""The base of every configuration object: frozen, strict, and torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict


class Settings(BaseModel):
    """A frozen group of settings. Unknown keys, wrong types and numbers written as text are errors.

    The string under each field is its documentation: it appears in `docs/recipes.md` and in the schema.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


# YAML has neither paths nor tuples: these two, and only these, are read from its strings and lists.
PathSetting = Annotated[Path, Strict(False)]
PathListSetting = Annotated[tuple[PathSetting, ...], Strict(False)]

MOST_THREADS = 1024
"""As many as the largest machines have cores; where many more are asked for, the system kills the process."""
Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A fraction to remove: 0 removes nothing, and 1 would remove everything, so it is not allowed."""
PositiveInt = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
