"""Texts for corpora: words drawn at random, as prose that every filter lets pass."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path


def prose(seed: int, words: int = 120) -> str:
    """Return sentences of made-up words."""
    drawn = random.Random(seed)
    found = ["".join(drawn.choices("abcdefghilmnoprstu", k=drawn.randint(3, 9))) for _ in range(words)]
    return " ".join(word + "." * (number % 12 == 11) for number, word in enumerate(found))


def jsonl(path: Path, texts: Iterable[str]) -> Path:
    """Write a record for each text."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
