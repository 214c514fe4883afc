"""The built-in corpus: Python's language reference and its standard library's docstrings, read from disk.

Nothing is imported or executed: the sources are parsed, and only text is taken from them.
"""

from __future__ import annotations

import ast
import functools
import gc
import re
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from platform import python_version

from roots_compress.data.documents import Document
from roots_compress.data.fingerprint import without_repeats
from roots_compress.errors import InputError, Text, recipe_key

DESCRIPTION = f"the language reference and the standard library's docstrings of Python {python_version()}"

# Tests and test data, a GUI's internals, tables of code points, demos: little prose for the time to parse it.
SKIPPED = frozenset(
    {"test", "tests", "idlelib", "encodings", "ensurepip", "lib2to3", "pydoc_data", "turtledemo"}
)
INDENT = "    "
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def builtin_documents() -> tuple[Document, ...]:
    """Return one document for each topic of the reference and each documented module, in the order of names.

    The same Python gives the same documents; another version's differ, as its documentation does.

    Raises:
        InputError: this Python has neither, for example because it has no source files.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    # Syntax trees are millions of objects: searching them again and again took a quarter of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        documents = without_repeats(
            Document.plain(text) for text in (*_reference_topics(stdlib), *_module_docstrings(stdlib))
        )
    finally:
        if collects:
            gc.enable()
    if not documents:
        raise InputError(
            "this Python carries no sources of its standard library, of which the built-in corpus is made",
            where=stdlib,
            remedy=Text(
                "Name training text in ",
                recipe_key("data", "train"),
                ", or use a Python installed with its .py files.",
            ),
        )
    return documents


def _reference_topics(stdlib: Path) -> Iterator[str]:
    """Yield the topics behind `help("topics")`: the one dictionary literal of `pydoc_data/topics.py`."""
    parsed = _parse(stdlib / "pydoc_data" / "topics.py")
    for statement in parsed[1].body if parsed else []:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            pairs = zip(statement.value.keys, statement.value.values, strict=True)
            topics = {_text(name): _text(topic).strip() for name, topic in pairs}
            yield from (topics[name] for name in sorted(topics) if topics[name])


def _text(node: ast.expr | None) -> str:
    """Return the value of a plain string in a source; an empty one for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def documented_modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield the name and the syntax tree of each module that belongs to Python itself, by their names."""
    for name, (_, tree) in _modules(Path(sysconfig.get_path("stdlib"))):
        yield name, tree


def _modules(stdlib: Path) -> Iterator[tuple[str, tuple[list[str], ast.Module]]]:
    """Yield the lines and the tree of each module that belongs to Python, not what is installed in it."""
    modules: dict[str, Path] = {}
    for name in sorted(sys.stdlib_module_names - SKIPPED):
        modules[name] = stdlib / f"{name}.py"
        for path in (stdlib / name).rglob("*.py"):
            parts = path.relative_to(stdlib).with_suffix("").parts
            if not SKIPPED.intersection(parts):
                modules[".".join(parts).removesuffix(".__init__")] = path
    for name in sorted(modules):
        parsed = _parse(modules[name])
        if parsed is not None:
            yield name, parsed


def _module_docstrings(stdlib: Path) -> Iterator[str]:
    """Yield the documentation of each module."""
    for name, (lines, tree) in _modules(stdlib):
        sections = list(_sections(tree, lines, depth=0))
        if sections:
            yield "\n\n".join([f"module {name}", *sections])


def _parse(path: Path) -> tuple[list[str], ast.Module] | None:
    """Return the lines and the syntax tree of a source file; None where there is none."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Old escape sequences in sources that are not ours.
            return source.split("\n"), ast.parse(source)  # splitlines() would also split at form feeds
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def _sections(node: Documented, lines: list[str], *, depth: int) -> Iterator[str]:
    """Yield header and docstring of each definition that has a docstring, or contains one that has."""
    inner: list[str] = []
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for definition in definitions(node.body):
            inner += _sections(definition, lines, depth=depth + 1)
    text = [(INDENT * depth + line).rstrip() for line in (ast.get_docstring(node) or "").splitlines()]
    if not isinstance(node, ast.Module) and (text or inner):
        text.insert(0, INDENT * (depth - 1) + _header(node, lines))
    if text:
        yield "\n".join(text)
    yield from inner


def _header(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    """Return a definition up to its docstring, on one line: keyword, name, parameters or bases."""
    header = (line.strip() for line in lines[node.lineno - 1 : max(node.lineno, node.body[0].lineno - 1)])
    return " ".join(line for line in header if line and not line.startswith("#"))


def definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the definitions of a body, those under `if` and `try` included."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement
        elif isinstance(statement, ast.If | ast.Try):
            yield from definitions(statement.body)
            yield from definitions(statement.orelse)
