"""The verbs on text: `data prepare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from roots_compress.cli.deferred import Deferred
from roots_compress.cli.display.console import say
from roots_compress.cli.display.output import events, give
from roots_compress.cli.help import HelpfulGroup
from roots_compress.cli.options import with_options
from roots_compress.configs.recipe.assignments import Assignment, read_assignment, settings_of
from roots_compress.errors import Key, changing_keys

app = typer.Typer(
    cls=HelpfulGroup,
    no_args_is_help=True,
    help="Make a corpus of text: filtered, without duplicates, in shards.",
)


def _prepare() -> Callable[..., None]:
    """Return the verb `data prepare`: its options are the settings of a corpus."""
    from roots_compress.configs.options import options_of
    from roots_compress.configs.prepare import PrepareConfig

    options = list(options_of(PrepareConfig))
    names = {option.key: option.name for option in options}
    names[("data", "text_column")] = names[("text_column",)]  # As readers name it.

    @with_options(of_corpus=options)
    def verb(
        *,
        sources: Annotated[
            list[Path] | None,
            typer.Argument(
                metavar="SRC", help="Files and folders of text, the one to keep duplicates first."
            ),
        ] = None,
        out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder of the corpus.")],
        recipe: Annotated[
            Path | None,
            typer.Option(
                "--recipe",
                metavar="YAML",
                help="A file with settings, such as sources with weights.",
            ),
        ] = None,
        of_corpus: Sequence[Assignment],
        assignments: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="KEY=VALUE",
                help="Any key of the settings, such as repetition.max_lines=0.5. Repeatable.",
            ),
        ] = None,
    ) -> None:
        from roots_compress.configs.recipe.corpus import load_corpus

        given = settings_of([*of_corpus, *map(read_assignment, assignments or [])])
        if sources:
            given["sources"] = [{"path": str(path.absolute())} for path in sources]

        def name(key: Key) -> str:
            keys = tuple(part for part in key.path if isinstance(part, str))
            return "SRC" if keys[:1] == ("sources",) and recipe is None else names.get(keys, key)

        with changing_keys(name):
            config = load_corpus(recipe, given)
            from roots_compress.data.prepare.datasheet import summary
            from roots_compress.data.prepare.prepare import prepare

            datasheet, was_there = prepare(config, out, events())
        give({"corpus": str(out), "was_there": was_there, "datasheet": datasheet})
        say(f"{out}: {'as it was made: ' if was_there else ''}{summary(datasheet)}")

    return verb


PREPARE = Deferred(
    "Make a corpus of sources: filtered, without duplicates, mixed, shuffled, in shards.",
    _prepare,
    lambda: "roots-compress data prepare texts --out corpus",
)
PREPARE.add_to(app, "prepare", "Data")
