"""Taking one check out of the running program: its guard alone, the code around it as it is."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from roots_compress.errors import InputError
from tests.symbols import ROOT, find_symbol, replace


class NoticedError(Exception):
    """Raised by a fault to say that the program noticed it without an error of its own."""


@dataclass(frozen=True)
class Check:
    """A check, the fault it must catch, and how to take it away."""

    name: str
    where: str
    """The symbol of the function that holds the check."""
    fault: Callable[[Path], object]
    """Plants the fault in an empty folder and runs the program over it."""
    error: type[Exception] = InputError
    """What the fault is answered with."""
    guard: str | None = None
    """The code of the check in that function, for `replace`; None: the one place that raises the error."""
    without: str = "pass"
    """What stands there once the check is gone."""


def remove(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the function's module without the check, and give the running function that code."""
    symbol = find_symbol(check.where)
    path = ROOT / symbol.path
    tree = ast.parse(path.read_text(encoding="utf-8"))
    replace(symbol.within(tree), check.guard or f"raise {check.error.__name__}(...)", check.without)
    changed = compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)
    (code,) = (inner for inner in _codes(changed) if inner.co_qualname == symbol.qualname)
    monkeypatch.setattr(_running(symbol.module, symbol.qualname), "__code__", code)


def _running(module: str, qualname: str) -> FunctionType:
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = vars(found)[name]
    found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    function = inspect.unwrap(found)
    assert isinstance(function, FunctionType)
    return function


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
