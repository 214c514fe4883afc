"""A stage being made: its folders in the run, and the commit that publishes them.

`run_folder.py` describes the steps of a commit, and the run's state after a kill.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from roots_compress.errors import StageError
from roots_compress.io import atomic
from roots_compress.results import SCHEMA, Json, StageKind, StageResult
from roots_compress.run.folders import KEY_NAME, key_text, remove_partials, set_aside
from roots_compress.run.keys import StageKey, canonical_json
from roots_compress.run.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestError,
    list_files,
    read_manifest,
    record_file,
)
from roots_compress.run.stage_cache import StageCache
from roots_compress.run.stages import METRICS_NAME, CommittedStage, stage_folder_name

MAX_STAGES = 100
"""Most stages in a run, for two digits."""


class Workspace:
    """A stage being made: folders to fill, and the commit that publishes them together.

    `checkpoint` and `onnx` are new and empty each time; `work` keeps the files of an interrupted attempt at
    the same stage (an equal key), and is deleted at the commit.
    """

    def __init__(self, run: Path, index: int, kind: StageKind, name: str, key: StageKey) -> None:
        self._run = run
        self._index, self._kind, self._name, self._key = index, kind, name, key
        self._cache = StageCache(run)
        self._final = run / stage_folder_name(index, kind)
        self._partial = run / f".{self._final.name}.partial"
        self._stage = self._partial / "stage"
        self.work = self._partial / "work"
        """Folder for the state from which an interrupted stage goes on."""
        self.checkpoint = self._stage / "checkpoint"
        """Where the stage's checkpoint goes."""
        self.onnx = self._stage / "onnx"
        """Where the stage's graph goes."""
        self.final_onnx = f"{self._final.name}/onnx"
        """That folder's path in the run once committed."""

    @property
    def was_committed(self) -> bool:
        """Whether the same stage was committed here before; its files may be damaged."""
        manifest = _manifest_of(self._final)
        return manifest is not None and manifest.key.asked == self._key.asked

    def prepare(self) -> None:
        """Make the folders, keeping the work of an interrupted attempt with the same key."""
        if key_text(self._partial) == canonical_json(self._key.ingredients):
            atomic.remove_folder(self._stage)
        else:
            remove_partials(self._run, [self._index])
            self._partial.mkdir()
            atomic.write_text(self._partial / KEY_NAME, canonical_json(self._key.ingredients))
        for folder in (self.work, self._stage, self.checkpoint, self.onnx):
            folder.mkdir(exist_ok=True)
        atomic.sync_directory(self._partial)
        atomic.sync_directory(self._run)

    @property
    def chosen(self) -> dict[str, Json] | None:
        """The choices by timing of the same stage, if it was committed before."""
        for folder in (self._final, *self._cache.folders(self._key)):
            manifest = _manifest_of(folder)
            if manifest is not None and manifest.key.asked == self._key.asked:
                return manifest.key.chosen
        return None

    def commit(
        self,
        result: StageResult,
        *,
        machine: Mapping[str, Json],
        inputs: Mapping[str, str] | None = None,
        chosen: Mapping[str, Json] | None = None,
    ) -> CommittedStage:
        """Publish the stage, replacing any at its index and those made from it.

        If the same stage was made again because of damaged files, and its checkpoint came out the same, those
        after it stay.

        Raises:
            StageError: the disk failed, a figure is not finite, or the folders hold links. What was
                committed before is untouched.
        """
        assert (result.index, result.kind, result.name) == (self._index, self._kind, self._name)
        try:
            metrics = canonical_json({"schema": SCHEMA, **result.to_json()}) + "\n"
        except ValueError as error:
            raise StageError(
                "a figure of the stage is not a finite number",
                where=self._stage,
                remedy="Nothing was committed. Check the stage's settings: its model may be broken.",
            ) from error
        with atomic.disk_errors(self._run, StageError):
            atomic.write_text(self._stage / METRICS_NAME, metrics)
            manifest = Manifest(
                index=self._index,
                kind=self._kind,
                name=self._name,
                seconds=result.seconds,
                key=self._key if chosen is None else self._key.with_choice(chosen),
                inputs=dict(inputs or {}),
                machine=dict(machine),
                files={name: record_file(path) for name, path in self._synced_files().items()},
            )
            atomic.write_text(self._stage / MANIFEST_NAME, manifest.to_text())
            given_up = range(self._index, self._index + 1 if self._is_repeated(manifest) else MAX_STAGES)
            replaced = set_aside(self._run, given_up)
            atomic.move_folder(self._stage, self._final)
            for folder in replaced:
                atomic.remove_folder(folder)
            remove_partials(self._run, given_up)
            self._cache.remove(self._key)
        return CommittedStage(self._final, manifest, result)

    def _is_repeated(self, manifest: Manifest) -> bool:
        """Whether the stage was committed before with the same key and the same checkpoint."""
        old = _manifest_of(self._final)
        return old is not None and (old.key, old.checkpoint_files) == (
            manifest.key,
            manifest.checkpoint_files,
        )

    def _synced_files(self) -> dict[str, Path]:
        """Sync all files of the stage to disk, and return them."""
        try:
            files = list_files(self._stage)
        except ManifestError as error:
            raise StageError(
                f"the stage wrote what cannot be committed: {error}", where=self._stage
            ) from error
        atomic.sync_tree(self._stage)
        return files


def _manifest_of(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except ManifestError:
        return None
