"""The state of a training run on disk, in safetensors and JSON: exact, atomic, and checked when read.

    work/step-00000100/state.safetensors    weights, optimizer moments, random state
    work/step-00000100/state.json           position, loss scale, running losses, the hash of the file above,
                                            and one of all this

A folder is written under another name, synced, and renamed, so a folder with its final name is complete. The
newest two are kept: if the newest is damaged, the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from roots_compress.checkpoints.readback import require_written
from roots_compress.io.atomic import move_folder, read_regular, remove_folder, sync_tree, write_text
from roots_compress.io.disk import file_sha256
from roots_compress.io.names import in_utf8
from roots_compress.results import Json
from roots_compress.run.keys import canonical_json, checked_content, with_sha256

SCHEMA = 4
KEPT = 2
TENSORS, FACTS = "state.safetensors", "state.json"
_MAX_FACTS_BYTES = 1 << 20


@dataclass(frozen=True)
class SavedState:
    """Everything that a training needs to go on exactly as if it had not stopped."""

    step: int
    """Optimizer steps done."""
    tensors: dict[str, Tensor]
    facts: dict[str, Json]


def save_state(work: Path, state: SavedState, fingerprint: str) -> None:
    """Write a state durably, then remove all except the newest ones.

    Raises:
        OSError, SafetensorError: the disk failed, or changed the tensors. Earlier states are not changed.
    """
    final = work / f"step-{state.step:08d}"
    beside = work / f".{final.name}.tmp"
    for folder in work.glob(".step-*.tmp"):
        remove_folder(folder)  # left by a dead process
    beside.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in state.tensors.items()}, beside / TENSORS)
    require_written(beside / TENSORS, state.tensors)
    document: dict[str, Json] = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "step": state.step,
        "sha256": file_sha256(beside / TENSORS),
        "facts": state.facts,
    }
    write_text(beside / FACTS, canonical_json(with_sha256(document)))
    sync_tree(beside)
    remove_folder(final)
    move_folder(beside, final)
    for folder in list(_newest_first(work))[KEPT:]:
        remove_folder(folder)


def load_state(work: Path, fingerprint: str) -> SavedState | None:
    """Return the newest undamaged state of this training, or None.

    A state with another fingerprint belongs to other weights, text or settings, and is ignored.
    """
    for folder in _newest_first(work):
        state = _read(folder, fingerprint)
        if state is not None:
            return state
    return None


def fingerprint_of(facts: Mapping[str, Json], tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over settings and tensors: their names, dtypes, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(folder: Path, fingerprint: str) -> SavedState | None:
    try:
        document: Any = checked_content(read_regular(folder / FACTS, _MAX_FACTS_BYTES))
        if document["schema"] != SCHEMA or document["fingerprint"] != fingerprint:
            return None
        if document["sha256"] != file_sha256(folder / TENSORS):
            return None
        with in_utf8(folder) as alias:
            tensors = load_file(alias / TENSORS)
        return SavedState(int(document["step"]), tensors, document["facts"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None


def _newest_first(work: Path) -> Iterator[Path]:
    return iter(sorted(work.glob("step-*"), reverse=True))
