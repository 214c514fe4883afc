"""Which rows of a run are finished, and why existing ones cannot be reused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from roots_compress.configs.recipe.schema import StageConfig
from roots_compress.errors import Location
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.steps import Step, keys_of
from roots_compress.run.keys import PARENT, StageKey, asked_of, explain_change
from roots_compress.run.stages import CommittedStage, read_stages, verify


@dataclass(frozen=True)
class Status:
    """Whether a row of a run exists already."""

    index: int
    step: Step
    committed: CommittedStage | None = None
    """The stage in its place."""
    reasons: tuple[str, ...] = ()
    """Reasons why it cannot be reused; empty if it can."""

    @property
    def action(self) -> Literal["make", "again", "reuse"]:
        """A run's action for the row."""
        if self.committed is None:
            return "make"
        return "again" if self.reasons else "reuse"

    @property
    def reused(self) -> CommittedStage | None:
        """The reused stage, if any."""
        return self.committed if self.action == "reuse" else None

    @classmethod
    def of_choice(cls, index: int, choice: StageConfig, place: Location) -> Self:
        """Return the status of a search's choice, as a row of its own."""
        return cls(index, Step(choice.kind, choice.name, choice, place))


def statuses_of(setting: Setting, folder: Path) -> list[Status]:
    """Return the status of each row of a recipe's chain, with every file hashed."""
    committed, _ = read_stages(folder)
    found = []
    for index, (step, key) in enumerate(keys_of(setting)):
        there = committed[index] if index < len(committed) else None
        reasons = () if there is None else tuple(reasons_of(there, key, setting.hashes.sha256))
        found.append(Status(index, step, there, reasons))
    return found


def reasons_of(stage: CommittedStage, key: StageKey, sha256: Callable[[Path], str]) -> list[str]:
    """Say why a committed stage cannot be reused, with every file hashed; empty if it can."""
    if stage.key.asked == key.asked:
        return verify(stage, sha256)
    # The row before already reports its own change.
    old, new = ({**asked_of(each.ingredients), PARENT: None} for each in (stage.key, key))
    return explain_change(old, new) or ["the stage before it changed"]
