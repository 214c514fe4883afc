"""Options that several verbs share, declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

DEFAULT_RUN = Path("runs/current")
FRESH_HELP = "Delete the run that stands in the folder first. A folder that is not a run is never touched."
MOST_THREADS = 1024
"""As in `settings`, whose import of pydantic would make `--help` wait."""

CheckpointArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CKPT",
        help="A ROOTS or Hugging Face directory, or a GGUF file. Default: the run's newest checkpoint.",
    ),
]


class Device(StrEnum):
    """Where training and calibration run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True)
class Sets:
    """What an option sets: the key of a recipe, or of the verb's stage, and for a flag the value it gives."""

    key: str
    to: Any = None


@dataclass(frozen=True)
class OptionGroup:
    """Options that several verbs share, or that belong together, each declared with the key that it sets."""

    @classmethod
    def declared(cls) -> Iterator[tuple[str, str, Sets]]:
        """Yield field, option and what it sets, of each option that sets a key; `lr` is `--lr`."""
        for name, hint in get_type_hints(cls, include_extras=True).items():
            for sets in getattr(hint, "__metadata__", ()):
                if isinstance(sets, Sets):
                    yield name, f"--{name.replace('_', '-')}", sets

    def given(self) -> Iterator[tuple[str, str, Any]]:
        """Yield option, key and value, as a recipe holds it, of each option that was typed."""
        for name, option, sets in self.declared():
            value = getattr(self, name)
            if sets.to is not None:
                value = sets.to if value else None
            if value is not None and value != []:
                yield option, sets.key, _plain(value)

    def settings(self) -> dict[str, Any]:
        """Return what was given, in groups of keys as a recipe has them."""
        found: dict[str, Any] = {}
        for _, dotted_key, value in self.given():
            *groups, key = dotted_key.split(".")
            inmost = found
            for group in groups:
                inmost = inmost.setdefault(group, {})
            inmost[key] = value
        return found


def _plain(value: Any) -> Any:
    """Return a value as a recipe holds it; paths that are typed start from the current folder."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value.absolute())
    return value.value if isinstance(value, StrEnum) else value


@dataclass(frozen=True)
class TextOptions(OptionGroup):
    """The text a verb reads, and how quality and speed are measured on it."""

    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Text files and folders; repeatable. Default: the built-in corpus, Python's documentation.",
        ),
        Sets("data.train"),
    ] = None
    eval_data: Annotated[
        list[Path] | None,
        typer.Option(
            "--eval-data",
            metavar="PATH",
            help="Text held out for perplexity; repeatable. Default: 5% of the documents of --data.",
        ),
        Sets("data.eval"),
    ] = None
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text-column", help="Column or key of the text in CSV, JSON and Parquet files. Default: text."
        ),
        Sets("data.text_column"),
    ] = None
    windows: Annotated[
        int | None,
        typer.Option("--windows", help="Held-out windows that perplexity is measured on. Default: 24."),
        Sets("evaluation.windows"),
    ] = None
    block_size: Annotated[
        int | None,
        typer.Option("--block-size", help="Tokens in each held-out window. Default: 512."),
        Sets("evaluation.block_size"),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", help="Threads to compute and to measure with. Default: the physical cores available."
        ),
        Sets("evaluation.threads"),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of everything random. Default: 0."), Sets("seed")
    ] = None


@dataclass(frozen=True)
class RunOptions(TextOptions):
    """What every stage verb takes beside its own options."""

    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="The run this stage belongs to.")] = (
        DEFAULT_RUN
    )
    fresh: Annotated[bool, typer.Option("--fresh", help=FRESH_HELP)] = False
    device: Annotated[
        Device | None,
        typer.Option(
            "--device", help="Where to train and calibrate; graphs are measured on the CPU. Default: auto."
        ),
        Sets("device"),
    ] = None
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of the stage as a recipe has it, such as calibration.windows=96; repeatable.",
        ),
    ] = None


@dataclass(frozen=True)
class TrainingOptions(OptionGroup):
    """The training loop's most used settings; a recipe has them all."""

    steps: Annotated[
        int | None, typer.Option("--steps", help="Optimizer steps. Default: 300."), Sets("training.steps")
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Training windows in each optimizer step. Default: 4."),
        Sets("training.batch_size"),
    ] = None
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="Peak learning rate, after the warm-up. Default: 0.001."),
        Sets("training.learning_rate"),
    ] = None
    train_block_size: Annotated[
        int | None,
        typer.Option("--train-block-size", help="Tokens in each training window. Default: 256."),
        Sets("training.block_size"),
    ] = None


def spread_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take groups of options: a parameter annotated with a group of options becomes its fields.

    Typer reads a verb's options off its signature; this writes that signature out, and gathers the values
    again.
    """
    hints = get_type_hints(verb, include_extras=True)
    hints.pop("return", None)
    groups = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and issubclass(kind, OptionGroup)
    }
    parameters = []
    for name, parameter in inspect.signature(verb).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        field_hints = get_type_hints(groups[name], include_extras=True)
        parameters += [
            parameter.replace(name=field.name, annotation=field_hints[field.name], default=field.default)
            for field in fields(groups[name])
        ]

    @wraps(verb)
    def spread(**values: Any) -> None:
        gathered = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        verb(**values, **gathered)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    spread.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    spread.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword_only}
    return spread
