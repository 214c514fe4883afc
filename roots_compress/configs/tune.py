"""Settings of the `tune` stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from roots_compress.configs.base import PathSetting, StageName
from roots_compress.configs.stage import StageSettings
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.errors import InputError, Key, Location, Text


class TuneConfig(StageSettings):
    """Tune a model to answer instructions or to label texts, from the data alone or with a teacher.

    Only the answers of a conversation are learnt, each in the context of everything before it. If the data
    names no files, questions about Python's standard library and their answers are read.
    """

    tunes: ClassVar[bool] = True
    recipe_only: ClassVar[str] = "answer_tokens"
    example: ClassVar[str] = "roots-compress tune ckpt --data instructions.jsonl"
    kind: Literal["tune"] = "tune"
    """Names the stage."""
    name: StageName = "tune"
    """Label of the row in reports."""
    teacher: PathSetting | None = None
    """A checkpoint to learn from too: a larger model with the same tokenizer, tuned on the same data. Without
    one, the model learns from the data alone."""
    loss: DistillLossConfig = DistillLossConfig()
    """The objective, if there is a teacher."""
    training: TrainingConfig = TrainingConfig()
    """The training loop."""
    answers: Annotated[int, Field(ge=0, le=20)] = 3
    """Held-out prompts whose answers the report shows: the model's before and after, and its teacher's."""
    answer_tokens: Annotated[int, Field(ge=1, le=1024)] = 48
    """Most tokens of such an answer."""

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The teacher, if there is one."""
        return () if self.teacher is None else ("teacher",)

    def check_paths(self) -> None:
        """Refuse a teacher that does not exist."""
        if self.teacher is not None and not self.teacher.exists():
            raise InputError(
                f"'{self.teacher}' does not exist", where=Key("teacher"), remedy="Name a checkpoint on disk."
            )

    def faults_in_recipe(self, *, makes_model: bool, portable: bool) -> Iterator[tuple[Location, str]]:
        """Refuse an objective that needs a teacher if there is none."""
        if self.teacher is None and self.loss != DistillLossConfig():
            yield ("loss",), Text("would have no effect without a ", Key("teacher"))
