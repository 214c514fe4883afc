"""The options of verbs that set fields of the configuration, and those that several verbs share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from inspect import Parameter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from roots_compress.cli import completion
from roots_compress.configs.recipe.assignments import Assignment
from roots_compress.errors import InputError
from roots_compress.io.hub_cache import on_disk
from roots_compress.system.threads import MOST_THREADS

if TYPE_CHECKING:
    from roots_compress.configs.options import FieldOption

DEFAULT_RUN = Path("runs/current")
RUN = "Run"
HEADINGS = {"data": "Text", "evaluation": "Measuring", "seed": RUN, "device": RUN}
"""The headings of the options that set keys of a whole run, by the first of the key."""
STAGE_HEADINGS = {
    **dict.fromkeys(("architecture", "tokenizer", "objective"), "New model"),
    "loss": "Loss",
    "training": "Training",
}
"""Those of the options that set keys of a stage; the others are the verb's own options."""
FRESH_HELP = "Delete the run that is in the folder first. A folder that is not a run is never touched."
SOURCE_HELP = (
    "A folder of Hugging Face (a LoRA adapter's too) or of this program, a GGUF file, or the name of a model "
    "in the Hugging Face Hub's local cache."
)
CHECKPOINT_HELP = f"{SOURCE_HELP} Default: the run's newest checkpoint."
_NAMED = re.compile(r"`(\w+)(?:: (\w+))?`")

ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, max=MOST_THREADS, help="Threads. Default: the physical cores available."
    ),
]


def named(source: Path | None) -> Path | None:
    """Return the path of a model that was named on the command line."""
    return None if source is None else on_disk(source)


CheckpointArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CKPT", help=CHECKPOINT_HELP, callback=named, autocompletion=completion.checkpoints
    ),
]
RunOption = Annotated[
    Path,
    typer.Option(
        "--run",
        metavar="DIR",
        help="The run this stage belongs to.",
        autocompletion=completion.folders,
        rich_help_panel=RUN,
    ),
]
FreshOption = Annotated[bool, typer.Option("--fresh", help=FRESH_HELP, rich_help_panel=RUN)]


class Track(StrEnum):
    """Trackers of experiments."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"


TrackOption = Annotated[
    Track | None,
    typer.Option(
        "--track",
        help="Record the run's figures for TensorBoard or MLflow, in local folders.",
        rich_help_panel=RUN,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the stage as a recipe has it, such as calibration.windows=96. Repeatable.",
    ),
]


def with_options(**groups: Sequence[FieldOption]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a verb take options of fields: a parameter with the name of a group gets its typed values.

    Typer reads a verb's options from its signature; this writes the signature, and collects the values.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def spread(**values: Any) -> None:
            given = {name: _given(options, values) for name, options in groups.items()}
            verb(**values, **given)

        hints = get_type_hints(verb, include_extras=True)
        parameters: list[Parameter] = []
        typed = {each.key[-1]: each.name for options in groups.values() for each in options}
        for name, parameter in inspect.signature(verb).parameters.items():
            if name in groups:
                headings = HEADINGS if name == "of_run" else STAGE_HEADINGS
                parameters += [_parameter(option, headings, typed) for option in groups[name]]
            else:
                parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))
        spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        spread.__annotations__ = {each.name: each.annotation for each in parameters}
        return spread

    return decorate


def _python_name(option: FieldOption) -> str:
    return option.name.removeprefix("--").replace("-", "_")


def _given(options: Sequence[FieldOption], values: dict[str, Any]) -> list[Assignment]:
    """Remove the values of some options from a verb's parameters, and return the typed ones."""
    typed = [(option, values.pop(_python_name(option))) for option in options]
    return [
        Assignment(option.name, option.key, _as_in_a_recipe(option, value))
        for option, value in typed
        if value not in (None, [])
    ]


def _parameter(option: FieldOption, headings: Mapping[str, str], typed: Mapping[Any, str]) -> Parameter:
    """Return the parameter from which Typer makes an option.

    Args:
        headings: of a verb's help, by the first of an option's key.
        typed: the verb's options, by the last of their keys.
    """
    kind: Any = option.type
    name, shown = option.name, None
    if option.value is not None:
        kind = bool
    elif kind is bool:
        name = f"{name}/{name.replace('--', '--no-', 1)}"
    elif option.by_name:
        kind, shown = str, f"NAME={option.by_name}"
    elif option.choices:
        kind, shown = str, f"<{'|'.join(map(str, option.choices))}>"
    elif option.parts:
        kind, shown = str, ":".join(option.parts).upper()
    elif kind is Path:
        shown = "PATH"
    if option.is_list:
        kind, shown = list[kind], shown or f"<{kind.__name__}>"
    default = typer.Option(
        None,
        name,
        metavar=shown,
        help=_NAMED.sub(lambda named: _as_typed(named, typed), option.help),
        show_default=False,
        rich_help_panel=headings.get(str(option.key[0])),
    )
    return Parameter(_python_name(option), Parameter.KEYWORD_ONLY, default=default, annotation=kind | None)


def _as_typed(named: re.Match[str], typed: Mapping[Any, str]) -> str:
    """Return a setting in a help text, `records: tags`, in its typed form."""
    option = typed.get(named[1])
    return f"`{' '.join(filter(None, (option, named[2])))}`" if option else named[0]


def _as_in_a_recipe(option: FieldOption, value: Any) -> Any:
    """Return a typed value in a recipe's form; typed paths start from the current folder.

    Raises:
        InputError: numbers with colons between are something else.
    """
    if option.value is not None:
        return option.value
    if option.choices:
        return next((choice for choice in option.choices if str(choice) == value), value)
    if option.by_name:
        named = [_named(option, each) for each in value]
        for (name, first), (again, second) in combinations(named, 2):
            if name == again:
                raise InputError(
                    f"{name} is given twice, as {first[:60]} and {second[:60]}",
                    where=option.name,
                    remedy="Name one of them.",
                )
        return dict(named)
    if isinstance(value, list):
        return [_as_in_a_recipe(option, each) for each in value]
    if isinstance(value, Path):
        from roots_compress.configs.base import from_home

        return str(on_disk(from_home(value)).absolute())
    if keys := option.parts:
        parts = value.split(":")
        if len(parts) != len(keys) or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
            raise InputError(
                f"{value[:60]!r} is not of the form {':'.join(keys).upper()}, in whole numbers",
                where=option.name,
                remedy=f"For example: {option.name} {option.default_text}",
            )
        return {key: int(part) for key, part in zip(keys, parts, strict=True)}
    return value


def _named(option: FieldOption, typed: str) -> tuple[str, str]:
    """Return name and value of `prompt=question`.

    Raises:
        InputError: it has another form.
    """
    name, equals, value = typed.partition("=")
    if not (name and equals and value):
        raise InputError(
            f"{typed[:60]!r} is not of the form NAME={option.by_name}",
            where=option.name,
            remedy=f"Names are: {', '.join(option.type.model_fields)}.",
        )
    return name, value
