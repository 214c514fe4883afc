"""The verbs that begin with a checkpoint alone: `compress` it, or write a recipe that suits it: `init`."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roots_compress.cli import completion
from roots_compress.cli.deferred import Deferred
from roots_compress.cli.display.console import say, stdout
from roots_compress.cli.display.output import events, give, give_run, tell, track
from roots_compress.cli.options import RUN, SOURCE_HELP, FreshOption, TrackOption, named, with_options
from roots_compress.cli.outcome import JUnitOption, check_output, conclude, tell_where, telling_failure
from roots_compress.configs.recipe.assignments import Assignment, settings_of
from roots_compress.errors import InputError, recipe_key

if TYPE_CHECKING:
    from roots_compress.advice.bounds import Bounds

OTHER_BOUNDS = "The run is complete. Give bounds that can be kept, or more time with --max-minutes."


def _compress() -> Callable[..., None]:
    """Return the verb `compress`: its options are the bounds, and the settings of a whole run."""
    from roots_compress.cli.naming import Names
    from roots_compress.configs.options import options_of
    from roots_compress.configs.recipe.schema import Recipe

    options = list(options_of(Recipe))

    @with_options(of_run=options)
    def compress(
        *,
        checkpoint: Annotated[
            Path,
            typer.Argument(
                metavar="CKPT", help=SOURCE_HELP, callback=named, autocompletion=completion.checkpoints
            ),
        ],
        max_mb: Annotated[
            float | None,
            typer.Option(
                "--max-mb", metavar="MB", help="The most that the graph may take, in millions of bytes."
            ),
        ] = None,
        min_speedup: Annotated[
            float | None,
            typer.Option(
                "--min-speedup",
                metavar="TIMES",
                help="How many times as fast as the model as it is: in decoding a token, or in reading a "
                "text if the model writes none.",
            ),
        ] = None,
        max_loss: Annotated[
            str | None,
            typer.Option(
                "--max-loss",
                metavar="PERCENT",
                help="How much worse the quality may be, such as 5%: of a perplexity, or 5 points of 100 of "
                "an accuracy or a cosine.",
            ),
        ] = None,
        max_minutes: Annotated[
            float, typer.Option("--max-minutes", help="Begin no new candidate after so many minutes.")
        ] = 60.0,
        run: Annotated[
            Path | None,
            typer.Option(
                "--run",
                metavar="DIR",
                help="The run's folder. Default: runs/NAME, by the model's name.",
                rich_help_panel=RUN,
            ),
        ] = None,
        fresh: FreshOption = False,
        junit: JUnitOption = None,
        tracker: TrackOption = None,
        of_run: Sequence[Assignment],
    ) -> None:
        check_output(junit)
        from roots_compress.configs.options import spelled_option
        from roots_compress.configs.recipe.loading import refuse_missing

        names = Names("compress", "CKPT", options)
        with names.shown():
            refuse_missing(checkpoint, recipe_key("model"))
            from roots_compress.advice.bounds import bounds_of, read_percent  # It loads the large libraries.

            loss = None if max_loss is None else read_percent(max_loss, "--max-loss")
            bounds = bounds_of(max_mb=max_mb, min_speedup=min_speedup, max_loss=loss, spelled=spelled_option)
            from roots_compress.advice.compression import carry_out, foresee, request
            from roots_compress.advice.explain import reasons

            asked = request(
                checkpoint,
                bounds,
                settings_of(of_run),
                folder=run,
                minutes=max_minutes,
                fresh=fresh,
                spelled=spelled_option,
            )
            task = asked.setting.task
            tell(f"{checkpoint}: {'; '.join(bounds.told(task))}. Candidates, the least expected loss first:")
            for number, line in enumerate(foresee(asked), start=1):
                tell(f"  {number}. {line}")
            for line in reasons(asked.left_out):
                tell(f"  left out: {line}")
            track(tracker)
            with telling_failure(junit, asked.folder):
                metrics, sentences = carry_out(asked, fresh=fresh, events=events())
        from roots_compress.report.text import table

        give_run(metrics, asked.folder, explanation=sentences)
        stdout().print(table(metrics))
        for sentence in sentences:
            say(sentence)
        tell(f"Recipe: {asked.folder / 'recipe.yaml'}")
        tell_where(metrics, asked.folder)
        conclude(metrics, where=asked.folder, junit=junit, remedy=OTHER_BOUNDS)

    return compress


COMPRESS = Deferred(
    "Compress a model within bounds: try what is expected to lose least first, and explain the choice.",
    _compress,
    lambda: "roots-compress compress ckpt --max-mb 100 --min-speedup 3 --max-loss 5%",
)


def _init() -> Callable[..., None]:
    """Return the verb `init`: the recipe's data can be named on its command line."""
    from roots_compress.cli.naming import Names
    from roots_compress.configs.options import options_of
    from roots_compress.configs.recipe.schema import Recipe

    options = [option for option in options_of(Recipe) if option.key[0] == "data"]

    @with_options(of_run=options)
    def init(
        *,
        checkpoint: Annotated[
            Path | None,
            typer.Argument(
                metavar="CKPT",
                help=f"{SOURCE_HELP} Without it, name your model in the file.",
                callback=named,
            ),
        ] = None,
        target: Annotated[
            list[str] | None,
            typer.Option(
                "--target",
                metavar="TARGET",
                help='What is wanted: "100 MB", "3x faster" or "at most 5% worse". Repeatable.',
            ),
        ] = None,
        path: Annotated[
            Path, typer.Option("--out", "-o", metavar="RECIPE", help="The file to write.")
        ] = Path("recipe.yaml"),
        of_run: Sequence[Assignment],
    ) -> None:
        from roots_compress.advice.bounds import read_targets

        bounds = read_targets(target or ())
        _refuse_existing(path)
        with Names("init", "CKPT", options).shown():
            text, next_step = _text(checkpoint, bounds, settings_of(of_run), path, given=bool(target))
        _write(path, text)
        give({"recipe": str(path)})
        say(f"wrote {path}; {next_step}")

    return init


