"""A run's folders during the replacement of stages: committed ones, and those being made or deleted.

Their names, `.NN-KIND.partial` and the like, are explained in `run_folder.py`.
"""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

from roots_compress.io import atomic
from roots_compress.results import StageKind
from roots_compress.run.stages import STAGE_FOLDER, is_stage

KEY_NAME = "key.json"
_MAX_KEY_BYTES = 16 << 20
_UNFINISHED = re.compile(rf"\.{STAGE_FOLDER.pattern}\.(partial|replaced|discarded)")


def stage_folders(run: Path, first: int) -> list[Path]:
    """Return the folders with a stage's name from this index on, last first."""
    folders = [path for path in run.iterdir() if is_stage(path)]
    return sorted((path for path in folders if int(path.name[:2]) >= first), reverse=True)


def unfinished_folders(run: Path) -> list[tuple[Path, int, StageKind, str]]:
    """Return folder, index, kind and state of unfinished commits and deletions, in order."""
    found = []
    for folder in sorted(run.iterdir()):
        if match := _UNFINISHED.fullmatch(folder.name):
            found.append((folder, int(match[1]), match[2], match[3]))
    return found


def set_aside(run: Path, indices: range) -> list[Path]:
    """Rename the stages at these indices aside, last first; return their new paths.

    Delete them in this order, the lowest index last. After a crash, a folder at the lowest index means that
    the replacement was committed (`RunFolder` in `run_folder.py` recovers by that).
    """
    aside = []
    for folder in stage_folders(run, indices.start):
        if int(folder.name[:2]) in indices:
            place = run / f".{folder.name}.replaced"
            atomic.move_folder(folder, place)
            aside.append(place)
    return aside


def remove_partials(run: Path, indices: Container[int]) -> None:
    """Delete the unfinished stages at these indices; keys first, because a partial stage is useless."""
    for folder, index, _, state in unfinished_folders(run):
        if state == "partial" and index in indices:
            if not folder.is_symlink():
                (folder / KEY_NAME).unlink(missing_ok=True)
                atomic.sync_directory(folder)
            atomic.remove_folder(folder)


def key_text(partial: Path) -> str | None:
    """Return the ingredients with which an unfinished stage was begun; None if they cannot be read."""
    if partial.is_symlink():
        return None
    try:
        return atomic.read_regular(partial / KEY_NAME, _MAX_KEY_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
