"""Inputs and outputs of a task's graphs, registered with optimum: names, dynamic axes, and dummy inputs.

Optimum's own runtime classes, and every other tool that reads its folders, feed a graph by these names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from optimum.exporters.base import ExporterConfig
from optimum.exporters.tasks import TasksManager
from optimum.utils import DummyPastKeyValuesGenerator, DummyTextInputGenerator, NormalizedTextConfig

from roots_compress.models.config import RootsConfig
from roots_compress.tasks.base import Axes, Task
from roots_compress.tasks.registry import TASKS, task_of_spec


class RaggedTextInputGenerator(DummyTextInputGenerator):
    """Dummy tokens, and a mask whose rows have lengths from `shortest` to all of the tokens.

    Decoders read rows padded on the left, encoders rows padded on the right. The decoder's input after an
    encoder is not padded.
    """

    SUPPORTED_INPUT_NAMES = (*DummyTextInputGenerator.SUPPORTED_INPUT_NAMES, "decoder_input_ids")

    def __init__(
        self, task: str, normalized_config: NormalizedTextConfig, shortest: int = 1, **shape: Any
    ) -> None:
        super().__init__(task, normalized_config, **shape)
        self.shortest, self.normalized_config = shortest, normalized_config

    def generate(
        self, input_name: str, framework: str = "pt", int_dtype: str = "int64", float_dtype: str = "fp32"
    ) -> Any:
        """Return one input, `(B, T)`: the tokens, the mask, the positions that follow from it, or types."""
        if input_name in ("input_ids", "decoder_input_ids"):
            return super().generate("input_ids", framework, int_dtype, float_dtype)
        spec = self.normalized_config.spec
        slots_T = torch.arange(self.sequence_length)
        if input_name == "token_type_ids":
            return (slots_T % spec.embeddings.token_types).repeat(self.batch_size, 1)
        lengths_B = torch.linspace(self.sequence_length, self.shortest, self.batch_size).long()
        if "encoder" in spec.stacks:
            return (slots_T < lengths_B[:, None]).long()
        mask_BT = (slots_T >= self.sequence_length - lengths_B[:, None]).long()
        if input_name == "position_ids":
            return (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        return mask_BT


class LayerwisePastKeyValuesGenerator(DummyPastKeyValuesGenerator):
    """Dummy keys, values and other states, with every layer's own sizes."""

    SUPPORTED_INPUT_NAMES = ("past_",)

    def __init__(
        self,
        task: str,
        normalized_config: NormalizedTextConfig,
        batch_size: int = 2,
        past_length: int = 0,
        **_: Any,
    ) -> None:
        self.batch_size, self.past_length = batch_size, past_length
        self.states = {state.past: state for state in normalized_config.spec.states()}

    def generate(
        self, input_name: str, framework: str = "pt", int_dtype: str = "int64", float_dtype: str = "fp32"
    ) -> Any:
        """Return the state of this name: keys or values `(B, G, P, D)`, or another block's state."""
        state = self.states[input_name]
        shape = [self.batch_size, *(self.past_length if size is None else size for size in state.shape)]
        dtype = "fp32" if state.float32 else float_dtype
        return self.random_float_tensor(shape, min_value=-1, framework=framework, dtype=dtype)


@dataclass(frozen=True)
class Names:
    """Names and dynamic axes of a graph's inputs and outputs, in the graph's order."""

    inputs: Axes
    outputs: Axes

    def shape(self, name: str, *fixed: int | str) -> list[int | str]:
        """Return the shape of an input or output: dynamic axes by name, the others from `fixed`."""
        axes = {**self.inputs, **self.outputs}[name]
        sizes = iter(fixed)
        return [axes[axis] if axis in axes else next(sizes) for axis in range(len(axes) + len(fixed))]


class RootsExporterConfig(ExporterConfig):
    """Names and dynamic axes of a ROOTS graph's inputs and outputs, and dummy inputs of every shape."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (RaggedTextInputGenerator, LayerwisePastKeyValuesGenerator)
    SUPPORTS_PAST: ClassVar[bool] = True
    graph_task: ClassVar[Task[Any]]

    def __init__(
        self, config: RootsConfig, task: str, use_past: bool = True, float_dtype: str = "fp32"
    ) -> None:
        super().__init__(config, task, float_dtype=float_dtype)
        self.use_past = use_past

    @property
    def inputs(self) -> Axes:
        """Dynamic axes of each input, in the graph's order."""
        return self.graph_task.inputs(self._normalized_config.spec)

    @property
    def outputs(self) -> Axes:
        """Dynamic axes of each output, in the graph's order."""
        return self.graph_task.outputs(self._normalized_config.spec)

    @property
    def names(self) -> Names:
        """Both, as a graph takes them."""
        return Names(self.inputs, self.outputs)


for _task in TASKS:
    _description = type("RootsExporterConfig", (RootsExporterConfig,), {"graph_task": _task})
    TasksManager.create_register("onnx", overwrite_existing=True)("roots", _task.optimum_name)(_description)


def exporter_config(config: RootsConfig, *, half: bool) -> RootsExporterConfig:
    """Return the export description that optimum's task manager holds for a model and its task."""
    constructor = TasksManager.get_exporter_config_constructor(
        exporter="onnx",
        model_type=config.model_type,
        task=task_of_spec(config.spec).optimum_name,
        library_name="transformers",
    )
    return cast(RootsExporterConfig, constructor(config, float_dtype="fp16" if half else "fp32"))
