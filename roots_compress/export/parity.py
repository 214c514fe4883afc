"""Checks that a graph computes the same as its checkpoint, in every way that its task runs it.

Every output that is not of padding is compared.
"""

from __future__ import annotations

import errno
import gc
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from roots_compress.checkpoints.inspect import CONFIG
from roots_compress.configs.export import ExportConfig
from roots_compress.errors import StageError
from roots_compress.export.exact import dequantized, write_exact
from roots_compress.export.tasks import exporter_config
from roots_compress.io.temporary import temporary_folder
from roots_compress.models.config import RootsConfig
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.attention import BlockSparse
from roots_compress.runtime.onnx.graph_folder import GRAPH_SUFFIX, graph_files
from roots_compress.tasks.base import Outputs, Task
from roots_compress.tasks.parity import ParityScript, ParityShape
from roots_compress.tasks.registry import task_of_model

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
# The most that rounding may change the logits, root mean square; docs/how/export.md has measurements. float16
# rounds at every operator, and torch and ONNX Runtime do it in different places.
HALF_TOLERANCE = 0.05
# A difference of one integer level, from a float close to a tie, grows through the following layers.
INTEGER_TOLERANCE = 0.25
# Graph and checkpoint may choose differently between two blocks with nearly equal scores.
CHOICE_TOLERANCE = 0.02
LONGEST_CHOICE = 2048
"""Tokens of the longest row that is compared for its choice of blocks."""
EXACT = ".exact-"
"""Prefix of the names of graphs without rounding."""


@dataclass(frozen=True)
class ParityCase:
    """One comparison of graph and checkpoint."""

    name: str
    largest: float
    """Largest difference between two outputs, relative to the checkpoint's largest output."""
    root_mean_square: float
    """Root mean square of the differences, relative to that of the checkpoint's outputs."""
    tolerance: float
    rounded: bool
    """Whether activations are rounded inside, so that only the root mean square can be bounded."""

    @property
    def difference(self) -> float:
        """The figure that the tolerance bounds."""
        return self.root_mean_square if self.rounded else self.largest

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.difference <= self.tolerance


def check_parity(
    model: RootsWithHead, graph: Path, config: ExportConfig, *, release: bool = False
) -> tuple[ParityCase, ...]:
    """Compare a graph on disk with the model it was built from.

    Plain weights must give the same logits within `config.tolerance`. Quantized ones must do so if neither
    side rounds its activations (`exact.py`); with rounding, the two may differ by the effect of rounding.
    With `release` the model's weights are freed before the graph's are read; the model is then unusable.

    Raises:
        StageError: a case is beyond its tolerance; the message names it and the difference. Or the model's
            own logits are not finite.
    """
    task, scripts = task_of_model(model), make_scripts(model)
    tolerance, rounded = _tolerance(model, config)
    expected, expected_exactly = _references(task, model, scripts)
    if release:
        torch.nn.Module.to(model, "meta")
        gc.collect()  # The graph's description also refers to the weights, in reference cycles.
    cases: list[ParityCase] = []
    if expected_exactly is not None:
        cases.append(_compare_exactly(task, expected_exactly, graph, scripts[-1], config))
    engine = task.open_graph(graph, provider="cpu")
    for script, outputs in zip(scripts, expected, strict=True):
        mask = task.parity_mask(script)
        for way, actual, first in task.parity_runs(engine, script):
            name = f"{script.shape.name}, {way}"
            pair = outputs[:, first:][mask[:, first:]], actual[mask[:, first:]]
            chosen = script.shape.chosen
            allowed = max(tolerance, CHOICE_TOLERANCE) if chosen else tolerance
            cases.append(_measure(name, *pair, allowed, rounded or chosen))
    for case in cases:
        if not case.passed:
            raise StageError(
                f"in the case '{case.name}' the graph's logits differ from the checkpoint's: by"
                f" {case.largest:.3g} of the largest logit, {case.root_mean_square:.3g} root mean square"
                f" (at most {case.tolerance:.3g} of the {'latter' if case.rounded else 'former'} is allowed)",
                where=graph,
                remedy="Nothing was exported. This is a fault of the exporter or a kernel; please report it.",
            )
    return tuple(cases)


def make_scripts(model: RootsWithHead) -> tuple[ParityScript, ...]:
    """Return the inputs of a model's comparisons, a ragged batch last."""
    longest = model.config.max_position_embeddings
    shapes = task_of_model(model).parity_shapes(longest)
    return tuple(
        _script(shape, model) for shape in (*_chosen_shape(model, longest, shapes[-1].decoded), *shapes)
    )


