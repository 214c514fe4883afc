"""The errors a user may meet: each says what is wrong, where, and what to do.

Every other exception that reaches the command line is a bug in this program and keeps its traceback.
"""

from __future__ import annotations

import re
from pathlib import Path


class Key(str):
    """The place of a setting: keys and list indices with dots, `stages[1].training.steps`."""

    __slots__ = ()


class RootsError(Exception):
    """A failure with a cause and a remedy, shown without a traceback.

    Args:
        message: what is wrong, in one sentence.
        where: the file, and perhaps key and line, that is at fault (`recipe.yaml:7: stages[1].ratio`). Of a
            `Key`, the line or the option that gave it is told where it is known.
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
