"""What a malformed input is: files in a folder, a command that meets them, and what must be said."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

USAGE = 2
"""The exit code of a request that cannot be carried out."""
ON_TEXT = ("--data", "prose", "--block-size", "32", "--windows", "4", "--threads", "1")
"""Options under which a good model and good text would be accepted."""


@dataclass(frozen=True)
class Request:
    """A command that must be refused."""

    arguments: tuple[str, ...]
    names: str
    """What the message must name: the file, the option or the key at fault."""
    says: str = ""
    """A word of the cause, where it is known which."""


@dataclass(frozen=True)
class Bench:
    """A folder in which one case is made."""

    folder: Path
    good: Path
    """The folder of undamaged inputs (`materials.py`), only ever copied from."""
    random: random.Random

    def take(self, name: str, to: str | None = None) -> Path:
        """Copy an undamaged input into the case's folder."""
        target = self.folder / (to or name)
        source = self.good / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
        return target

    def write(self, name: str, content: str | bytes) -> Path:
        """Write an input of the case."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
        return path


@dataclass(frozen=True)
class Generator:
    """A way of making malformed inputs."""

    name: str
    classes: tuple[int, ...]
    """Of `classes.CLASSES`."""
    make: Callable[[Bench], Request]
    variants: int
    """How many different inputs it can make, at the most; above a hundred, as many as one likes."""


def seeded(generator: Generator, seed: int, number: int) -> random.Random:
    """Return the randomness of a case, which no other case shares."""
    return random.Random(f"{seed}/{generator.name}/{number}")