def _chosen_shape(model: RootsWithHead, longest: int, decoded: int) -> tuple[ParityShape, ...]:
    """Return a row that is long enough for a layer to leave blocks of keys out, if there is such a layer."""
    sparse = (each.sparse for each in model.config.spec.attentions())
    needed = [(each.blocks + 2) * each.size for each in sparse if isinstance(each, BlockSparse)]
    tokens = min([*needed, longest, LONGEST_CHOICE])
    return (ParityShape("blocks chosen", 1, tokens, tokens, decoded, chosen=True),) if needed else ()


def _tolerance(model: RootsWithHead, config: ExportConfig) -> tuple[float, bool]:
    """Return the final graph's tolerance, and whether its activations are rounded."""
    if model.config.quantization:
        return max(config.tolerance, INTEGER_TOLERANCE), True
    if next(model.parameters()).dtype == torch.float16:
        return max(config.tolerance, HALF_TOLERANCE), True
    return config.tolerance, False


def _references(
    task: Task[Any], model: RootsWithHead, scripts: tuple[ParityScript, ...]
) -> tuple[list[Outputs], Outputs | None]:
    """Return the checkpoint's outputs of every script, and a quantized one's of the last without rounding.

    All are computed before any graph is opened: the dequantized model is large, and freed on return.
    """
    exactly = None
    if model.config.quantization:
        exactly = task.parity_output(task.serve_model(dequantized(model)), scripts[-1])
    expected = [task.parity_output(task.serve_model(model), script) for script in scripts]
    for script, outputs in zip(scripts, expected, strict=True):
        if not np.isfinite(outputs[task.parity_mask(script)]).all():
            raise StageError(
                "the checkpoint's own logits are NaN or infinite",
                remedy="Check the checkpoint: its weights are broken, or its activations overflow.",
            )
    return expected, exactly


def _compare_exactly(
    task: Task[Any], expected: Outputs, graph: Path, script: ParityScript, config: ExportConfig
) -> ParityCase:
    """Compare a quantized graph without the rounding of activations with the dequantized checkpoint."""
    with exact_graph(graph) as exact:
        actual = task.parity_output(task.open_graph(exact, provider="cpu"), script)
    name, mask = f"{script.shape.name}, activations not rounded", task.parity_mask(script)
    return _measure(name, expected[mask], actual[mask], config.tolerance, rounded=False)


@contextmanager
def exact_graph(graph: Path) -> Iterator[Path]:
    """Yield the path of a graph without rounding, which is deleted when the block ends.

    It is in the folder of the graph whose data it shares or, if that is not writable, with a copy of the
    data. So are the other graphs that it needs.
    """
    files = graph_files(graph)
    graphs = [file for file in files if file.suffix == GRAPH_SUFFIX]
    exact = [each.with_name(f"{EXACT}{each.name}") for each in graphs]
    try:
        for each, target in zip(graphs, exact, strict=True):
            write_exact(each, target)
    except OSError as error:
        for target in exact:
            with suppress(OSError):
                target.unlink()
        if error.errno not in READ_ONLY:
            raise
    else:
        try:
            yield exact[0]
        finally:
            for target in exact:
                target.unlink(missing_ok=True)
        return
    with temporary_folder() as aside:
        for file in (*files, graph.with_name(CONFIG)):
            shutil.copyfile(file, aside / file.name)
        for target in exact:
            write_exact(aside / target.name.removeprefix(EXACT), aside / target.name)
        yield aside / exact[0].name


def _script(shape: ParityShape, model: RootsWithHead) -> ParityScript:
    assert isinstance(model.config, RootsConfig)
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.batch)
        inputs = exporter_config(model.config, half=False).generate_dummy_inputs(
            framework="pt",
            batch_size=shape.batch,
            sequence_length=shape.tokens,
            shortest=shape.shortest,
            past_length=0,
        )
    random.setstate(state)
    return ParityScript(shape, {name: tensor.numpy() for name, tensor in inputs.items()})


def _measure(name: str, expected: Outputs, actual: Outputs, tolerance: float, rounded: bool) -> ParityCase:
    difference = np.abs(actual - expected)
    # If all outputs are zero, no relative difference exists.
    largest = difference.max() / (np.abs(expected).max() or 1.0)
    squares = np.square(expected, dtype=np.float64).mean() or 1.0
    root_mean_square = np.sqrt(np.square(difference, dtype=np.float64).mean() / squares)
    return ParityCase(name, float(largest), float(root_mean_square), tolerance, rounded)
