"""Whether a graph computes what its checkpoint computes: prefill, cached decoding, single rows and ragged batches.

Differences are relative to the largest logit of the case, over every position that is not padding.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from roots_compress.errors import StageError
from roots_compress.export.config import ExportConfig
from roots_compress.export.tasks import exporter_config
from roots_compress.model.config import RootsConfig
from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.runtime.onnx_engine import OnnxEngine
from roots_compress.runtime.protocol import LanguageModel, Logits, Tokens
from roots_compress.runtime.torch_engine import TorchEngine

LONGEST = 40
"""Tokens of the longest row; shorter where the model's context is."""
DECODED = 6
"""Tokens of a case that are decoded one at a time."""

# What a format's arithmetic may differ by, beside the tolerance asked for; docs/export.md has the measurements.
# float16 rounds at every operator, and torch and ONNX Runtime round in different places.
HALF_TOLERANCE = 0.02
# The graph and the checkpoint quantize activations alike, but rounding a tie otherwise moves it by a whole level.
INTEGER_TOLERANCE = 0.02
# The kernels of MatMulNBits quantize their input in blocks; the checkpoint multiplies floats.
GROUPED_TOLERANCE = 0.08


@dataclass(frozen=True)
class ParityCase:
    """One comparison of graph and checkpoint."""

    name: str
    difference: float
    """Largest difference between two logits, relative to the checkpoint's largest."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Script:
    """Tokens to feed: a prompt, left-padded where the rows are ragged, then tokens to decode one at a time."""

    name: str
    input_ids: Tokens
    mask: Tokens
    prompt: int
    """Columns that make the prompt."""


def check_parity(model: RootsForCausalLM, graph: Path, config: ExportConfig) -> tuple[ParityCase, ...]:
    """Compare a graph on disk with the model it was built from.

    Where the graph's kernels round (`MatMulNBits`), its weights are also compared in exact arithmetic, so that
    a wrong weight cannot hide behind the rounding's tolerance.

    Raises:
        StageError: a case is beyond its tolerance; the message names it and the difference.
    """
    reference = TorchEngine(model)
    scripts = make_scripts(model)
    expected = {script.name: reference.logits(script.input_ids, script.mask) for script in scripts}
    cases = []
    if "w8" in _formats(model) or "w4" in _formats(model):
        ragged = scripts[-1]
        actual = _exact_logits(graph, ragged)
        tolerance = max(config.tolerance, INTEGER_TOLERANCE if "w8a8" in _formats(model) else 0.0)
        cases.append(
            _case("weights, exact arithmetic", expected[ragged.name], actual, ragged.mask, tolerance)
        )
    engine = OnnxEngine.open(graph, provider="cpu")
    tolerance = tolerance_of(model, config)
    for script in scripts:
        for way, actual, first in _run(engine, script):
            part = slice(first, first + actual.shape[1])
            cases.append(
                _case(
                    f"{script.name}, {way}",
                    expected[script.name][:, part],
                    actual,
                    script.mask[:, part],
                    tolerance,
                )
            )
    for case in cases:
        if not case.passed:
            raise StageError(
                f"the graph's logits differ from the checkpoint's by {case.difference:.3g} of the largest logit in"
                f" the case '{case.name}'; at most {case.tolerance:.3g} is allowed",
                where=graph,
                remedy="Nothing was exported. This is a fault of the exporter or of a kernel; please report it.",
            )
    return tuple(cases)


def make_scripts(model: RootsForCausalLM) -> tuple[Script, ...]:
    """Return the cases' tokens: one row from its first token on, one long row, and a ragged batch last."""
    longest = min(LONGEST, model.config.max_position_embeddings)
    decoded = min(DECODED, longest - 1)
    return (
        _script("one token", model, batch=1, tokens=1 + decoded, shortest=1 + decoded, decoded=decoded),
        _script("one row", model, batch=1, tokens=longest, shortest=longest, decoded=decoded),
        _script("ragged batch", model, batch=3, tokens=longest, shortest=1 + decoded, decoded=decoded),
    )


def tolerance_of(model: RootsForCausalLM, config: ExportConfig) -> float:
    """Return what the graph of this model's formats may differ by."""
    floors = {None: 0.0, "w8a8": INTEGER_TOLERANCE, "w8": GROUPED_TOLERANCE, "w4": GROUPED_TOLERANCE}
    allowed = [config.tolerance, *(floors[name] for name in _formats(model))]
    if next(model.parameters()).dtype == torch.float16:
        allowed.append(HALF_TOLERANCE)
    return max(allowed)


def _formats(model: RootsForCausalLM) -> set[str]:
    quantization = model.config.quantization
    return set(quantization["formats"].values()) if quantization else set()


def _script(
    name: str, model: RootsForCausalLM, *, batch: int, tokens: int, shortest: int, decoded: int
) -> Script:
    assert isinstance(model.config, RootsConfig)
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(batch)
        inputs = exporter_config(model.config, half=False).generate_dummy_inputs(
            framework="pt", batch_size=batch, sequence_length=tokens, shortest=shortest, past_length=0
        )
    random.setstate(state)
    return Script(
        name, inputs["input_ids"].numpy(), inputs["attention_mask"].numpy(), prompt=tokens - decoded
    )


def _run(engine: LanguageModel, script: Script) -> Iterator[tuple[str, Logits, int]]:
    """Yield what was run, its logits `(B, T, V)`, and the first position they belong to."""
    yield "whole", engine.logits(script.input_ids, script.mask), 0
    prompt = slice(0, script.prompt)
    step = engine.prefill(script.input_ids[:, prompt], script.mask[:, prompt])
    logits = [step.logits]
    for column in script.input_ids[:, script.prompt :].T:
        step = engine.decode(column, step.cache)
        logits.append(step.logits)
    yield "prefill and decode", np.stack(logits, axis=1), script.prompt - 1


def _case(name: str, expected: Logits, actual: Logits, mask: Tokens, tolerance: float) -> ParityCase:
    rows = mask.astype(bool)
    largest = np.abs(expected[rows]).max()
    difference = np.abs(actual[rows] - expected[rows]).max()
    return ParityCase(name, float(difference / largest) if largest else float(difference), tolerance)


def _exact_logits(graph: Path, script: Script) -> Logits:
    """Return the logits with every `MatMulNBits` multiplying floats: slow, and as exact as a plain product."""
    proto = onnx.load(graph, load_external_data=False)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = 0
    # Beside the graph, because external data is found relative to the file that names it.
    exact = graph.with_name(f".exact-{graph.name}")
    try:
        onnx.save(proto, exact)
        return OnnxEngine.open(exact, provider="cpu").logits(script.input_ids, script.mask)
    finally:
        exact.unlink(missing_ok=True)
