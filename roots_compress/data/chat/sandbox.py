"""Chat templates of checkpoints: Jinja that may only join strings and loop over turns.

A template is a program that comes with a checkpoint nobody may have read. Jinja's own sandbox keeps it from
the interpreter, but lets it take any time and memory, and call any method of a string. This one allows what
templates of chat models use: some methods and filters by name. What a rendering takes in all is bounded by a
budget: of characters, for every text that it makes, joins, searches or compares and for every item of a list
that it makes or walks over, and of steps, for every round of a loop and every call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from roots_compress.data.chat.budget import ITEM_CHARACTERS, Budget, ForbiddenError, require_short, size
from roots_compress.data.chat.syntax import Generation, counted

MOST_INDENT = 16
MOST_FORMAT = 100
"""Characters of a date's format."""
TODAY = datetime(2024, 7, 26)
"""The date of `strftime_now`, so that a text is the same on every day: the default date of Llama 3's
templates."""

_OF_STRINGS = frozenset(
    {"strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "replace"}
    | {"upper", "lower", "title", "capitalize", "join", "find", "count", "removeprefix", "removesuffix"}
)
_OF_OBJECTS = frozenset({"items", "keys", "values", "get"})
_OF_GROUPS = frozenset({"grouper", "list"})
_OF_LOOPS = frozenset(
    {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "cycle"}
)
_AT_ONCE = frozenset({"length", "count", "first", "last", "default", "d"})
"""Filters that read one item, or none."""
_TEXT_FILTERS = frozenset({"trim", "upper", "lower", "capitalize", "safe", "escape", "e", "string"})
_WALKS = frozenset(
    {"title", "list", "select", "reject", "selectattr", "rejectattr", "map", "items", "dictsort", "reverse"}
    | {"sort", "unique", "min", "max", "groupby", "int", "float", "abs", "round"}
)
_COMPARISONS = frozenset(
    {"in", "eq", "equalto", "==", "ne", "!=", "gt", "greaterthan", ">", "ge", ">=", "lt", "lessthan", "<"}
    | {"le", "<=", "upper", "lower"}
)
_DATE_FORMAT = re.compile(r"(?:[^%]|%-?[A-Za-z%])*")
_TEXT_FORMAT = re.compile(r"(?:[^%]|%[sd%])*")


class RefusedError(TemplateError):
    """A template itself refuses a conversation."""


class Template:
    """A compiled template.

    Raises:
        TemplateError: it is malformed, or names something that the sandbox does not have.
    """

    def __init__(self, source: str) -> None:
        self._sandbox = _Sandbox()
        try:
            self._compiled = self._sandbox.from_string(source)
        except RecursionError:
            raise TemplateError("its statements are too deeply nested") from None

    def render(
        self, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any], *, opens_answer: bool
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: each with a role and its content.
            variables: further variables of the template, such as `bos_token`.
            opens_answer: whether the beginning of an answer follows the last message.

        Raises:
            TemplateError: the template refuses the conversation, or uses something forbidden.
        """
        self._sandbox.budget.begin()
        try:
            return self._sandbox.concat(
                self._compiled.generate(
                    **variables,
                    messages=messages,
                    add_generation_prompt=opens_answer,
                    tools=None,
                    documents=None,
                )
            )
        except RecursionError:
            raise ForbiddenError("macros that call themselves without end") from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TemplateError(f"{type(error).__name__}: {error}") from None


@lru_cache(maxsize=8)
def compiled(source: str) -> Template:
    """Return the template of a source, compiled once."""
    return Template(source)


class _Sandbox(ImmutableSandboxedEnvironment):
    """The operations that a template may use."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        self.budget = Budget()
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, "jinja2.ext.loopcontrols"],
            finalize=self.budget.text,
        )
        own: dict[str, Callable[..., Any]] = {
            "tojson": self._to_json,
            "replace": self._replaced,
            "join": self._joined_by,
            "bounded": self.budget.bounded,
            "joined": self.budget.joined,
            "part": self._part,
            "read": self._read,
            "counted": self._counted,
        }
        self.filters = {name: _forbidden(name) for name in FILTERS}
        self.filters |= {name: FILTERS[name] for name in _AT_ONCE}
        self.filters |= {name: self.budget.of_text(FILTERS[name]) for name in _TEXT_FILTERS}
        self.filters |= {name: self.budget.of_items(FILTERS[name]) for name in _WALKS}
        self.filters |= own
        tests: Mapping[str, Any] = TESTS
        self.tests |= {name: self.budget.of_comparison(tests[name]) for name in _COMPARISONS}
        self.globals = {
            "range": self._range,
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": _refuse,
            "strftime_now": _day,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Return the syntax tree with counting of operations on texts and lists."""
        return counted(super()._parse(source, name, filename))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may have an attribute."""
        match obj:
            case str():
                return attr in _OF_STRINGS
            case LoopContext():
                return attr in _OF_LOOPS
            case Namespace():
                return not attr.startswith("_")
            case Mapping():
                return attr in _OF_OBJECTS
            case tuple():
                return attr in _OF_GROUPS
            case _:
                return False

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse an attribute."""
        raise ForbiddenError(f"the attribute '{attribute}' of {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> None:
        """Refuse `format`, which Jinja would allow: a width in it makes a text of any length."""
        if getattr(value, "__name__", "") in ("format", "format_map"):
            raise ForbiddenError(f"the attribute '{value.__name__}' of str")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Return the value of an operation, unless it exceeds the budget."""
        sizes = [size(each) for each in (left, right) if isinstance(each, Sequence)]
        if operator == "**":
            raise ForbiddenError("the operator '**'")
        if operator == "%" and isinstance(left, str):
            if not _TEXT_FORMAT.fullmatch(left):
                raise ForbiddenError("a width in the operator '%'")
            self.budget.charge(size(left))
            self.budget.measure(right)
        elif sizes:
            times = next((each for each in (left, right) if isinstance(each, int)), 1)
            self.budget.charge(sum(sizes) if operator == "+" else sizes[0] * max(times, 0))
        made = super().call_binop(context, operator, left, right)
        require_short(made)
        return made

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call an allowed function, and count it."""
        self.budget.step(1)
        text, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(text, str):
            if name == "replace":
                return self._replaced(text, *args)
            if name == "join":
                return self._joined_by(args[0] if args else (), text)
            self.budget.charge(len(text) + sum(map(size, args)))
            if name in ("split", "rsplit", "splitlines"):
                marks = text.count(args[0]) if args and isinstance(args[0], str) else len(text) // 2
                self.budget.charge(ITEM_CHARACTERS * marks)
        made = super().call(context, obj, *args, **kwargs)
        self.budget.charge(size(made))
        if obj is dict:
            self.budget.measure(made)
        return made

    def concat(self, data: Iterable[str]) -> str:
        """Return the output of a block or a macro."""
        return self.budget.joined(data)

    def _joined_by(self, parts: Iterable[object], between: str = "") -> str:
        """Return texts as one, with another between each two."""
        return self.budget.joined(
            part for number, text in enumerate(parts) for part in ((between, text) if number else (text,))
        )

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Return a value as JSON, by the settings that transformers' filter has, in their order."""
        if indent is not None and not 0 <= indent <= MOST_INDENT:
            raise ForbiddenError(f"JSON indented by {indent}")
        if separators is not None and sum(map(len, separators)) > MOST_INDENT:
            raise ForbiddenError("JSON with long separators")
        self.budget.measure(value, indent or 0)
        written = json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return self.budget.joined([written])

    def _replaced(self, text: Any, old: str, new: str, count: int | None = -1) -> str:
        whole = self.budget.text(text)
        self.budget.charge(len(whole) + whole.count(old) * len(new))
        return whole.replace(old, new, -1 if count is None else count)

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self.budget.step(len(numbers))
        return numbers

    def _part(self, value: Any) -> Any:
        """Return a part of a text or list, counted."""
        self.budget.charge(size(value))
        return value

    def _read(self, value: Any) -> Any:
        """Return an operand of a comparison or search, counted."""
        self.budget.measure(value)
        return value

    @pass_context  # So that Jinja computes it each time.
    def _counted(self, _context: Context, value: Any) -> Any:
        """Return a list or an object that the template writes; what it holds counts each time it is there."""
        self.budget.measure(value)
        return value


def _forbidden(name: str) -> Callable[..., Any]:
    """Return the replacement of a filter that a template may name but not use."""

    def refuse(*_arguments: Any, **_settings: Any) -> NoReturn:
        raise ForbiddenError(f"the filter '{name}'")

    return refuse


def _refuse(message: object) -> NoReturn:
    raise RefusedError(str(message))


def _day(form: str) -> str:
    """Return `TODAY` in a format of strftime, without widths."""
    if len(form) > MOST_FORMAT or not _DATE_FORMAT.fullmatch(form):
        raise ForbiddenError(f"a date in the form {form:.20}")
    return TODAY.strftime(form)
