"""Committed stages as found on disk. Reading needs no lock, and nothing here writes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roots_compress.errors import InputError
from roots_compress.io.atomic import read_regular, real_path
from roots_compress.io.disk import file_sha256
from roots_compress.results import RunMetrics, StageKind, StageResult
from roots_compress.run.keys import StageKey
from roots_compress.run.manifest import (
    KIND,
    MANIFEST_NAME,
    Manifest,
    ManifestError,
    find_faults,
    read_manifest,
)
from roots_compress.run.marker import MARKER_NAME
from roots_compress.run.outputs import enclosing_run

METRICS_NAME: Final = "metrics.json"
STAGE_FOLDER = re.compile(rf"(\d\d)-({KIND.pattern})")
_MAX_METRICS_BYTES = 64 << 20


@dataclass(frozen=True)
class CommittedStage:
    """A stage whose manifest is intact and whose files have the recorded sizes."""

    path: Path
    manifest: Manifest
    result: StageResult

    @property
    def index(self) -> int:
        """Place in the chain, from 0."""
        return self.manifest.index

    @property
    def kind(self) -> StageKind:
        """The kind of stage."""
        return self.manifest.kind

    @property
    def name(self) -> str:
        """Label at the time of the commit."""
        return self.manifest.name

    @property
    def key(self) -> StageKey:
        """What the result depends on."""
        return self.manifest.key

    @property
    def checkpoint(self) -> Path:
        """Folder of the checkpoint the stage made."""
        return self.path / "checkpoint"

    @property
    def onnx(self) -> Path:
        """Folder of the graph the stage made."""
        return self.path / "onnx"


def is_stage(folder: Path) -> bool:
    """Whether a folder is a stage, possibly damaged, and not the user's folder of the same name."""
    parts = (MANIFEST_NAME, "checkpoint", "onnx")
    return bool(STAGE_FOLDER.fullmatch(folder.name)) and any((folder / part).exists() for part in parts)


def verify(stage: CommittedStage, sha256: Callable[[Path], str] = file_sha256) -> list[str]:
    """Compare every file of a stage with its hash; return the changes since the commit, one line each."""
    return find_faults(stage.path, stage.manifest, sha256=sha256)


def read_stages(run: Path) -> tuple[list[CommittedStage], dict[str, str]]:
    """Return a run's chain of committed stages, and by name why other stage folders were left out.

    The chain begins at index 0 and continues while each stage was made from the one before it. Sizes
    are compared, contents are not (`verify` does that). No lock is needed.
    """
    chain: list[CommittedStage] = []
    left_out: dict[str, str] = {}
    for folder in sorted(run.iterdir()) if os.path.isdir(run) else []:  # noqa: PTH112 (raises for no name)
        if not is_stage(folder):
            continue
        try:
            stage = read_stage(folder)
        except ManifestError as error:
            left_out[folder.name] = str(error)
            continue
        if stage.index != len(chain):
            left_out[folder.name] = f"no usable stage {len(chain):02d} before it"
        elif stage.key.parent != (chain[-1].key.asked if chain else None):
            left_out[folder.name] = f"made from another stage {stage.index - 1:02d} than the one here"
        else:
            chain.append(stage)
    return chain, left_out


def newest_checkpoint(run: Path) -> Path:
    """Return the checkpoint of a run's last stage.

    Raises:
        InputError: there is no run, or it has no usable stage.
    """
    chain, left_out = read_stages(run)
    if not chain:
        because = "".join(f": {name}: {why}" for name, why in list(left_out.items())[:1])
        raise InputError(
            f"there is no finished stage to take a checkpoint from{because}",
            where=run,
            remedy="Name a checkpoint, or make one first: roots-compress run RECIPE",
        )
    return chain[-1].checkpoint


def read_metrics(run: Path) -> RunMetrics:
    """Return a run's figures, from its folder or from a stored file.

    Raises:
        InputError: there are none, or the file is malformed.
    """
    path = figures_file(run)
    around, folder = enclosing_run(path), path.parent
    if around and STAGE_FOLDER.fullmatch(real_path(folder).name) and not (folder / MARKER_NAME).exists():
        raise InputError("is a stage of a run", where=run, remedy=f"Name the run: {around}")
    try:
        return RunMetrics.from_json(json.loads(read_regular(path, _MAX_METRICS_BYTES)))
    except (FileNotFoundError, NotADirectoryError):
        message, remedy = "there is no finished run here", "Run a recipe first, or name another folder."
        if (folder / MARKER_NAME).exists():
            message = "the run here is not finished"
            remedy = "Give its command again: it goes on. report --format junit says how far it came."
        raise InputError(message, where=run, remedy=remedy) from None
    except (OSError, ValueError, RecursionError) as error:
        raise figures_error(run, str(error)) from None


def figures_file(run: Path) -> Path:
    """Return the file of a run's figures: the path itself, unless it is a folder."""
    is_file = run.suffix == ".json" and not os.path.isdir(run)  # noqa: PTH112 (raises for no name)
    return run if is_file else run / METRICS_NAME


def figures_error(run: Path, fault: str) -> InputError:
    """Return the error for faulty figures of a run."""
    return InputError(
        f"cannot be read as the figures of a run ({fault})",
        where=figures_file(run),
        remedy="Give the run's command again: finished stages are kept, and the file is written anew.",
    )


def read_stage(folder: Path) -> CommittedStage:
    """Return the stage in a folder; sizes are compared, contents are not.

    Raises:
        ManifestError: it is not an intact committed stage.
    """
    manifest = read_manifest(folder)
    if folder.name != stage_folder_name(manifest.index, manifest.kind):
        raise ManifestError("its manifest belongs to another folder")
    faults = find_faults(folder, manifest)
    if faults:
        raise ManifestError("; ".join(faults[:3]))
    try:
        result = StageResult.from_json(json.loads(read_regular(folder / METRICS_NAME, _MAX_METRICS_BYTES)))
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{METRICS_NAME} unreadable ({error})") from error
    return CommittedStage(folder, manifest, result)


def stage_folder_name(index: int, kind: StageKind) -> str:
    """Return the name of a stage's folder, such as `02-prune`."""
    return f"{index:02d}-{kind}"
