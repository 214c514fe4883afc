"""Source code found by symbol and by syntax tree, for the tests that change it.

A symbol is a module, class, function, method or constant. It is named by an end of its dotted name that no
other symbol of the folder has: `check_parity`, `Manifest.from_text`, `rounding._scale`. A move of the module
leaves such a name right. Code inside a symbol is given as Python, and is found whatever its layout.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
Suite = list[ast.stmt]
UNCOMPARED = ("ctx", "kind", "type_comment", "cause")
"""Fields of syntax trees that tell nothing apart here; `cause` is what follows `raise ... from`."""


class StaleSymbolError(Exception):
    """A symbol or a piece of code is gone, or several fit: what names it must be brought up to date."""


@dataclass(frozen=True)
class Symbol:
    """Where a symbol is."""

    path: str
    """The module's file, from the repository's root."""
    qualname: str
    """The dotted name in the module, `Class.method`; empty for the module itself."""

    @property
    def module(self) -> str:
        """The dotted name of the module."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def name(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.qualname}".rstrip(".")

    def within(self, module: ast.Module) -> ast.AST:
        """Return the symbol's node in the syntax tree of its module."""
        return next((node for name, node in _defined(module) if name == self.qualname), module)


def find_symbol(name: str, folder: str = "roots_compress") -> Symbol:
    """Return the one symbol of a folder of this repository whose dotted name ends with `name`.

    Raises:
        StaleSymbolError: there is none, or there are several.
    """
    known = _symbols(folder)[name.rpartition(".")[2]]
    found = [symbol for symbol in known if f".{symbol.name}".endswith(f".{name}")]
    if len(found) != 1:
        near = ", ".join(symbol.name for symbol in found or known) or "none alike"
        raise StaleSymbolError(f"{len(found)} symbols of {folder}/ are called {name}; there are: {near}")
    return found[0]


@cache
def _symbols(folder: str) -> dict[str, list[Symbol]]:
    """Return every symbol of a folder, by the last part of its name."""
    found: defaultdict[str, list[Symbol]] = defaultdict(list)
    for path in sorted((ROOT / folder).rglob("*.py")):
        module = Symbol(path.relative_to(ROOT).as_posix(), "")
        found[module.module.rpartition(".")[2]].append(module)
        for qualname, _ in _defined(ast.parse(path.read_text(encoding="utf-8"))):
            found[qualname.rpartition(".")[2]].append(Symbol(module.path, qualname))
    return found


def _defined(holder: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield the classes, functions and constants of a module or class, those within them too."""
    for node in ast.iter_child_nodes(holder):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield prefix + node.name, node
            yield from _defined(node, f"{prefix}{node.name}.")
        elif isinstance(holder, ast.Module | ast.ClassDef) and isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield prefix + target.id, node


def replace(node: ast.AST, old: str, new: str) -> None:
    """Replace code inside a node of a syntax tree.

    Args:
        node: is changed.
        old: an expression, or statements in a row. In it, `...` stands for any expression; at the end of
            arguments or of a body, for all that follows.
        new: what takes the place; nothing, to take statements away.

    Raises:
        StaleSymbolError: the code is not there exactly once.
    """
    before, after = ast.parse(old).body, ast.parse(new).body
    places: list[Callable[[], None]]
    if (wanted := _alone(before)) and (instead := _alone(after)):
        places = [partial(put, instead) for each, put in _expressions(node) if _fits(wanted, each)]
    else:
        places = [
            partial(suite.__setitem__, slice(start, start + len(before)), after or [ast.Pass()])
            for suite in _suites(node)
            for start in range(len(suite) - len(before) + 1)
            if all(map(_fits, before, suite[start:]))
        ]
    if len(places) != 1:
        raise StaleSymbolError(f"{len(places)} pieces of code there read\n{old}")
    places[0]()


def _alone(statements: Suite) -> ast.expr | None:
    """Return the expression that is all there is."""
    return statements[0].value if len(statements) == 1 and isinstance(statements[0], ast.Expr) else None


def _expressions(root: ast.AST) -> Iterator[tuple[ast.expr, Callable[[ast.expr], None]]]:
    """Yield each expression below a node, and what puts another in its place."""
    for holder in ast.walk(root):
        for field, value in ast.iter_fields(holder):
            if isinstance(value, ast.expr):
                yield value, partial(setattr, holder, field)
            elif isinstance(value, list):
                for index, each in enumerate(value):
                    if isinstance(each, ast.expr):
                        yield each, partial(value.__setitem__, index)


def _suites(root: ast.AST) -> Iterator[Suite]:
    """Yield each list of statements below a node."""
    for holder in ast.walk(root):
        for _, value in ast.iter_fields(holder):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield value


def _fits(wanted: object, found: object) -> bool:
    """Whether a piece of code is what is wanted, in which `...` stands for anything."""
    if _is_ellipsis(wanted) and isinstance(found, ast.expr):
        return True
    if isinstance(wanted, list) and isinstance(found, list):
        if wanted and _is_ellipsis(wanted[-1]):
            wanted, found = wanted[:-1], found[: len(wanted) - 1]
        return len(wanted) == len(found) and all(map(_fits, wanted, found))
    if (
        isinstance(wanted, ast.Call)
        and isinstance(found, ast.Call)
        and any(map(_is_ellipsis, wanted.args[-1:]))
    ):
        given = {keyword.arg: keyword for keyword in found.keywords}
        named = all(_fits(keyword, given.get(keyword.arg)) for keyword in wanted.keywords)
        return named and _fits(wanted.func, found.func) and _fits(wanted.args, found.args)
    if isinstance(wanted, ast.AST):
        fields = [field for field in wanted._fields if field not in UNCOMPARED]
        return type(wanted) is type(found) and all(
            _fits(getattr(wanted, field), getattr(found, field)) for field in fields
        )
    return type(wanted) is type(found) and wanted == found


def _is_ellipsis(node: object) -> bool:
    value = node.value if isinstance(node, ast.Expr) else node
    return isinstance(value, ast.Constant) and value.value is Ellipsis
