"""Limits on rendering a chat template: text, items of lists, and steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sized
from functools import wraps
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from jinja2.utils import Namespace

MOST_CHARACTERS = 1 << 25
"""Most characters that a rendering may make and read."""
ITEM_CHARACTERS = 64
"""Characters for which an item of a list counts."""
MOST_STEPS = 200_000
"""Most loop rounds and calls of a rendering."""
MOST_BITS = 1 << 12
"""Most digits of a whole number."""


class ForbiddenError(SecurityError):
    """A template uses something that the sandbox does not allow."""


class Budget:
    """Counts the work of a rendering, and refuses too much of it."""

    def __init__(self) -> None:
        self._steps = self._characters = 0

    def begin(self) -> None:
        """Reset the counts."""
        self._steps = self._characters = 0

    def step(self, count: int) -> None:
        """Count rounds of loops, or calls."""
        self._steps += count
        if self._steps > MOST_STEPS:
            raise ForbiddenError(f"more than {MOST_STEPS:,} rounds of loops and calls")

    def charge(self, characters: int) -> None:
        """Count characters that are made or read."""
        self._characters += characters
        if self._characters > MOST_CHARACTERS:
            raise ForbiddenError(f"more than {MOST_CHARACTERS:,} characters of text in all")

    def measure(self, value: Any, indent: int = 0, depth: int = 1) -> None:
        """Count the texts and items in a value, however deep; as JSON, with so many spaces a level."""
        if isinstance(value, str):
            self.charge(len(value))
        elif isinstance(value, int | float | range | Undefined) or value is None:
            return
        elif isinstance(value, Namespace):
            raise ForbiddenError("the text of a namespace")
        elif isinstance(value, Mapping):
            self.charge((ITEM_CHARACTERS + indent * depth) * len(value))
            for key, item in value.items():
                self.measure(key)
                self.measure(item, indent, depth + 1)
        elif isinstance(value, Collection):
            self.charge((ITEM_CHARACTERS + indent * depth) * len(value))
            for item in value:
                self.measure(item, indent, depth + 1)

    def text(self, value: Any) -> str:
        """Return a value as text."""
        if isinstance(value, str):
            return value
        self.measure(value)
        return str(value)

    def joined(self, parts: Iterable[object]) -> str:
        """Return texts as one."""
        texts = []
        for part in parts:
            texts.append(self.text(part))
            self.charge(len(texts[-1]) + ITEM_CHARACTERS)
        return "".join(texts)

    def bounded(self, value: Any) -> list[Any]:
        """Return the items of a loop, with its rounds counted."""
        items = []
        for item in value:
            self.step(1)
            items.append(item)
        return items

    def of_text(self, filter_: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter of texts that counts its input and output."""

        @wraps(filter_)
        def counting(*arguments: Any, **settings: Any) -> Any:
            passed = arguments[:1] if hasattr(filter_, "jinja_pass_arg") else ()
            value, *others = arguments[len(passed) :]
            text = self.text(value)
            self.charge(len(text))
            made = filter_(*passed, text, *others, **settings)
            self.charge(size(made))
            return made

        return counting

    def of_items(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that counts its input and output items."""

        @wraps(function)
        def counting(*arguments: Any, **settings: Any) -> Any:
            passed = arguments[:1] if hasattr(function, "jinja_pass_arg") else ()
            read = list(arguments[len(passed) :])
            for number, value in enumerate(read):
                if isinstance(value, Iterable) and not isinstance(value, Sized):
                    read[number] = self.bounded(value)
                self.charge(ITEM_CHARACTERS * len(value) if isinstance(value, str) else size(value))
            made = function(*passed, *read, **settings)
            self.charge(size(made))
            require_short(made)
            return made

        return counting

    def of_comparison(self, test: Callable[..., Any]) -> Callable[..., Any]:
        """Return a test that counts its operands."""

        @wraps(test)
        def counting(*arguments: Any) -> Any:
            for value in arguments:
                self.measure(value)
            return test(*arguments)

        return counting


def size(value: Any) -> int:
    """Return the count of a text or a list, without the content of its items."""
    if isinstance(value, str):
        return len(value)
    return ITEM_CHARACTERS * len(value) if isinstance(value, Sized) else 0


def require_short(value: Any) -> None:
    """Refuse a whole number of many digits, with which arithmetic is slow."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise ForbiddenError("a number of too many digits")
