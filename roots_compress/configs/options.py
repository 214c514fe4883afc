"""The options of a command line, made from the fields of the configuration.

Each field is an option: `head_ratio` is `--head-ratio`, unless an `Option` in its annotation changes the
name, or `recipe_only` of its group excludes it. Help, type, choices and default are the field's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args, get_origin

from roots_compress.configs.base import Settings, alternatives, choices_of, descriptions, inner_groups
from roots_compress.errors import Location


@dataclass(frozen=True)
class Option:
    """The option of a field if it is not `--` and its name, written in the field's annotation.

    An example: `Annotated[bool, Option("--per-layer", value=False)]`.
    """

    name: str
    value: Any = None
    """Of a flag: the value that it gives the field. Without it the option takes a value."""
    sets: tuple[str, ...] = ()
    """For a group: the one key that the option sets. Without it, the option takes all values, separated by
    colons: `512:128`."""
    by_name: str | None = None
    """For a group whose keys the option sets one by one (`--field prompt=question`): the name of a value."""
    help: str | None = None
    """Help in place of the field's documentation."""


@dataclass(frozen=True)
class FieldOption:
    """An option of a field."""

    name: str
    """As typed: `--lr`."""
    key: Location
    """The keys that lead to the field."""
    annotation: Any
    """The type of the field."""
    default: Any
    description: str
    value: Any = None
    """Of a flag: the value that it sets."""
    by_name: str | None = None
    """For a group whose keys are set one by one (`prompt=question`): the name of a value."""

    @property
    def type(self) -> Any:
        """The type of one value: a plain one, or a group of settings."""
        kind = alternatives(self.annotation)[0]
        return alternatives(get_args(kind)[0])[0] if get_origin(kind) is tuple else kind

    @property
    def parts(self) -> list[str]:
        """The keys of a group that is given as one value, `512:128`."""
        kind = None if self.by_name else self.type
        return [*kind.model_fields] if isinstance(kind, type) and issubclass(kind, Settings) else []

    @property
    def is_list(self) -> bool:
        """Whether it may be given several times."""
        return self.by_name is not None or get_origin(alternatives(self.annotation)[0]) is tuple

    @property
    def choices(self) -> list[Any]:
        """The values it may take, if they are listed."""
        return choices_of(self.annotation)

    @property
    def help(self) -> str:
        """The help text, with the default."""
        words = [*self.description.split(), *(["Repeatable."] if self.is_list else [])]
        if self.value is not None:
            words += ["The default."] if self.value == self.default else []
        elif self.default not in (None, ()) and not self.by_name:
            words.append(f"Default: {self.default_text}.")
        return " ".join(words)

    @property
    def default_text(self) -> str:
        """The default as it is typed."""
        match self.default:
            case Settings() as group:
                return ":".join(str(getattr(group, key)) for key in type(group).model_fields)
            case bool() as wanted:
                return self.name if wanted else self.name.replace("--", "--no-", 1)
            case float() as number:
                return f"{number:g}"
            case value:
                return str(value)


def spelled_option(name: str) -> str:
    """Return the option of a name: `--max-mb` of `max_mb`."""
    return f"--{name.replace('_', '-')}"


def options_of(group: type[Settings], way: Location = (), default: Any = None) -> Iterator[FieldOption]:
    """Yield the options of a group of settings and of the groups in it."""
    inner = inner_groups(group)
    for name, field in group.model_fields.items():
        if is_recipe_only(group, name):
            continue
        usual = field.default if default is None else getattr(default, name)
        spelled = [each for each in field.metadata if isinstance(each, Option)]
        if not spelled and name in inner:
            yield from options_of(inner[name], (*way, name), usual)
        for option in spelled or ([] if name in inner else [Option(spelled_option(name))]):
            annotation, its_default, holder = field.annotation, usual, group
            for outer, part in pairwise((name, *option.sets)):
                holder = inner_groups(holder)[outer]
                annotation, its_default = (
                    holder.model_fields[part].annotation,
                    getattr(its_default, part, None),
                )
            yield FieldOption(
                option.name,
                (*way, name, *option.sets),
                annotation,
                its_default,
                option.help or descriptions(group)[name],
                option.value,
                option.by_name,
            )


def is_recipe_only(group: type[Settings], name: str) -> bool:
    """Whether a field is not an option."""
    return any(name in vars(each).get("recipe_only", "").split() for each in group.__mro__)
