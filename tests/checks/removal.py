"""Taking one check out of the running program: its guard alone, the code around it as it is."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

import roots_compress
from roots_compress.errors import InputError

PACKAGE = Path(roots_compress.__file__).parent


class NoticedError(Exception):
    """Raised by a fault to say that the program noticed it without an error of its own."""


@dataclass(frozen=True)
class Check:
    """A check, the fault it must catch, and how to take it away."""

    name: str
    says: str
    """Words of its message. The error must hold them, and in the source they mark the guard."""
    fault: Callable[[Path], object]
    """Plants the fault in an empty folder and runs the program over it."""
    error: type[Exception] = InputError
    without: str | tuple[str, str] = "pass"
    """What the guard does instead of refusing; or, for a check without a message, a piece of its source and
    what stands there once the check is gone."""
    guard: Callable[..., Any] | None = None
    """The function that holds the check, where the same words stand in several."""


@dataclass(frozen=True)
class _Place:
    """A function in the package's source."""

    path: Path
    qualname: str
    node: ast.FunctionDef
    text: str
    strings: tuple[str, ...]


def remove(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the guard's module without the check, and give the running function that code."""
    place = _place_of(check)
    source = place.path.read_text(encoding="utf-8")
    if isinstance(check.without, str):
        tree = ast.parse(source)
        (found,) = (each for each in _functions(place.path, source, tree) if each.qualname == place.qualname)
        _disarm(found.node, check.says, ast.parse(check.without).body)
    else:
        old, new = check.without
        assert place.text.count(old) == 1
        tree = ast.parse(source.replace(place.text, place.text.replace(old, new)))
    changed = compile(ast.fix_missing_locations(tree), str(place.path), "exec", dont_inherit=True)
    (code,) = (inner for inner in _codes(changed) if inner.co_qualname == place.qualname)
    monkeypatch.setattr(_running(place), "__code__", code)


def _place_of(check: Check) -> _Place:
    """Return the one function that holds the check."""
    marks = check.says if isinstance(check.without, str) else check.without[0]
    if check.guard is not None:
        known = check.guard.__qualname__
        file = Path(inspect.getfile(check.guard))
        places = [place for place in _package() if (place.path, place.qualname) == (file, known)]
    elif isinstance(check.without, str):
        places = [place for place in _package() if any(marks in text for text in place.strings)]
    else:
        places = [place for place in _package() if marks in place.text]
    assert len(places) == 1, f"{marks!r} stands in {[place.qualname for place in places]}"
    return places[0]


@cache
def _package() -> tuple[_Place, ...]:
    sources = {path: path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    return tuple(
        place for path, source in sources.items() for place in _functions(path, source, ast.parse(source))
    )


def _functions(path: Path, source: str, tree: ast.Module) -> Iterator[_Place]:
    """Yield the functions of a module and the methods of its classes, each with what is defined inside it."""
    lines = source.splitlines(keepends=True)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    holders: list[ast.Module | ast.ClassDef] = [tree, *classes]
    for holder in holders:
        prefix = f"{holder.name}." if isinstance(holder, ast.ClassDef) else ""
        for node in holder.body:
            if isinstance(node, ast.FunctionDef):
                text = "".join(lines[node.lineno - 1 : node.end_lineno])
                yield _Place(path, prefix + node.name, node, text, tuple(_strings(node)))


def _running(place: _Place) -> FunctionType:
    module = place.path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
    found: Any = importlib.import_module(module)
    for name in place.qualname.split("."):
        found = vars(found)[name]
    found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    function = inspect.unwrap(found)
    assert isinstance(function, FunctionType)
    return function


def _disarm(definition: ast.FunctionDef, words: str, instead: list[ast.stmt]) -> None:
    """Put `instead` in the place of what the guard with these words does.

    The guard is the innermost `if` around the words, or else the bare statement that holds them. What it
    would do stays as dead code, so that a generator remains one.
    """
    holding = [
        (suite, isinstance(node, ast.If) and name == "body")
        for node in ast.walk(definition)
        for name in ("body", "orelse", "finalbody")
        if isinstance(suite := getattr(node, name, None), list)
        and any(_says(statement, words) for statement in suite)
    ]
    guarded = [suite for suite, is_guard in holding if is_guard]
    if guarded:
        suite = min(guarded, key=_lines)
        assert all(any(suite[0] in ast.walk(step) for step in other) for other in guarded), (
            f"two guards say {words!r}"
        )
        suite[:] = [_dead(list(suite)), *instead]
        return
    suite = min((suite for suite, _ in holding), key=_lines)
    (index,) = (number for number, statement in enumerate(suite) if _says(statement, words))
    suite[index : index + 1] = [_dead([suite[index]]), *instead]


def _dead(statements: list[ast.stmt]) -> ast.stmt:
    return ast.copy_location(ast.If(ast.Constant(False), statements, []), statements[0])


def _says(tree: ast.stmt, words: str) -> bool:
    return any(words in text for text in _strings(tree))


def _strings(tree: ast.stmt) -> Iterator[str]:
    """Yield the strings in a statement and all it holds, but no docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def _lines(suite: list[ast.stmt]) -> int:
    return (suite[-1].end_lineno or 0) - suite[0].lineno


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
