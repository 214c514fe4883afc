"""A teacher's targets on disk: made once, and read by every epoch, stage and run that needs the same.

    CACHE/3f2a.../cache.json                  the teacher and settings, and the hash of each part
    CACHE/3f2a.../part-00000.safetensors      of some windows: the k most probable tokens at every scored
                                              position, and the log-probabilities of these and of all others

A folder of caches may hold those of several teachers, texts and settings: each has its own folder, named by
the hash of everything that its content depends on. Parts are written under another name, synced, renamed, and
then entered in `cache.json`. So an interrupted cache goes on with the first missing part, and a damaged part
is made again. Log-probabilities are float16, token ids have 16 bits if the vocabulary allows: 258 bytes a
position at k = 64.

Shape legend: N positions, k kept tokens, K = k + 1 outcomes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from roots_compress.errors import InputError, StageError
from roots_compress.io.atomic import read_regular, sync_directory, sync_file, system_errors, write_text
from roots_compress.io.disk import file_sha256, free_disk
from roots_compress.io.names import in_utf8
from roots_compress.results import Json
from roots_compress.run.keys import canonical_json, explain_change, hash_json

SCHEMA = 1
FACTS, LOCK = "cache.json", ".lock"
PART_POSITIONS = 1 << 15
"""Approximate positions in a part: the most that an interruption loses."""
_MAX_FACTS_BYTES = 16 << 20


@dataclass(frozen=True)
class Part:
    """Consecutive windows in one file."""

    name: str
    first: int
    stop: int


@dataclass(frozen=True)
class TopK:
    """A teacher's targets at N positions."""

    tokens_Nk: Tensor
    """int64, most probable first."""
    log_probs_NK: Tensor
    """float32, normalised: of these tokens, and of all others together."""

    def to(self, device: str | torch.device) -> TopK:
        """Return the targets on a device."""
        return TopK(self.tokens_Nk.to(device), self.log_probs_NK.to(device))