def _text(
    checkpoint: Path | None, bounds: Bounds, settings: dict[str, Any], path: Path, *, given: bool
) -> tuple[str, str]:
    """Return the recipe's text, and what is to be done with it."""
    if checkpoint is None:
        if given or settings:
            raise InputError(
                "needs a model: only a recipe for a model can suit it",
                where="--target" if given else "--data",
                remedy="Name the model first: roots-compress init CKPT",
            )
        from roots_compress.advice.starter import STARTER

        return STARTER, f"edit its `model`, then: roots-compress run {path}"
    from roots_compress.configs.recipe.loading import refuse_missing

    refuse_missing(checkpoint, recipe_key("model"))
    from roots_compress.advice.facts import look_at
    from roots_compress.advice.first import first_recipe, needs_text
    from roots_compress.advice.recipe import name_of

    data = dict(settings.get("data", {}))
    for part in {"train", "eval"} & data.keys():
        data[part] = [_from_folder(path.parent, Path(each)) for each in data[part]]
    facts = look_at(checkpoint, path.absolute().parent, records=data.get("records"))
    model = _from_folder(path.parent, checkpoint)
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in model):
        raise InputError(
            "has characters in its path that a recipe cannot hold",
            where=checkpoint,
            remedy="Rename the folder, or link to it by a plain name.",
        )
    values: dict[str, Any] = {"name": name_of(checkpoint), "model": model, "data": data}
    text = first_recipe(facts, bounds, values, path=path)
    if needs_text(facts, settings):
        return text, f"name your texts in it (data.train), then: roots-compress run {path}"
    return text, f"then: roots-compress run {path}"


def _from_folder(folder: Path, path: Path) -> str:
    """Return a path as a recipe in a folder holds it: relative ones start there."""
    return str(path) if path.is_absolute() else os.path.relpath(path, folder)


def _refuse_existing(path: Path) -> None:
    """Refuse to write over a file, before seconds are spent on its contents."""
    with _told(path):
        if path.exists() or path.is_symlink():
            raise FileExistsError


def _write(path: Path, text: str) -> None:
    """Write a new file whole, or leave none: an empty recipe would be in the way of the next try."""
    from roots_compress.io.atomic import write_text

    _refuse_existing(path)  # Another program may have made it meanwhile.
    with _told(path):
        write_text(path, text)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Let what the system refuses be an error that names the file."""
    try:
        yield
    except FileExistsError:
        raise InputError("the file exists already", where=path, remedy="Name another file with -o.") from None
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror or error}",
            where=path,
            remedy="Name a file in a writable folder, on a disk with some room.",
        ) from None


INIT = Deferred(
    "Write a first recipe: one that suits a model, this machine and targets, or one to be edited.",
    _init,
    lambda: "roots-compress init ckpt --target '100 MB'",
)
