"""What a stage is to the pipeline: settings in a recipe's form, and an object that answers for them.

Nothing here imports torch: a request is refused, and a run planned, without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from roots_compress.checkpoints.source import SourceInfo
from roots_compress.configs.export import ExportConfig
from roots_compress.configs.stage import StageSettings
from roots_compress.data.documents import TextSplit
from roots_compress.events import Events
from roots_compress.models.limits import Limits
from roots_compress.models.spec import ModelSpec
from roots_compress.results import GateResult, Json, LayerError, Point
from roots_compress.stages.expected import Estimate, Expected, ExpectedModel, Small, least
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import CAUSAL_LM, task_of_spec
from roots_compress.training.context import TrainingContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from roots_compress.checkpoints.checkpoint import Checkpoint

Config = TypeVar("Config", bound=StageSettings)


@dataclass(frozen=True)
class ModelInfo:
    """What is known of the model that a stage will start from, before it is loaded or even made."""

    limits: Limits
    """What bounds its use."""
    vocab_size: int
    """Rows of the embedding of the model that the run begins with."""
    spec: ModelSpec | None = None
    """What it is; None where that is not known."""
    tokenizer: Callable[[], PreTrainedTokenizerFast] | None = None
    """Loads the run's tokenizer, once; None where it is still to be made."""
    source: SourceInfo | None = None
    """Its files, where it has some: None for what an earlier stage is to make."""
    task: Task[Any] = CAUSAL_LM
    """What it is for."""

    @classmethod
    def of(cls, source: SourceInfo) -> Self:
        """Return what the files of a checkpoint say."""

        def tokenizer() -> PreTrainedTokenizerFast:
            # Reports, which ask stages for captions, need not wait for transformers.
            from roots_compress.checkpoints.tokenizer import check_vocabulary, load_tokenizer

            loaded = load_tokenizer(source)
            check_vocabulary(loaded, source.vocab_size, source.path)
            return loaded

        task = task_of_spec(source.spec)
        return cls(source.limits, source.vocab_size, source.spec, cache(tokenizer), source, task)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels, if it is a classifier."""
        spec = self.spec
        return () if spec is None else self.task.labels(lambda: spec)

    @classmethod
    def foreseen(
        cls, spec: ModelSpec, tokenizer: Callable[[], PreTrainedTokenizerFast], task: Task[Any]
    ) -> Self:
        """Return what is known of a model that an earlier stage is to make."""
        return cls(Limits.of(spec), spec.embeddings.vocabulary, spec, tokenizer, task=task)

    def without_weights(self) -> Checkpoint:
        """Return the model of the files, or of the shape, its tensors without storage, with its tokenizer.

        Raises:
            InputError: the files describe no model, or their tokenizer cannot be used.
        """
        from roots_compress.checkpoints.checkpoint import Checkpoint, model_without_weights, without_weights
        from roots_compress.models.config import RootsConfig

        assert self.tokenizer is not None
        if self.source is not None:
            return Checkpoint(without_weights(self.source), self.tokenizer())
        assert self.spec is not None
        return Checkpoint(model_without_weights(RootsConfig(spec=self.spec)), self.tokenizer())


@dataclass(frozen=True)
class StageContext:
    """What a stage works with besides its settings and the checkpoint it starts from."""

    text: TextSplit
    """A stage reads the training documents only."""
    device: str
    """`cpu` or `cuda`, as `resolve_device` returns it."""
    seed: int
    """Fixes every random choice."""
    work: Path
    """An existing folder for the state that an interrupted stage goes on from."""
    events: Events
    """Where the stage tells of its work."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """How the checkpoint will become a graph."""
    chosen: Mapping[str, Json] | None = None
    """What the same stage chose by timing when it was made before, as its key holds it."""
    new: bool = False
    """Whether the checkpoint is one that the stage itself made of nothing."""

    def training(self, label: str) -> TrainingContext:
        """Return what a training of the stage works with."""
        return TrainingContext(self.device, self.seed, self.work, self.events, label)


@dataclass(frozen=True)
class StageOutcome:
    """The checkpoint a stage made, on the CPU and in eval mode, and what the stage decided on the way."""

    checkpoint: Checkpoint
    notes: dict[str, Json] = field(default_factory=dict)
    """Widths kept, formats chosen, losses reached: JSON for the run's report."""
    chosen: dict[str, Json] | None = None
    """What was chosen by timing: it enters the stage's key, as another timing might choose otherwise."""
    gates: tuple[GateResult, ...] = ()
    """The stage's own bounds, and whether they were kept; named by their keys in the stage's settings."""
    curves: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """What was followed while the stage trained, by its name, by rising step."""
    layer_errors: tuple[LayerError, ...] = ()
    """What calibration measured of each weight that was changed, in the model's order."""


