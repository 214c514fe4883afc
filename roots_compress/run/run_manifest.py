"""The manifest of a finished run: hashes of the files that describe it and of its stages' manifests.

It is written last and removed before anything changes, so a run that has one is finished. Each stage's
manifest covers the stage's own files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from roots_compress.io.atomic import read_regular
from roots_compress.results import Json
from roots_compress.run.keys import canonical_json, with_sha256
from roots_compress.run.manifest import MANIFEST_NAME, record_file

SCHEMA = 1
_MAX_BYTES = 16 << 20


def run_manifest_text(run: Path, files: Iterable[str], stages: Iterable[str]) -> str:
    """Return the manifest of a run's folder in its current state."""
    names = [*files, *(f"{stage}/{MANIFEST_NAME}" for stage in stages)]
    records: dict[str, Json] = {name: dict(asdict(record_file(run / name))) for name in names}
    document: dict[str, Json] = {"schema": SCHEMA, "files": records}
    return canonical_json(with_sha256(document)) + "\n"


def run_manifest_faults(run: Path, files: Iterable[str], stages: Iterable[str]) -> list[str]:
    """Return what is wrong with a run's descriptions, one line each; an empty list means intact."""
    try:
        text = read_regular(run / MANIFEST_NAME, _MAX_BYTES).decode("ascii")
        expected = {str(name): record for name, record in dict(json.loads(text)["content"]["files"]).items()}
    except FileNotFoundError:
        return [f"the run is not finished, or its {MANIFEST_NAME} was removed"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return [f"{MANIFEST_NAME} unreadable ({type(error).__name__})"]
    try:
        actual_text = run_manifest_text(run, files, stages)
    except OSError as error:
        return [f"{error.filename}: {error.strerror}"]
    if actual_text == text:
        return []
    actual = json.loads(actual_text)["content"]["files"]
    names = sorted({*actual, *expected})
    changed = [
        f"{name} changed since the run was finished"
        for name in names
        if actual.get(name) != expected.get(name)
    ]
    return changed or [f"{MANIFEST_NAME} changed since it was written"]
