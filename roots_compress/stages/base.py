"""The interface of stages for the pipeline: settings in a recipe's form, and an object that implements them.

Nothing here imports torch: checks and plans work without it.
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
    """Known facts about the model that a stage will start from, before it is loaded or even made."""

    limits: Limits
    """Its limits."""
    vocab_size: int
    """Rows of the embedding of the run's first model."""
    spec: ModelSpec | None = None
    """Its specification; None if unknown."""
    tokenizer: Callable[[], PreTrainedTokenizerFast] | None = None
    """Loads the run's tokenizer, once; None if it is still to be made."""
    source: SourceInfo | None = None
    """Its files; None if an earlier stage is still to make it."""
    task: Task[Any] = CAUSAL_LM
    """Its task."""

    @classmethod
    def of(cls, source: SourceInfo) -> Self:
        """Return the facts in a checkpoint's files."""

        def tokenizer() -> PreTrainedTokenizerFast:
            # Imported here, so that reports, which need only captions, do not wait for transformers.
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
        cls, spec: ModelSpec, tokenizer: Callable[[], PreTrainedTokenizerFast] | None, task: Task[Any]
    ) -> Self:
        """Return the known facts about a model that an earlier stage is to make."""
        return cls(Limits.of(spec), spec.embeddings.vocabulary, spec, tokenizer, task=task)

    def without_weights(self) -> Checkpoint:
        """Return the model of the files or the shape, with tensors without storage, and its tokenizer.

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
    """The inputs of a stage besides its settings and its checkpoint."""

    text: TextSplit
    """The text; a stage reads only the training documents."""
    device: str
    """`cpu` or `cuda`, as `resolve_device` returns it."""
    seed: int
    """Fixes every random choice."""
    work: Path
    """An existing folder for the state that an interrupted stage goes on from."""
    events: Events
    """Receives the stage's progress."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """The settings of the export that follows."""
    chosen: Mapping[str, Json] | None = None
    """The stage's earlier choices by timing, from its key, if it was made before."""
    new: bool = False
    """Whether the stage itself has just made the checkpoint from nothing."""

    def training(self, label: str) -> TrainingContext:
        """Return the inputs of a training in the stage."""
        return TrainingContext(self.device, self.seed, self.work, self.events, label)


@dataclass(frozen=True)
class StageOutcome:
    """The checkpoint that a stage made, on the CPU and in eval mode, and the stage's decisions."""

    checkpoint: Checkpoint
    notes: dict[str, Json] = field(default_factory=dict)
    """Widths kept, formats chosen, losses reached: JSON for the run's report."""
    chosen: dict[str, Json] | None = None
    """Choices made by timing. They enter the stage's key, because another timing might choose differently."""
    gates: tuple[GateResult, ...] = ()
    """The stage's own bounds, and whether they were kept; named by their keys in the stage's settings."""
    curves: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """Curves of the training, by name, in order of steps."""
    layer_errors: tuple[LayerError, ...] = ()
    """Errors of each changed weight on calibration text, in the model's order."""


@dataclass(frozen=True)
class Exchange:
    """A prompt and its answers, for a report."""

    prompt: str
    answers: Mapping[str, str]
    """Answers by the model that gave them, in the order to show them."""


class Stage(ABC, Generic[Config]):
    """One kind of stage. Its settings are a member of the recipe's union, and `registry.py` joins the two.

    An implementation imports torch only inside its methods.
    """

    def check(self, config: Config, info: ModelInfo) -> ModelInfo:
        """Check the settings against files and headers; return the known facts about the stage's result.

        Keys in errors start from the stage's settings.

        Raises:
            InputError: the settings do not suit the model.
        """
        return info

    def check_start(self, config: Config, info: ModelInfo, text: TextSplit, *, seed: int) -> None:
        """Check the settings against the model's shape and the text, before the stage starts.

        This is called only for the next stage. It may import torch and takes seconds at most.

        Args:
            info: the model that it starts from; its files exist.

        Raises:
            InputError, GateMissedError: as `run` raises them.
        """

    def estimate(self, config: Config, parameters: float, *, device: str) -> Estimate:
        """Return the least disk and memory that the stage needs, by the model that it starts from."""
        return least(parameters, parameters)

    def expect(self, config: Config, before: ExpectedModel) -> Expected:
        """Return the model that the stage is expected to make, and its work besides training.

        `estimate` is a lower bound, which may refuse a run; this is the likeliest value, which refuses none.
        It may import torch.
        """
        return Expected(before)

    def begun(self, config: Config) -> ExpectedModel:
        """Return the model that `make` will make, of a stage whose settings say `makes_model`."""
        raise NotImplementedError

    def make(self, config: Config, context: StageContext) -> Checkpoint:
        """Return a new model and its tokenizer, to be given to `run`.

        Raises:
            InputError: the text does not suit the settings.
        """
        raise NotImplementedError

    def expected(self, config: Config, before: ExpectedModel | None) -> Expected:
        """Return what `expect` does, or what a stage that begins a run with no model makes."""
        return Expected(self.begun(config)) if before is None else self.expect(config, before)

    def in_small(self, config: Config, small: Small) -> Config:
        """Return settings with which the stage does the same on a model of few layers, with little work."""
        return small.lessened(config)

    def inputs(self, config: Config) -> dict[str, Path]:
        """Return the files and checkpoints that the stage reads besides the run's text and model, by name."""
        return {}

    def control(self, config: Config) -> tuple[str, Config] | None:
        """Return the stage without its main idea, as a control in a search, and a word for it.

        None if a comparison is meaningless.
        """
        return None

    def settled(self, config: Config, chosen: Mapping[str, Json]) -> Config:
        """Return the settings with the stage's choices by timing filled in.

        Args:
            chosen: the choices in the stage's key.
        """
        return config

    def caption(self, notes: Mapping[str, Json]) -> str | None:
        """Return the text on a stage's decisions below a report's table, without a final full stop.

        Args:
            notes: those of a file of figures, unchecked.
        """
        return None

    def exchanges(self, notes: Mapping[str, Json]) -> list[Exchange]:
        """Return prompts with the answers that reports show side by side.

        Args:
            notes: those of a file of figures, unchecked.
        """
        return []

    def slower_because(self, notes: Mapping[str, Json], machine: Mapping[str, Json]) -> str | None:
        """Return why the stage's graph may be slower than the one before it on a machine; None if unknown.

        Args:
            notes: those of a file of figures, unchecked.
            machine: as `describe_machine` returns it, unchecked too.
        """
        return None

    @abstractmethod
    def run(self, config: Config, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        """Make a new checkpoint; the given one is not changed.

        Raises:
            InputError: the settings do not suit the model or the text.
            StageError: the work failed.
        """