@dataclass(frozen=True)
class Exchange:
    """A prompt and what was answered to it, for a report."""

    prompt: str
    answers: Mapping[str, str]
    """By who gave them, in the order to show them."""


class Stage(ABC, Generic[Config]):
    """One kind of stage. Its settings are a member of the recipe's union, and `registry.py` joins the two.

    An implementation imports torch inside its methods only.
    """

    def check(self, config: Config, info: ModelInfo) -> ModelInfo:
        """Refuse what cannot be, by what files and headers say; return what is known of the stage's result.

        Keys in errors start from the stage's settings.

        Raises:
            InputError: the settings do not suit the model.
        """
        return info

    def check_start(self, config: Config, info: ModelInfo, text: TextSplit, *, seed: int) -> None:
        """Refuse what the stage would refuse when it starts, by the model's shape and the text.

        This is asked of the next stage to be made alone. It may import torch and takes seconds at most.

        Args:
            info: the model that it starts from, whose files are there.

        Raises:
            InputError, GateMissedError: as `run` raises them.
        """

    def estimate(self, config: Config, parameters: float | None, *, device: str) -> Estimate:
        """Return the least of disk and memory that the stage takes.

        Args:
            parameters: of the model it starts from; None where it makes one from nothing.
        """
        assert parameters is not None
        return least(parameters, parameters)

    def expect(self, config: Config, before: ExpectedModel | None) -> Expected:
        """Return what the stage is expected to make, and its work besides training.

        `estimate` is a lower bound that refuses runs; this is the likeliest, and refuses none. It may import
        torch.

        Args:
            before: the model that it starts from; None where it makes one from nothing.
        """
        assert before is not None
        return Expected(before)

    def in_small(self, config: Config, small: Small) -> Config:
        """Return settings by which the stage does the same on a model of few layers, with little work."""
        return small.lessened(config)

    def inputs(self, config: Config) -> dict[str, Path]:
        """Return the files and checkpoints that the stage reads besides the run's text and model, by name."""
        return {}

    def control(self, config: Config) -> tuple[str, Config] | None:
        """Return the same stage without what it is about, for a search to compare with, and a word for it.

        None where comparing says nothing.
        """
        return None

    def settled(self, config: Config, chosen: Mapping[str, Json]) -> Config:
        """Return the settings with what the stage chose by timing set, so that nothing is left to choose.

        Args:
            chosen: as the stage's key holds it.
        """
        return config

    def caption(self, notes: Mapping[str, Json]) -> str | None:
        """Return what reports say below their table of what a stage decided, without a full stop at its end.

        Args:
            notes: as a file of figures holds them, which may be anything.
        """
        return None

    def exchanges(self, notes: Mapping[str, Json]) -> list[Exchange]:
        """Return prompts with the answers that reports show side by side.

        Args:
            notes: as a file of figures holds them, which may be anything.
        """
        return []

    def slower_because(self, notes: Mapping[str, Json], machine: Mapping[str, Json]) -> str | None:
        """Return why the stage's graph may be slower than the one before it on a machine; None if unknown.

        Args:
            notes: as a file of figures holds them, which may be anything.
            machine: likewise, as `describe_machine` returns it.
        """
        return None

    @abstractmethod
    def run(self, config: Config, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        """Make a checkpoint of another, which is left as it is.

        Raises:
            InputError: the settings do not suit the model or the text.
            StageError: the work failed.
        """


class MakerStage(Stage[Config]):
    """A stage that can also begin a run: it makes a model from nothing and then runs on it."""

    @abstractmethod
    def planned(self, config: Config) -> ModelInfo:
        """Return what the settings say of the model that `make` will make."""

    @abstractmethod
    def make(self, config: Config, context: StageContext) -> Checkpoint:
        """Return a new model and its tokenizer, to be given to `run`.

        Raises:
            InputError: the text does not suit the settings.
        """