class TeacherCache:
    """The targets of one teacher on one text. `missing` lists the parts still to be written.

    Args:
        folder: a folder of caches, or one cache; it need not exist.
        identity: everything the targets depend on, by name.
        scored_counts: the number of scored positions of each window.
        vocab_size: decides the width of token ids.

    Raises:
        InputError: the folder cannot be used, or is the cache of another teacher, text or setting.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Json],
        scored_counts: NDArray[np.int64],
        *,
        top_k: int,
        vocab_size: int,
    ) -> None:
        self.identity: dict[str, Json] = {"schema": SCHEMA, **identity}
        self.sha256 = hash_json(self.identity)
        self.folder = folder if (folder / FACTS).exists() else folder / self.sha256[:16]
        self._top_k = top_k
        self.vocab_size = vocab_size
        self._ids = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        self._offsets = np.concatenate(([0], np.cumsum(scored_counts)))
        self._windows_each = max(1, PART_POSITIONS // int(scored_counts.max()))
        self.parts = tuple(
            Part(f"part-{number:05d}.safetensors", first, min(first + self._windows_each, len(scored_counts)))
            for number, first in enumerate(range(0, len(scored_counts), self._windows_each))
        )
        self._hashes = self._read_facts()
        self._open: dict[str, Any] = {}

    @property
    def position_bytes(self) -> int:
        """Bytes that a position takes."""
        return self._top_k * np.dtype(self._ids).itemsize + (self._top_k + 1) * np.dtype(np.float16).itemsize

    def missing(self) -> list[Part]:
        """Return the missing or damaged parts; every file is read and hashed."""
        return [part for part in self.parts if not self._holds(part)]

    def found(self) -> dict[str, Json]:
        """Return the current hash of each part's file; None if it is missing."""
        paths = {part.name: self.folder / part.name for part in self.parts}
        return {name: file_sha256(path) if path.is_file() else None for name, path in paths.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Return everything except open files, which another process opens itself."""
        return {**vars(self), "_open": {}}

    def missing_bytes(self) -> int:
        """Return the bytes still to be written, without headers."""
        return sum(self._positions(part) for part in self.missing()) * self.position_bytes

    def require_disk(self) -> None:
        """Check that the disk has room for the missing parts.

        Raises:
            InputError: there is not.
        """
        needed, free = self.missing_bytes(), free_disk(self.folder)
        if needed > free:
            raise InputError(
                f"the teacher's targets take {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free",
                where=self.folder,
                remedy=f"Lower top_k (each of its tokens takes {self.position_bytes / self._top_k:.0f} bytes "
                "a position), name another folder as cache, or make room.",
                transient=True,
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within the block only this process may add parts.

        Raises:
            InputError: another process is doing so, or the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK, timeout=0)
            lock.acquire()
        except Timeout:
            raise InputError(
                "another process is making this teacher cache",
                where=self.folder,
                remedy="Wait for it to end; the same command then finds the cache finished.",
                transient=True,
            ) from None
        except OSError as error:
            raise InputError(
                f"the teacher cache cannot be made: {error.strerror or error}",
                where=self.folder,
                remedy="Name another folder as cache.",
                transient=True,
            ) from error
        try:
            self._hashes = self._read_facts()
            yield
        finally:
            lock.release()

    def write(self, part: Part, tokens_Nk: Tensor, log_probs_NK: Tensor) -> None:
        """Add a part, durably.

        Raises:
            StageError: the disk failed; the parts before are safe.
        """
        assert tokens_Nk.shape == (self._positions(part), self._top_k)
        assert log_probs_NK.shape == (self._positions(part), self._top_k + 1)
        path = self.folder / part.name
        beside = path.with_name(f".{part.name}.tmp")
        try:
            beside.unlink(missing_ok=True)
            with system_errors(beside):
                save_file(
                    {
                        "tokens": tokens_Nk.cpu().numpy().astype(self._ids),
                        "log_probs": log_probs_NK.cpu().numpy().astype(np.float16),
                    },
                    beside,
                )
            sync_file(beside)
            beside.replace(path)
            sync_directory(self.folder)
            self._hashes[part.name] = file_sha256(path)
            facts: dict[str, Json] = {"identity": self.identity, "parts": dict(self._hashes)}
            write_text(self.folder / FACTS, canonical_json(facts) + "\n")
        except OSError as error:
            raise StageError(
                f"the teacher's targets cannot be written: {error.strerror or error}",
                where=path,
                remedy="Make room there and give the same command again: it goes on from the last part.",
                transient=True,
            ) from error

    def read(self, rows: Sequence[int]) -> TopK:
        """Return the targets of windows, one window after another."""
        tokens, log_probs = zip(*(self._window(row) for row in rows), strict=True)
        # Rounded to 11 bits each, the log-probabilities no longer sum to one exactly.
        wide = torch.from_numpy(np.concatenate(log_probs).astype(np.float32))
        return TopK(torch.from_numpy(np.concatenate(tokens).astype(np.int64)), wide.log_softmax(dim=-1))

    def _window(self, row: int) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        part = self.parts[row // self._windows_each]
        if part.name not in self._open:
            with in_utf8(self.folder) as folder:
                self._open[part.name] = safe_open(folder / part.name, framework="np")
        start = int(self._offsets[row] - self._offsets[part.first])
        stop = int(self._offsets[row + 1] - self._offsets[part.first])
        stored = self._open[part.name]
        return stored.get_slice("tokens")[start:stop], stored.get_slice("log_probs")[start:stop]

    def _holds(self, part: Part) -> bool:
        path, recorded = self.folder / part.name, self._hashes.get(part.name)
        return recorded is not None and path.is_file() and file_sha256(path) == recorded

    def _positions(self, part: Part) -> int:
        return int(self._offsets[part.stop] - self._offsets[part.first])

    def _read_facts(self) -> dict[str, str]:
        """Return the hash of each finished part, after checking the cache's teacher and text."""
        try:
            facts = json.loads(read_regular(self.folder / FACTS, _MAX_FACTS_BYTES))
            found, hashes = dict(facts["identity"]), dict(facts["parts"])
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"is no teacher cache that can be read ({type(error).__name__})",
                where=self.folder / FACTS,
                remedy="Delete this cache, or name another folder; it will be made again.",
                transient=True,
            ) from None
        if found != self.identity:
            raise InputError(
                "the cache belongs to another teacher, text or setting: "
                + "; ".join(explain_change(found, self.identity)),
                where=self.folder,
                remedy="Name another folder as cache, or delete this one.",
                transient=True,
            )
        return hashes
