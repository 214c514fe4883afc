"""Manifests: the files of a committed stage, and its origin.

A manifest is written last, so a stage exists once its manifest does. It has a hash of itself and one
canonical text, so that a flipped bit anywhere in a stage is found, also in the manifest.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from roots_compress.io.atomic import read_regular
from roots_compress.io.disk import file_sha256
from roots_compress.results import Json, StageKind
from roots_compress.run.keys import PARENT, StageKey, canonical_json, hash_json, with_sha256

MANIFEST_NAME = "manifest.json"
SCHEMA = 1
KIND = re.compile("[a-z][a-z0-9_]*")
"""Spelling of a kind of stage, which is part of its folder's name."""
_MAX_BYTES = 16 << 20  # far above any real manifest


class ManifestError(Exception):
    """A manifest that is damaged, or does not match its stage; the text says why."""


@dataclass(frozen=True)
class FileRecord:
    """One committed file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All that `manifest.json` of a stage holds."""

    index: int
    kind: StageKind
    name: str
    seconds: float
    key: StageKey
    inputs: dict[str, str]
    """sha256 of the stage's inputs from outside the run, by name."""
    machine: dict[str, Json]
    files: dict[str, FileRecord]
    """Every file of the stage but the manifest, by its path in the stage's folder, with forward slashes."""

    @property
    def checkpoint_files(self) -> dict[str, FileRecord]:
        """The files from which the next stage is made."""
        return {path: record for path, record in self.files.items() if path.startswith("checkpoint/")}

    def to_text(self) -> str:
        """Return the canonical text, which ends with the hash of everything before it."""
        document: dict[str, Json] = {
            "schema": SCHEMA,
            "index": self.index,
            "kind": self.kind,
            "name": self.name,
            "seconds": self.seconds,
            "key": self.key.sha256,
            "ingredients": self.key.ingredients,
            "inputs": dict(self.inputs),
            "machine": self.machine,
            "files": {path: asdict(record) for path, record in self.files.items()},
        }
        return canonical_json(with_sha256(document)) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """Read a manifest back.

        Raises:
            ManifestError: it is not a manifest of this schema, or not byte for byte as it was written.
        """
        try:
            document = json.loads(text)["content"]
            if document["schema"] != SCHEMA:
                raise ManifestError(f"manifest schema {document['schema']!r} is not {SCHEMA}")
            manifest = cls(
                index=int(document["index"]),
                kind=document["kind"],
                name=str(document["name"]),
                seconds=float(document["seconds"]),
                key=StageKey(dict(document["ingredients"]), str(document["key"])),
                inputs=dict(document["inputs"]),
                machine=dict(document["machine"]),
                files={path: FileRecord(**record) for path, record in document["files"].items()},
            )
            intact = (
                manifest.to_text() == text  # and with it the hash, which the text ends in
                and manifest.key.sha256 == hash_json(manifest.key.ingredients)
                and KIND.fullmatch(manifest.kind)
                and PARENT in manifest.key.ingredients
            )
        except (ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ManifestError(f"manifest unreadable ({type(error).__name__})") from error
        if not intact:
            raise ManifestError("manifest changed since it was written")
        return manifest


def read_manifest(stage: Path) -> Manifest:
    """Read the manifest of a stage's folder.

    Raises:
        ManifestError: there is none, or it is damaged.
    """
    try:
        return Manifest.from_text(read_regular(stage / MANIFEST_NAME, _MAX_BYTES).decode("ascii"))
    except FileNotFoundError:
        raise ManifestError("manifest missing") from None
    except OSError as error:
        raise ManifestError(f"manifest unreadable ({error.strerror or error})") from error
    except UnicodeDecodeError:
        raise ManifestError("manifest changed since it was written") from None


def list_files(stage: Path) -> dict[str, Path]:
    """Return every file below a folder by its relative path with forward slashes, in sorted order.

    Raises:
        ManifestError: something is neither a plain file nor a folder, such as a link.
    """
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(stage):
        for name in [*folders, *names]:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path.relative_to(stage).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                raise ManifestError(f"{path.relative_to(stage).as_posix()} is neither a file nor a folder")
    return dict(sorted(found.items()))


def record_file(path: Path) -> FileRecord:
    """Return size and hash of a file."""
    return FileRecord(bytes=path.stat().st_size, sha256=file_sha256(path))


def find_faults(stage: Path, manifest: Manifest, *, sha256: Callable[[Path], str] | None = None) -> list[str]:
    """Return what is wrong with a committed stage's files, one line each; an empty list means intact.

    Without `sha256`, which hashes a file, sizes alone are compared.
    """
    try:
        found = list_files(stage)
    except (OSError, ManifestError) as error:
        return [str(error)]
    found.pop(MANIFEST_NAME, None)
    faults = [f"{name} is not in the manifest" for name in found if name not in manifest.files]
    for name, record in manifest.files.items():
        path = found.get(name)
        if path is None:
            faults.append(f"{name} is missing")
            continue
        try:
            found_hash = record.sha256 if sha256 is None else sha256(path)
            actual = FileRecord(path.stat().st_size, found_hash)
        except OSError as error:
            faults.append(f"{name} cannot be read ({error.strerror})")
            continue
        if actual.bytes != record.bytes:
            faults.append(f"{name} has {actual.bytes} bytes, not {record.bytes}")
        elif actual.sha256 != record.sha256:
            faults.append(f"{name} changed since it was committed")
    return faults
