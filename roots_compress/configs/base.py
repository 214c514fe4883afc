"""The base of every configuration object: frozen, strict, and torch-free."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from roots_compress.configs.source import class_in
from roots_compress.errors import Location
from roots_compress.io.hub_cache import on_disk
from roots_compress.io.names import in_locale
from roots_compress.system.threads import MOST_THREADS


def faults_at(faults: Iterable[tuple[Location, str]], *, of_recipe: bool = False) -> ValidationError:
    """Return the error to raise in a validator, which pydantic merges so that each fault keeps its place.

    Args:
        faults: each with the keys that lead to it from what is validated. Those in its text do, too.
        of_recipe: whether that is the whole recipe, and not a group of settings.
    """
    kind = "recipe" if of_recipe else "setting"
    details = [
        InitErrorDetails(
            type=PydanticCustomError(kind, "{text}", {"text": text, "depth": len(place)}),
            loc=place,
            input=None,
        )
        for place, text in faults
    ]
    return ValidationError.from_exception_data("settings", details)


def _describe(schema: dict[str, Any], group: type[Settings]) -> None:
    for name, text in descriptions(group).items():
        schema["properties"][name]["description"] = text


class Settings(BaseModel):
    """A frozen group of settings. Unknown keys, wrong types and numbers written as text are errors.

    The string under each field is its documentation, in `docs/reference/recipes.md` and in the help of verbs.
    """

    # Built when first used, so that help does not wait for it.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
        json_schema_extra=_describe,
    )
    recipe_only: ClassVar[str] = ""
    """Names of the fields that are not options of verbs; only `--set` sets them."""

    @model_validator(mode="before")
    @classmethod
    def _keep_the_rest_of_a_default(cls, given: object) -> object:
        """Complete an inner group that is given in part with the values of its field's default.

        A field's default may differ from the group's: recovery has another learning rate than training.
        """
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        for name, field in cls.model_fields.items():
            part, default = given.get(name), field.default
            if isinstance(part, Mapping) and isinstance(default, Settings):
                filled[name] = {**{key: getattr(default, key) for key in default.model_fields_set}, **part}
        return filled

    def from_folder(self, folder: Path) -> Self:
        """Return the settings with their relative paths starting from a folder."""
        fields = {key: getattr(self, key) for key in type(self).model_fields}
        placed = {key: placed_in(folder, value) for key, value in fields.items()}
        # Other fields are not copied, so that `model_fields_set` still tells which fields were given.
        return self.model_copy(update={key: new for key, new in placed.items() if new != fields[key]})


def placed_in(folder: Path, value: Any) -> Any:
    """Return a setting with its relative paths starting from a folder, or found in the Hub's cache."""
    match value:
        case Path():
            return on_disk(in_locale(value), folder)
        case tuple():
            return tuple(placed_in(folder, each) for each in value)
        case Settings():
            return value.from_folder(folder)
        case _:
            return value


Group = TypeVar("Group", bound=Settings)
Changed = TypeVar("Changed", bound=Settings)


def groups_of(settings: Settings, kind: type[Group]) -> Iterator[tuple[tuple[str, ...], Group]]:
    """Yield the inner groups of a class at any depth, each with the keys that lead to it."""
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if isinstance(value, kind):
            yield (key,), value
        elif isinstance(value, Settings):
            yield from (((key, *keys), group) for keys, group in groups_of(value, kind))


def with_group(settings: Changed, keys: Location, group: Settings) -> Changed:
    """Return settings with another inner group at the keys that lead to it."""
    first, rest = str(keys[0]), keys[1:]
    inner = with_group(getattr(settings, first), rest, group) if rest else group
    return settings.model_copy(update={first: inner})


@cache
def descriptions(group: type[Any]) -> dict[str, str]:
    """Return the documentation of each field of settings, or of a dataclass: the string under it.

    pydantic can read these too, but then making a class takes several times as long.
    """
    found = {}
    bases = [each for each in reversed(group.__mro__) if issubclass(each, Settings) or is_dataclass(each)]
    names = group.model_fields if issubclass(group, Settings) else {each.name for each in fields(group)}
    bodies = [class_in(sys.modules[each.__module__].__file__ or "", each.__name__).body for each in bases]
    for field, text in chain.from_iterable(map(pairwise, bodies)):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as description)),
            ) if name in names:
                found[name] = " ".join(description.split())
    return found


StageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def alternatives(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows, without None and without the metadata of `Annotated`."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for part in get_args(annotation) for each in alternatives(part)]
    return [] if annotation is NoneType else [annotation]


def choices_of(annotation: Any) -> list[Any]:
    """Return the values that the `Literal` types of an annotation name."""
    return [
        value for each in alternatives(annotation) if get_origin(each) is Literal for value in get_args(each)
    ]


def inner_groups(group: type[Settings]) -> dict[str, type[Settings]]:
    """Return the fields that are groups of settings themselves."""
    return {
        name: each
        for name, field in group.model_fields.items()
        for each in alternatives(field.annotation)
        if isinstance(each, type) and issubclass(each, Settings)
    }


def from_home(path: Path) -> Path:
    """Return a path with the home folder in the place of a `~`, as a shell has it, but not after `=`."""
    with suppress(RuntimeError):  # No home is known, and the path is as it stands.
        return path.expanduser() if path.parts[:1] == ("~",) and path.name != "~" else path
    return path


# YAML has neither paths nor tuples: these two, and only these, are read from its strings and lists.
PathSetting = Annotated[Path, Strict(False), AfterValidator(from_home)]
PathListSetting = Annotated[tuple[PathSetting, ...], Strict(False)]

Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A fraction to remove: 0 removes nothing, and 1 would remove everything, so it is not allowed."""
PositiveInt = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
LEAST_BLOCK_SIZE = 8
BlockSize = Annotated[int, Field(ge=LEAST_BLOCK_SIZE)]
"""Tokens of a window."""
PositiveFloat = Annotated[float, Field(gt=0.0)]
