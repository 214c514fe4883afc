"""The stage cache of a run: committed stages outside its chain, which a search may reuse.

    shelf/KEY/NN-KIND/        a committed stage, as it was in the run; KEY begins what was asked of it

A stage enters and leaves the cache by one rename, so it is on the disk once at any moment.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from roots_compress.io import atomic
from roots_compress.run.keys import StageKey
from roots_compress.run.manifest import ManifestError, read_manifest
from roots_compress.run.stages import STAGE_FOLDER, CommittedStage, read_stage, verify

FOLDER_NAME = "shelf"


class StageCache:
    """The stage cache of one run; it exists once `make` was called."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self.path = run / FOLDER_NAME

    @property
    def exists(self) -> bool:
        """Whether the run keeps replaced stages."""
        return self.path.is_dir()

    def make(self) -> None:
        """Create the cache."""
        self.path.mkdir(exist_ok=True)
        atomic.sync_directory(self._run)

    def put(self, folder: Path) -> None:
        """Move a stage's folder from the run into the cache; one without a readable manifest is deleted."""
        try:
            manifest = read_manifest(folder)
        except ManifestError:
            atomic.remove_folder(folder)
            return
        place = self._place(manifest.key) / folder.name
        atomic.remove_folder(place)
        place.parent.mkdir(exist_ok=True)
        atomic.sync_directory(self.path)
        atomic.move_folder(folder, place)

    def find(self, key: StageKey) -> CommittedStage | None:
        """Return the stage with a key, every byte of it checked.

        A changed one stays, for its manifest, until the stage is committed again.
        """
        for folder in self.folders(key):
            with suppress(ManifestError):
                stage = read_stage(folder)
                if stage.key.asked == key.asked and not verify(stage):
                    return stage
        return None

    def holds(self, key: StageKey) -> bool:
        """Whether a stage with a key seems to exist; nothing is read."""
        return bool(self.folders(key))

    def take(self, stage: CommittedStage) -> CommittedStage:
        """Move a stage that `find` returned back into the run; its place must be free."""
        atomic.move_folder(stage.path, self._run / stage.path.name)
        atomic.remove_folder(stage.path.parent)
        return read_stage(self._run / stage.path.name)

    def remove(self, key: StageKey) -> None:
        """Delete the stage with a key."""
        atomic.remove_folder(self._place(key))

    def clear(self) -> None:
        """Delete the cache."""
        atomic.remove_folder(self.path)

    def folders(self, key: StageKey) -> list[Path]:
        """Return the folders under a key, intact or not."""
        place = self._place(key)
        return (
            [path for path in place.iterdir() if STAGE_FOLDER.fullmatch(path.name)] if place.is_dir() else []
        )

    def _place(self, key: StageKey) -> Path:
        return self.path / key.asked[:16]
