"""The base of every stage's settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from roots_compress.configs.base import Settings, StageName
from roots_compress.configs.gates import GatesConfig
from roots_compress.errors import Location

RESULT_FREE = frozenset({"name", "gates"})
"""Settings of a stage that change no result: its label, and its bounds."""


class StageSettings(Settings):
    """Settings of a stage. The first lines of its documentation are its verb's help."""

    example: ClassVar[str]
    """A command with its verb, for the verb's help."""
    checkpoint_option: ClassVar[str | None] = None
    """The verb's option for its starting checkpoint, if that is not its argument."""
    makes_model: ClassVar[bool] = False
    """Whether it can start without a model."""
    tunes: ClassVar[bool] = False
    """Whether it tunes a model on the answers in its task's records."""
    quantizes: ClassVar[bool] = False
    """Whether its result has quantized weights, which no later stage can change."""
    recipe_only: ClassVar[str] = "kind name gates"
    kind: str
    """Names the stage."""
    name: StageName
    """Label of the row in reports."""
    gates: GatesConfig | None = None
    """Bounds that the stage must keep, judged when the run ends; see the recipe's `gates`."""

    @property
    def new_context(self) -> int | None:
        """The longest context of the model that the stage makes from nothing; None if it makes none."""
        return None

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The settings that are paths of checkpoints; their content, not the path, enters the stage's key."""
        return ()

    @property
    def decodes(self) -> bool:
        """Whether the model that the stage makes from nothing writes token by token."""
        return True

    def check_paths(self) -> None:
        """Refuse files that are missing; none is opened.

        Raises:
            InputError: one is missing.
        """

    def faults_in_recipe(self, *, makes_model: bool, portable: bool) -> Iterator[tuple[Location, str]]:
        """Yield the settings that are refused in a recipe, each by its key with the reason.

        Args:
            makes_model: whether the stage begins the recipe and makes its model.
            portable: whether graphs use standard operators only.
        """
        yield from ()
