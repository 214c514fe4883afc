"""The expected result and cost of a quantize stage, from its settings and the model's shape."""

from __future__ import annotations

from typing import Any

from roots_compress.calibration.own_text import writing_passes
from roots_compress.configs.quantize import Products, QuantizeConfig, WorkloadConfig
from roots_compress.models.config import RootsConfig
from roots_compress.models.ops.base import Matrix
from roots_compress.models.quantized import Format, matrix_bytes
from roots_compress.models.spec import EMBEDDING, HEAD, LAYER_PROJECTION, LAYER_TABLE, ModelSpec
from roots_compress.stages.expected import Expected, ExpectedModel
from roots_compress.stages.quantize.cache_choice import may_gain
from roots_compress.stages.quantize.groups import group_size_of, stored_sizes
from roots_compress.stages.quantize.plan import format_of_tables, usual_format
from roots_compress.stages.quantize.products.choice import integers_pay
from roots_compress.stages.quantize.products.measured import measured_times
from roots_compress.stages.quantize.products.timing import caches_context, layer_weights
from roots_compress.stages.quantize.sensitivity import WINDOWS as FISHER_WINDOWS
from roots_compress.system.machine import own_instruction_set, processor_class
from roots_compress.tasks.registry import task_of_spec

HIGHER: Format = "w8"
"""The format of the tables, and of matrices for which the usual format costs too much."""
TIMING = 3.5e3
"""Cost of timing both kinds of products, in forward passes of a token, by timing SmolLM2."""
CACHE_TIMING = 10.0
"""Cost of a token of the context at which caches are timed: each is read five times."""
OUTLIERS, HEAD_OUTLIERS, GRADIENTS, ROUNDING = (0.9, 4e3), 4e3, 5.0, (2.2, 9e3)
"""Costs of a token, in forward passes of a token, by timing SmolLM2; second, the part that does not depend on
the text: candidates are rounded and compared."""


def adapted(config: QuantizeConfig, spec: ModelSpec) -> QuantizeConfig:
    """Return the settings adapted to a model.

    One that writes text only for a source is calibrated on given text; one that writes none reads up to its
    context.
    """
    task = task_of_spec(spec)
    if task.writes_unasked:
        return config
    if task.writes:
        return config.model_copy(update={"own_windows": 0})
    read = min(config.workload.read, spec.max_positions)
    return config.model_copy(update={"own_windows": 0, "workload": WorkloadConfig(read=read, write=0)})


def phases_of(config: QuantizeConfig, given: int, block_size: int) -> dict[str, float]:
    """Return the expected cost of each phase, in forward passes of a token."""
    own = config.own_windows * block_size
    tokens = given * block_size + own
    costs = {"writing text": writing_passes(config.own_windows, block_size)}
    if config.fold:
        each, once = OUTLIERS
        costs |= {
            "looking for outliers": each * tokens + once,
            "looking for the head's outliers": HEAD_OUTLIERS,
        }
    if config.scheme != "int8" or (config.products != "float" and config.activation_loss is not None):
        costs["taking gradients"] = GRADIENTS * FISHER_WINDOWS * block_size
    each, once = ROUNDING
    return costs | {"quantizing layers": each * tokens + once}


def expected(config: QuantizeConfig, before: ExpectedModel) -> Expected:
    """Return the formats for the settings, and the work."""
    spec = before.spec
    config = adapted(config, spec)
    length = min(config.calibration.block_size, spec.max_positions)
    if config.scheme == "fp16":
        halved = ExpectedModel(spec, weight_bytes=2, certain=before.certain)
        return Expected(halved, passes=length)
    timed = config.scheme == "int8" and config.products == "auto"
    timing = TIMING if timed else 0.0
    if may_gain(config, RootsConfig(spec=spec), portable=False):
        timing += CACHE_TIMING * caches_context(config.workload)
    products = likely_products(config, spec)
    formats = formats_of(config, spec, usual_format(config.scheme, products))
    matrices = spec.matrices()
    sizes = {
        name: group_size_of(config.group_size, chosen, matrices[name].width)
        for name, chosen in formats.items()
        if chosen != "w8a8"
    }
    quantization: dict[str, Any] = {**stored_sizes(config.group_size, sizes), "formats": formats}
    if config.cache == "int8":
        quantization["cache"] = "int8"
    windows = config.calibration.windows
    tokens = (windows + config.own_windows) * length
    certain = before.certain and not timed and config.max_loss is None
    phases = phases_of(config.model_copy(update={"products": products}), windows, length)
    del phases["writing text"]
    return Expected(
        ExpectedModel(spec, quantization, certain=certain),
        passes=sum(phases.values()) + timing,
        writes=(config.own_windows, length),
        held_bytes=2 * 4 * tokens * spec.width,  # The original stream, and the stream of the rounded layers.
    )


def likely_products(config: QuantizeConfig, spec: ModelSpec) -> Products:
    """Return which products a timing is likely to choose, from measurements on this kind of processor."""
    if config.products != "auto":
        return config.products
    processor = config.serve_on
    times = measured_times(
        processor_class(own_instruction_set()) if processor == "auto" else processor,
        layer_weights=sum(layer_weights(RootsConfig(spec=spec))),
        table_weights=spec.table_weights,
    )
    return "integer" if times is not None and integers_pay(times, config.workload) else "float"


def formats_of(config: QuantizeConfig, spec: ModelSpec, usual: Format) -> dict[str, Format]:
    """Return the likely format of each matrix; in int4, evenly spread inputs stay in 8 bits."""
    matrices = spec.matrices()
    tables = dict.fromkeys((LAYER_TABLE, LAYER_PROJECTION), format_of_tables(usual))
    tables |= {EMBEDDING: HIGHER, HEAD: HIGHER}
    formats = {name: tables.get(name, usual) for name in matrices}
    if usual != "w4":
        return formats
    prices: dict[tuple[str, ...], int] = {}
    for place, op in spec.blocks():
        for each in op.inputs():
            names = tuple(f"{spec.path(place)}.{name}" for name in each.consumers)
            prices[names] = sum(
                _bytes(config, matrices[name], HIGHER) - _bytes(config, matrices[name], usual)
                for name in names
            )
    total = sum(prices.values())
    share = config.eight_bit_fraction
    if config.max_bytes is not None:
        least = sum(_bytes(config, matrices[name], chosen) for name, chosen in formats.items())
        rest = 4 * (spec.parameters - sum(each.rows * each.width for each in matrices.values()))
        share = min(1.0, max(0.0, (config.max_bytes - least - rest) / max(1, total)))
    seen = taken = 0
    for names, price in prices.items():
        seen += price
        if taken + price <= share * seen:
            taken += price
            formats |= dict.fromkeys(names, HIGHER)
    return formats


def _bytes(config: QuantizeConfig, matrix: Matrix, chosen: Format) -> int:
    size = group_size_of(config.group_size, chosen, matrix.width)
    return matrix_bytes(matrix.rows, matrix.width, chosen, size)
