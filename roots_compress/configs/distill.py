"""Settings of the `distill` stage."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal, Self

from roots_compress.configs.base import StageName, placed_in
from roots_compress.configs.stage import StageSettings
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.errors import InputError, Key, did_you_mean

STUDENT_PRESETS = ("tiny", "small", "medium")


class DistillConfig(StageSettings):
    """Train a smaller student to match the given model."""

    checkpoint_option: ClassVar[str | None] = "--teacher"
    example: ClassVar[str] = "roots-compress distill --teacher ckpt --student small"
    kind: Literal["distill"] = "distill"
    """Names the stage."""
    name: StageName = "distill"
    """Label of the row in reports."""
    student: str = "small"
    """A preset derived from the teacher (`tiny`, `small`, `medium`), a JSON file with a shape in the form of
    a checkpoint's config.json, or a checkpoint."""
    loss: DistillLossConfig = DistillLossConfig()
    """The objective."""
    training: TrainingConfig = TrainingConfig()
    """The training loop."""

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The student, unless it is a preset."""
        return () if self.student in STUDENT_PRESETS else ("student",)

    def from_folder(self, folder: Path) -> Self:
        """Return the settings with their paths, a student's too, starting from a folder."""
        placed = super().from_folder(folder)
        if self.student in STUDENT_PRESETS:
            return placed
        return placed.model_copy(update={"student": str(placed_in(folder, Path(self.student)))})

    def check_paths(self) -> None:
        """Refuse a student that is neither a preset nor an existing path; see `student_path`."""
        student_path(self.student)


def student_path(student: str) -> Path | None:
    """Return the file or folder a student is read from; None for a preset.

    Raises:
        InputError: there is no such preset and no such path.
    """
    if student in STUDENT_PRESETS:
        return None
    path = Path(student)
    with suppress(OSError):  # such as a name too long for a file
        if path.exists():
            return path
    near = did_you_mean(path.name, list(STUDENT_PRESETS))
    raise InputError(
        f"there is no preset or path '{path.name}'{near}",
        where=Key("student"),
        remedy=f"Name a preset ({', '.join(STUDENT_PRESETS)}), a ROOTS config file, or a checkpoint.",
    )
