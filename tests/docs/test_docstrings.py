"""Public methods say what they do, or override one that says it: an interface is described once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import roots_compress

SOURCES = sorted(Path(roots_compress.__file__).parent.rglob("*.py"))


def classes() -> dict[str, ast.ClassDef]:
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def ancestors(name: str, known: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Yield a class and those of the package that it derives from, by their names."""
    if name in known:
        yield known[name]
        for base in known[name].bases:
            plain = base.value if isinstance(base, ast.Subscript) else base
            yield from ancestors(ast.unparse(plain).rpartition(".")[2], known)


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}


def test_public_methods_are_described_where_they_come_from() -> None:
    known = classes()
    assert len(known) > 300
    silent = [
        f"{name}.{method}"
        for name, node in known.items()
        if not name.startswith("_")
        for method, own in methods(node).items()
        if not method.startswith("_") and ast.get_docstring(own) is None
        if not any(
            method in methods(each) and ast.get_docstring(methods(each)[method])
            for each in ancestors(name, known)
        )
    ]
    assert not silent, f"neither described, nor overriding what is: {', '.join(silent)}"
