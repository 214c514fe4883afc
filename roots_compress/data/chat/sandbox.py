"""Chat templates of checkpoints: Jinja that may join strings and walk over turns, and do nothing else.

A template is a program that comes with a checkpoint nobody may have read. Jinja's own sandbox keeps it from
the interpreter, but lets it take any time and memory, and call any method of a string. This one allows what
templates of chat models use: some methods and filters by name, and so much text and so many steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MOST_CHARACTERS = 1 << 22
"""Of any text that a template makes on the way."""
MOST_STEPS = 200_000
"""Rounds of loops, and calls, of one conversation."""
MOST_INDENT = 16
MOST_BITS = 1 << 12
"""Of a whole number."""

_OF_STRINGS = frozenset(
    {"strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "replace"}
    | {"upper", "lower", "title", "capitalize", "join", "find", "count", "removeprefix", "removesuffix"}
)
_OF_OBJECTS = frozenset({"items", "keys", "values", "get"})
_OF_LOOPS = frozenset(
    {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "cycle"}
)
_FILTERS = frozenset(
    {"trim", "length", "count", "first", "last", "list", "upper", "lower", "title", "capitalize"}
    | {"default", "d", "select", "reject", "selectattr", "rejectattr", "map", "items", "dictsort", "string"}
    | {"int", "float", "reverse", "sort", "unique", "min", "max", "abs", "round"}
)
_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


class ForbiddenError(SecurityError):
    """A template asks for what the sandbox does not allow."""


class RefusedError(TemplateError):
    """A template says itself that it does not take a conversation."""


class Template:
    """A compiled template.

    Args:
        source: Jinja.

    Raises:
        TemplateError: it is malformed, or names what the sandbox does not have.
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
            variables: what the template finds beside them, such as `bos_token`.
            opens_answer: whether the beginning of an answer follows the last message.

        Raises:
            TemplateError: the template refuses the conversation, or asks for what it may not.
        """
        self._sandbox.begin()
        try:
            return self._sandbox.joined(
                self._compiled.generate(
                    **variables, messages=messages, add_generation_prompt=opens_answer, tools=None
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
    """What a template may do."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        self._steps = 0
        self.filters = {name: filter_ for name, filter_ in self.filters.items() if name in _FILTERS}
        self.filters |= {
            "tojson": self._to_json,
            "replace": self._replaced,
            "join": self._joined_by,
            "bounded": self._bounded,
            "joined": self.joined,
        }
        self.globals = {"range": self._range, "namespace": Namespace, "raise_exception": _refuse}

    def begin(self) -> None:
        """Count anew what a conversation takes."""
        self._steps = 0

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Return the syntax tree, in which each loop and each joining of texts is counted."""
        tree = super()._parse(source, name, filename)
        for node in tree.find_all(_OTHER_FILES):
            raise ForbiddenError(
                f"the statement '{type(node).__name__.lower()}', which reads other templates"
            )
        for used in tree.find_all((nodes.Filter, nodes.Test)):
            known = self.filters if isinstance(used, nodes.Filter) else self.tests
            if used.name not in known:
                raise ForbiddenError(f"the {type(used).__name__.lower()} '{used.name}'")
        for loop in tree.find_all(nodes.For):
            if loop.recursive:
                raise ForbiddenError("a recursive loop")
            loop.iter = nodes.Filter(loop.iter, "bounded", [], [], None, None, lineno=loop.lineno)
        counted: nodes.Template = _CountedJoins().visit(tree)
        return counted

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
        """Return the value of an operation, unless it makes more text than a template may."""
        sizes = [len(each) for each in (left, right) if isinstance(each, str | Sequence)]
        if operator == "**" or (operator == "%" and sizes):
            raise ForbiddenError(f"the operator '{operator}'")
        times = next((each for each in (left, right) if isinstance(each, int)), 1)
        if sizes:
            self._require(sum(sizes) if operator == "+" else sizes[0] * times)
        elif operator == "*" and sum(int(each).bit_length() for each in (left, right)) > MOST_BITS:
            raise ForbiddenError("a number of too many digits")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template may call, and count it."""
        self._step(1)
        text = getattr(obj, "__self__", None)
        match getattr(obj, "__name__", ""):
            case "replace" if isinstance(text, str):
                return self._replaced(text, *args)
            case "join" if isinstance(text, str):
                return self._joined_by(args[0] if args else (), text)
        made = super().call(context, obj, *args, **kwargs)
        if isinstance(made, str):
            self._require(len(made))
        return made

    def concat(self, data: Iterable[str]) -> str:
        """Return what a block or a macro writes."""
        return self.joined(data)

    def joined(self, parts: Iterable[object]) -> str:
        """Return texts as one."""
        texts, size = [], 0
        for part in parts:
            texts.append(str(part))
            size += len(texts[-1])
            self._require(size)
        return "".join(texts)

    def _joined_by(self, parts: Iterable[object], between: str = "") -> str:
        """Return texts as one, with another between each two."""
        return self.joined(
            part for number, text in enumerate(parts) for part in ((between, text) if number else (text,))
        )

    def _to_json(self, value: Any, indent: int | None = None, **_settings: Any) -> str:
        if indent is not None and not 0 <= indent <= MOST_INDENT:
            raise ForbiddenError(f"JSON indented by {indent}")
        return self.joined([json.dumps(value, ensure_ascii=False, indent=indent)])

    def _replaced(self, text: Any, old: str, new: str, count: int | None = -1) -> str:
        whole = str(text)
        self._require(len(whole) + whole.count(old) * len(new))
        return whole.replace(old, new, -1 if count is None else count)

    def _bounded(self, value: Any) -> list[Any]:
        """Return what a loop goes over, its rounds counted."""
        items = []
        for item in value:
            self._step(1)
            items.append(item)
        return items

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._step(len(numbers))
        return numbers

    def _step(self, count: int) -> None:
        self._steps += count
        if self._steps > MOST_STEPS:
            raise ForbiddenError(f"more than {MOST_STEPS:,} rounds of loops and calls")

    @staticmethod
    def _require(characters: int) -> None:
        if characters > MOST_CHARACTERS:
            raise ForbiddenError(f"a text of more than {MOST_CHARACTERS:,} characters")


class _CountedJoins(NodeTransformer):
    """Puts the counting filter in the place of the operator `~`."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 (the name that Jinja looks for)
        """Return texts that are joined with their length counted."""
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "joined", [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """The tag `generation`, by which some templates mark answers: what is in it is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja's own extensions have it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: object) -> NoReturn:
    raise RefusedError(str(message))
