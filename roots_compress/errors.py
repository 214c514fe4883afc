"""The errors a user may meet: each says what is wrong, where, and what to do.

Every other exception that reaches the command line is a bug in this program and keeps its traceback.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

Location = tuple[str | int, ...]
"""The way to a setting: keys and list indices."""


class Key(str):
    """A setting as people write it, `stages[1].training.steps`, that holds the way to it as data.

    Args:
        path: from the group of settings that is being checked, or from the top of the recipe.
        value: of the setting, where a sentence names both: `scheme int8`.
    """

    path: Location
    of_recipe: bool
    value: object

    def __new__(cls, *path: str | int, of_recipe: bool = False, value: object = None) -> Self:
        """Make the key at a path."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        key = super().__new__(cls, text.removeprefix(".") + ("" if value is None else f" {value}"))
        key.path, key.of_recipe, key.value = path, of_recipe, value
        return key

    def within(self, group: Location, *, of_recipe: bool = False) -> Key:
        """Return the key with the way to its group before it; one of the whole recipe stays as it is."""
        if self.of_recipe:
            return self
        return Key(*group, *self.path, of_recipe=of_recipe, value=self.value)


def recipe_key(*path: str | int) -> Key:
    """Return a key by the way to it from the top of the recipe."""
    return Key(*path, of_recipe=True)


class Text(str):
    """A sentence in pieces. Those that are a `Key` are shown as the user knows the setting."""

    pieces: tuple[str, ...]

    def __new__(cls, *pieces: str) -> Self:
        """Join the pieces."""
        text = super().__new__(cls, "".join(pieces))
        text.pieces = pieces
        return text


def with_keys(text: str, change: Callable[[Key], str]) -> str:
    """Return a text in which each key that it holds as data is changed."""
    if isinstance(text, Key):
        return change(text)
    if isinstance(text, Text):
        return Text(*(with_keys(piece, change) for piece in text.pieces))
    return text


class RootsError(Exception):
    """A failure with a cause and a remedy, shown without a traceback.

    Args:
        message: what is wrong, in one sentence; a `Text` where it names settings.
        where: the file, and perhaps key and line, that is at fault (`recipe.yaml:7: stages[1].ratio`). Of a
            `Key`, the line or the option that gave it is shown.
        remedy: what the user can do about it, in the imperative.
        transient: whether the same stage may succeed another time: the disk was full, memory short.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        where: str | Path | None = None,
        remedy: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where if isinstance(where, Key) or where is None else str(where)
        self.remedy = remedy
        self.transient = transient

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.remedy:
            lines.append(self.remedy)
        return "\n".join(lines)

    def change_keys(self, change: Callable[[Key], str]) -> None:
        """Put something in the place of each key that message, place and remedy hold."""
        self.message = with_keys(self.message, change)
        self.where = self.where and with_keys(self.where, change)
        self.remedy = self.remedy and with_keys(self.remedy, change)


@contextmanager
def changing_keys(change: Callable[[Key], str]) -> Iterator[None]:
    """Let an error inside the block have something in the place of each key that it holds."""
    try:
        yield
    except RootsError as error:
        error.change_keys(change)
        raise


def located(place: Location, *, of_recipe: bool = False) -> AbstractContextManager[None]:
    """Let an error inside the block that names a key of a group say where that group is.

    Whoever checks a setting knows its group alone, and names its key there; each caller adds the way to the
    group, up to the recipe. Keys of the whole recipe, and files, stay as they are.

    Args:
        place: of the group, in the group around it or in the recipe.
    """
    return changing_keys(partial(Key.within, group=place, of_recipe=of_recipe))


class SourceWarning(UserWarning):
    """What a user should know of a source that is used all the same; the command line tells each once."""


class InputError(RootsError):
    """The request cannot be carried out as given: a bad recipe, file, option or combination. Exit code 2."""

    exit_code = 2


class StageError(RootsError):
    """A stage failed after it had begun; stages committed before it are safe. Exit code 1."""


class GateMissedError(RootsError):
    """The run finished and a gate of its recipe was missed. Exit code 3."""

    exit_code = 3


def did_you_mean(word: str, known: list[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest known word, or an empty string where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Return the text without control characters: names from files must not drive the terminal.

    Replaced are the C0 and C1 controls but line feed and tab, so that no escape sequence is left, and lone
    surrogates, which are no text. Spaces, joiners, marks of direction and private characters stay: they are
    part of many scripts and do nothing to a terminal.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
