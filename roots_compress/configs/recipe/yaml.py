"""A safe reader of recipes in YAML, which remembers the line of every key.

PyYAML parses; values are interpreted here, by YAML 1.2's core schema: `1e-4` is a number, `no`
and `12:30:00` are text. Tags, anchors, aliases, duplicate keys, further documents, and files too large or too
deep are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from roots_compress.errors import InputError, Location, recipe_key
from roots_compress.io.atomic import read_regular
from roots_compress.io.encodings import encoding_of
from roots_compress.results import Json

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000
_MAX_NUMBER_LENGTH = 64
_MAX_KEY_LENGTH = 200

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NUMBERS = tuple(re.compile(f"(?:{form.pattern})$") for form in (_INT, _OTHER_BASE, _FLOAT))
"""Unquoted text that is read as a number, in the form that PyYAML's writer needs."""
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udc7f\udd00-\udfff]")
"""Python represents a byte of a path that is not UTF-8 by one of these 128 surrogates."""


@dataclass(frozen=True)
class Document:
    """A YAML document as plain values, each with its place in the file."""

    source: Path
    text: str
    """The values."""
    value: Json
    lines: dict[Location, int]

    def line(self, location: Location) -> int:
        """Return the line of a value, or of the nearest enclosing group that is in the file."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def place(self, location: Location) -> str:
        """Return `FILE:LINE: KEY` of a value."""
        return f"{self.source}:{self.line(location)}" + (f": {recipe_key(*location)}" if location else "")


def read_yaml(source: Path) -> Document:
    """Read a YAML file.

    Raises:
        InputError: the file is missing, not text, not YAML, or holds what recipes may not; the message
            names the line.
    """
    try:
        raw = read_regular(source, MAX_BYTES)
    except FileNotFoundError:
        raise InputError("the file does not exist", where=source, remedy="Check the path.") from None
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error.strerror or error}",
            where=source,
            remedy="Name a YAML file that can be read.",
        ) from None
    return parse_yaml(_decode(raw, source), source)


def parse_yaml(text: str, source: Path) -> Document:
    """Parse YAML text; `source` is only named in errors.

    Raises:
        InputError: as `read_yaml`.
    """
    strange = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if strange:
        line = text.count("\n", 0, strange.start()) + 1
        _refuse(source, line, f"holds the control character U+{ord(strange[0]):04X}")
    loader = _Loader(text, source)
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _refuse(source, mark.line + 1 if mark else 1, _explain(error))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # A number in a directive or an escape that PyYAML itself cannot convert.
        _refuse(source, loader.line + 1, f"not valid YAML ({type(error).__name__})")
    finally:
        loader.dispose()
    lines: dict[Location, int] = {}
    value = _build(root, (), lines, source) if root is not None else None
    return Document(source, text, value, lines)


class _Loader(yaml.SafeLoader):
    """PyYAML's composer, without aliases, tags and further documents, and with a bound on depth and size."""

    def __init__(self, text: str, source: Path) -> None:
        super().__init__(text)
        self._source = source
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            _refuse(
                self._source, line, "anchors and aliases ('&' and '*') are not allowed; write the value out"
            )
        if getattr(event, "tag", None) is not None:
            _refuse(self._source, line, "tags ('!') are not allowed in a recipe; remove it or quote the text")
        self._nodes += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _refuse(self._source, line, f"nested more than {MAX_DEPTH} deep, which no recipe is")
        if self._nodes > MAX_NODES:
            _refuse(self._source, line, f"holds more than {MAX_NODES} values, which no recipe does")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _refuse(source: Path, line: int, message: str) -> NoReturn:
    raise InputError(
        message, where=f"{source}:{line}", remedy="See docs/reference/recipes.md for what a recipe may hold."
    )


def _decode(raw: bytes, source: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark."""
    save_as = "Save the file as UTF-8 text."
    if (encoding := encoding_of(raw)) is not None:
        raise InputError(f"the file is {encoding} text, not UTF-8", where=source, remedy=save_as)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError("not UTF-8 text", where=f"{source}:{line}", remedy=save_as) from None


def _explain(error: yaml.MarkedYAMLError) -> str:
    """Return PyYAML's complaint, in plainer words for the commonest ones."""
    problem = error.problem or ""
    if repr("\t") in problem:
        return "indented with a tab; YAML wants spaces"
    if "single document" in (error.context or ""):
        return "holds more than one document ('---'); a recipe is one"
    if "mapping values are not allowed" in problem:
        return "a ':' where none can be; quote the text, or check the indentation"
    return f"not valid YAML: {problem}"


def _build(node: yaml.Node, path: Location, lines: dict[Location, int], source: Path) -> Json:
    """Turn a node into plain values, noting the line of each."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Json] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = _scalar(key_node, source) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                _refuse(source, line, "a key must be text")
            if len(key) > _MAX_KEY_LENGTH:
                _refuse(source, line, f"a key of {len(key)} characters")
            if key in mapping:
                first = lines[(*path, key)]
                _refuse(source, line, f"the key '{key}' stands here a second time (first in line {first})")
            lines[(*path, key)] = line
            mapping[key] = _build(value_node, (*path, key), lines, source)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), lines, source) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, source)


def _scalar(node: yaml.ScalarNode, source: Path) -> Json:
    """Return the value of a scalar; only unquoted ones can be anything but text."""
    text: str = node.value
    line = node.start_mark.line + 1
    if _UNPRINTABLE.search(text):
        _refuse(source, line, "an escape stands for a character that is not text")
    if node.style is not None:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    is_int, is_other = _INT.fullmatch(text), _OTHER_BASE.fullmatch(text)
    is_float = _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text)
    if not (is_int or is_other or is_float):
        return text
    if len(text) > _MAX_NUMBER_LENGTH:
        _refuse(source, line, f"a number of {len(text)} digits")
    if is_int:
        return int(text)
    if is_other:
        return int(text, 0)
    return float(text.replace(".", "", 1) if _NOT_FINITE.fullmatch(text) else text)
