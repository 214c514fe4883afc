"""Options that several verbs share, declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
class TextOptions:
    """The text a verb reads, and how quality and speed are measured on it."""

    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Text files and folders; repeatable. Default: the built-in corpus, Python's documentation.",
        ),
    ] = None
    eval_data: Annotated[
        list[Path] | None,
        typer.Option(
            "--eval-data",
            metavar="PATH",
            help="Text held out for perplexity; repeatable. Default: 5% of the documents of --data.",
        ),
    ] = None
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text-column", help="Column or key of the text in CSV, JSONL and Parquet files. Default: text."
        ),
    ] = None
    windows: Annotated[
        int | None,
        typer.Option("--windows", help="Held-out windows that perplexity is measured on. Default: 24."),
    ] = None
    block_size: Annotated[
        int | None, typer.Option("--block-size", help="Tokens in each held-out window. Default: 512.")
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", help="Threads to compute and to measure with. Default: the physical cores available."
        ),
    ] = None
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random. Default: 0.")] = None

    def settings(self) -> dict[str, Any]:
        """Return what was given, as a part of a recipe."""
        return given(
            data=given(
                train=_absolute(self.data), eval=_absolute(self.eval_data), text_column=self.text_column
            )
            or None,
            evaluation=given(windows=self.windows, block_size=self.block_size, threads=self.threads) or None,
            seed=self.seed,
        )


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
    ] = None
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of the stage as a recipe has it, such as calibration.windows=96; repeatable.",
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return what was given of the whole run, as a part of a recipe."""
        return {**super().settings(), **given(device=self.device.value if self.device else None)}


@dataclass(frozen=True)
class TrainingOptions:
    """The training loop's most used settings; a recipe has them all."""

    steps: Annotated[int | None, typer.Option("--steps", help="Optimizer steps. Default: 300.")] = None
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Training windows in each optimizer step. Default: 4.")
    ] = None
    lr: Annotated[
        float | None, typer.Option("--lr", help="Peak learning rate, after the warm-up. Default: 0.001.")
    ] = None
    train_block_size: Annotated[
        int | None, typer.Option("--train-block-size", help="Tokens in each training window. Default: 256.")
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return what was given, as a part of a stage."""
        return given(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.lr,
            block_size=self.train_block_size,
        )


def spread_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take groups of options: a parameter annotated with a dataclass above becomes its fields.

    Typer reads a verb's options off its signature; this writes that signature out, and gathers the values
    again.
    """
    hints = get_type_hints(verb, include_extras=True)
    hints.pop("return", None)
    groups = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and hasattr(kind, "settings")
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


def _absolute(paths: list[Path] | None) -> list[Path] | None:
    return [path.absolute() for path in paths] if paths else None


def given(**settings: Any) -> dict[str, Any]:
    """Return the settings that were given: those that are not None."""
    return {key: value for key, value in settings.items() if value is not None}
