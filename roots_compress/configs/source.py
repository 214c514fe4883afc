"""Reads the documentation of settings from their source, without importing it.

Importing it, and pydantic, would make the list of verbs take half as long again.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def syntax(file: str | Path) -> ast.Module:
    """Return the syntax of a file of source."""
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def class_in(file: str | Path, name: str) -> ast.ClassDef:
    """Return a class of a file of source."""
    return next(each for each in syntax(file).body if isinstance(each, ast.ClassDef) and each.name == name)


def stage_summaries() -> dict[str, str]:
    """Return what each kind of stage does, by kind, in the order of the recipe's union.

    The settings of a stage KIND are in `configs/KIND.py`; their documentation begins with what it does.
    """
    folder, kinds, members = Path(__file__).parent, dict[str, str](), list[ast.Name]()
    for statement in syntax(folder / "recipe" / "schema.py").body:
        match statement:
            case ast.ImportFrom(module=str(module)):
                kinds |= {each.name: module.rpartition(".")[2] for each in statement.names}
            case ast.Assign(targets=[ast.Name(id="StageConfig")], value=union):
                members = [each for each in ast.walk(union) if isinstance(each, ast.Name)]
    members.sort(key=lambda each: (each.lineno, each.col_offset))
    summaries = {}
    for name in (each.id for each in members if each.id.endswith("Config")):
        text = ast.get_docstring(class_in(folder / f"{kinds[name]}.py", name)) or ""
        summaries[kinds[name]] = text.partition("\n\n")[0]
    return summaries
