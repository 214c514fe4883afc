"""Shell completion of verbs' arguments: recipes, checkpoints, runs and graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

RECIPES = (".yaml", ".yml")


def recipes(incomplete: str) -> list[str]:
    """Return the recipes and folders whose path begins with what was typed."""
    return _paths(incomplete, lambda path: path.suffix in RECIPES)


def checkpoints(incomplete: str) -> list[str]:
    """Return the folders and GGUF files whose path begins with what was typed."""
    return _paths(incomplete, lambda path: path.suffix == ".gguf")


def folders(incomplete: str) -> list[str]:
    """Return the folders whose path begins with what was typed."""
    return _paths(incomplete, lambda _: False)


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> list[str]:
    """Return the paths that complete the typed text: folders, with a final slash, and wanted files.

    What is in a folder is offered along with it where nothing else is: else bash would put a space after it.
    """
    found = list(_entries(incomplete, wanted))
    if len(found) == 1 and found[0].endswith("/") and found[0] != incomplete:
        found += _entries(found[0], wanted)
    return found


def _entries(incomplete: str, wanted: Callable[[Path], bool]) -> Iterator[str]:
    start, slash, beginning = incomplete.rpartition("/")
    try:
        entries = sorted(Path(f"{start}{slash}").expanduser().iterdir())
    except (OSError, RuntimeError):  # RuntimeError: a home that there is not
        return
    for entry in entries:
        hidden = entry.name.startswith(".") and not beginning.startswith(".")
        if hidden or not entry.name.startswith(beginning):
            continue
        if entry.is_dir():
            yield f"{start}{slash}{entry.name}/"
        elif wanted(entry):
            yield f"{start}{slash}{entry.name}"
