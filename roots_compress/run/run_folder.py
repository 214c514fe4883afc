"""The run folder: committed stages, the stage being made, and the files that describe the run.

    NAME/
      .roots-run.json         marker: this folder is ours
      recipe.yaml resolved.json metrics.json report.html
      search.json best.yaml   what a search has tried, and the best recipe it found
      failure.txt             of an unfinished run: the error that it ended with
      manifest.json           of a finished run: hashes of the above and of the stages' manifests
      NN-KIND/                a committed stage: checkpoint/ onnx/ metrics.json manifest.json
      .NN-KIND.partial/       one being made: key.json, work/ (to go on from), stage/ (to be committed)
      .NN-KIND.replaced/      one set aside while its successor takes its place
      .NN-KIND.discarded/     one being deleted
      shelf/                  the stage cache: stages that a search may come back to (`stage_cache.py`)

A commit syncs `stage/`, writes its manifest, sets aside what it replaces, and renames `stage/` to its final
name. If it is killed between any two of these steps, the run holds the old stages or the new one, never a
mixture: stages set aside without a successor are restored when the run is next opened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, get_args

from roots_compress.errors import InputError, RootsError, StageError, printable
from roots_compress.io import atomic
from roots_compress.io.disk import folder_bytes
from roots_compress.results import RunMetrics, StageKind
from roots_compress.run.folders import (
    key_text,
    remove_partials,
    stage_folders,
    unfinished_folders,
)
from roots_compress.run.keys import StageKey, asked_of, canonical_json
from roots_compress.run.lock import LOCK_NAME, OWNER_NAME, WriterLock
from roots_compress.run.manifest import MANIFEST_NAME, ManifestError, read_manifest
from roots_compress.run.marker import MARKER_NAME, marker_text, refuse_foreign
from roots_compress.run.outputs import ExtraFile, RunFile
from roots_compress.run.run_manifest import run_manifest_text
from roots_compress.run.stage_cache import StageCache
from roots_compress.run.stage_commit import MAX_STAGES, Workspace
from roots_compress.run.stages import (
    METRICS_NAME,
    CommittedStage,
    read_stages,
    stage_folder_name,
)

COVERED = (MARKER_NAME, *get_args(RunFile))
"""Files covered by a run's manifest, besides stages and files that only some runs have."""
FAILURE_NAME: Final = "failure.txt"
_MAX_FAILURE_BYTES = 1 << 20


class RunFolder:
    """A run folder open for writing by this process alone. Use as a context manager."""

    def __init__(self, path: Path, lock: WriterLock, made: Sequence[Path]) -> None:
        self.path = path
        self._lock = lock
        self._cache = StageCache(path)
        self._made = made
        """The folders that did not exist before, innermost first: the run's own, and its parents."""
        self._is_changed = False

    @classmethod
    def open(cls, path: Path, *, fresh: bool = False) -> Self:
        """Open or make a run folder, take its lock, and recover from a process that died in it.

        With `fresh`, delete the stages and descriptions of the existing run, and nothing else.

        Raises:
            InputError: the folder holds something that is not a run, another process is writing to it, or
                it cannot be written.
        """
        refuse_foreign(path)
        with atomic.disk_errors(path, InputError):
            made = atomic.make_folders(path)
            lock = WriterLock(path)
            lock.acquire()
        run = cls(path, lock, made)
        try:
            refuse_foreign(path)  # again: it may have changed before the lock was ours
            with atomic.disk_errors(path, InputError):
                if not (path / MARKER_NAME).exists():
                    atomic.write_text(path / MARKER_NAME, marker_text())
                    atomic.sync_directory(path.parent)
                run._recover()
                if fresh:
                    run._clear()
        except BaseException:
            lock.release()
            raise
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, InputError) and self._made and not self.stages():
            self._unmake()
        elif isinstance(error, RootsError) and self._is_changed:
            with suppress(RootsError):  # The disk may have failed.
                self.write_text(FAILURE_NAME, printable(f"{error}\n"))
        self._lock.release()

    def stages(self) -> list[CommittedStage]:
        """Return the chain of committed stages (`read_stages` also gives those left out, with reasons)."""
        return read_stages(self.path)[0]

    def begin(self, index: int, kind: StageKind, name: str, key: StageKey) -> Workspace:
        """Return a workspace for the stage at `index`; the existing stage stays until the commit.

        Raises:
            StageError: the disk failed, or a stage before it is not usable any more.
        """
        assert index < MAX_STAGES
        chain, left_out = read_stages(self.path)
        chain = chain[:index]
        if len(chain) < index:
            why = "; ".join(f"{name}: {fault}" for name, fault in left_out.items())
            raise StageError(
                f"stage {index:02d} has lost a stage it builds on: {why or 'it is gone'}",
                where=self.path,
                remedy="Give the same command again: what is missing is made again.",
                transient=True,
            )
        assert key.parent == (chain[-1].key.asked if chain else None), "the key names another parent"
        workspace = Workspace(self.path, index, kind, name, key)
        with atomic.disk_errors(self.path, StageError):
            self._reopen()
            if self._cache.exists and not workspace.was_committed:
                self._displace(index)
            workspace.prepare()
        return workspace

    def reclaimable_bytes(self) -> int:
        """Return the bytes of unfinished stages; the next stage continues or deletes them."""
        partials = [folder for folder, *_, state in unfinished_folders(self.path) if state == "partial"]
        return sum(map(folder_bytes, partials))

    @property
    def keeps_displaced(self) -> bool:
        """Whether a replaced stage is kept, for `restore`."""
        return self._cache.exists

    def keep_displaced(self) -> None:
        """From now on, permanently keep replaced stages."""
        with atomic.disk_errors(self.path, StageError):
            self._cache.make()

    def restore(self, index: int, key: StageKey) -> CommittedStage | None:
        """Put a kept stage back at `index`, replacing the stage there and those after it.

        Return None, and move nothing, if no intact stage with this key is kept.
        """
        with atomic.disk_errors(self.path, StageError):
            stage = self._cache.find(key)
            if stage is None:
                return None
            assert stage.index == index
            self._reopen()
            self._displace(index)
            return self._cache.take(stage)

    def _displace(self, first: int) -> None:
        """Move the stages from this index on to the cache; last first, so that the rest is always a chain."""
        for folder in stage_folders(self.path, first):
            self._cache.put(folder)

    def discard(self, first: int) -> None:
        """Delete the stages from this index on, as for a shorter recipe, or move them to the cache."""
        with atomic.disk_errors(self.path, StageError):
            self._reopen()
            if self._cache.exists:
                self._displace(first)
            for folder in stage_folders(self.path, first):
                doomed = self.path / f".{folder.name}.discarded"
                atomic.remove_folder(doomed)
                atomic.move_folder(folder, doomed)
                atomic.remove_folder(doomed)
            remove_partials(self.path, range(first, MAX_STAGES))

    def write_text(self, name: RunFile | ExtraFile, text: str) -> None:
        """Write one of the files that describe the run, completely or not at all."""
        with atomic.disk_errors(self.path, StageError):
            self._reopen()
            atomic.write_text(self.path / name, text)

    def write_metrics(self, metrics: RunMetrics) -> None:
        """Write `metrics.json`."""
        self.write_text(METRICS_NAME, json.dumps(metrics.to_json(), indent=2, allow_nan=False) + "\n")

    def finish(self) -> None:
        """Write the run's manifest, which ends the run: `run_manifest_faults` finds any later change."""
        with atomic.disk_errors(self.path, StageError):
            stages = [stage.path.name for stage in self.stages()]
            atomic.write_text(
                self.path / MANIFEST_NAME, run_manifest_text(self.path, covered_files(self.path), stages)
            )

    def _reopen(self) -> None:
        """Remove the run's manifest, durably, before a covered file changes."""
        self._is_changed = True
        manifest = self.path / MANIFEST_NAME
        if manifest.exists():
            manifest.unlink()
            atomic.sync_directory(self.path)

    def _recover(self) -> None:
        """Bring the folder to the old or to the new state after a process died in it."""
        (self.path / FAILURE_NAME).unlink(missing_ok=True)
        unfinished = unfinished_folders(self.path)
        replaced = [(index, kind, folder) for folder, index, kind, state in unfinished if state == "replaced"]
        committed = {int(folder.name[:2]) for folder in stage_folders(self.path, 0)}
        has_successor = bool(replaced) and replaced[0][0] in committed
        for index, kind, folder in replaced if not has_successor else reversed(replaced):
            if has_successor:
                atomic.remove_folder(folder)
            else:
                atomic.move_folder(folder, self.path / stage_folder_name(index, kind))
        for folder, index, kind, state in unfinished:
            if state == "discarded":
                atomic.remove_folder(folder)
            elif state == "partial":
                key = key_text(folder)
                if key is None or key == _key_of(self.path / stage_folder_name(index, kind)):
                    # Its commit was complete, or nothing can be continued.
                    remove_partials(self.path, [index])

    def _clear(self) -> None:
        """Delete the run's own files and stages, and nothing else."""
        self._reopen()
        for name in (*get_args(RunFile), *get_args(ExtraFile)):
            (self.path / name).unlink(missing_ok=True)
        self._cache.clear()
        self.discard(0)
        atomic.sync_directory(self.path)

    def _unmake(self) -> None:
        """Remove a run that was made for a request that proved impossible."""
        with suppress(OSError):  # The user needs the reason for that, not this error.
            self._clear()
            for name in (MARKER_NAME, OWNER_NAME, LOCK_NAME):
                (self.path / name).unlink(missing_ok=True)
            atomic.remove_empty(self._made)


def covered_files(run: Path) -> tuple[str, ...]:
    """Return the names of the files that a run's manifest covers."""
    return (*COVERED, *(name for name in get_args(ExtraFile) if (run / name).exists()))


def why_unfinished(run: Path) -> str | None:
    """Return why a run is not finished: the error of its last attempt, or where it was stopped.

    None if it is finished, or if there is no run. No lock is needed.
    """
    if not (run / MARKER_NAME).is_file() or (run / MANIFEST_NAME).exists():
        return None
    with suppress(OSError):
        said = atomic.read_regular(run / FAILURE_NAME, _MAX_FAILURE_BYTES)
        return printable(said.decode("utf-8", errors="replace"))
    partial = [folder.name for folder, *_, state in unfinished_folders(run) if state == "partial"]
    stages = " and ".join(name[1:].partition(".")[0] for name in partial)
    return f"the run was stopped{f' in {stages}' if stages else ''}, or still goes on"


def _key_of(stage: Path) -> str | None:
    """Return the ingredients of a committed stage as `key_text` does those of an unfinished one."""
    try:
        return canonical_json(asked_of(read_manifest(stage).key.ingredients))
    except ManifestError:
        return None
