"""The notes of the quantize stage for reports."""

from __future__ import annotations

from collections import Counter

from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.evaluation.size import stored_bytes
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.quantized import Format, QuantizedLinear, QuantizedWeight, matrix_bytes
from roots_compress.results import Json, LayerError
from roots_compress.stages.quantize.groups import group_size_of
from roots_compress.stages.quantize.inputs import bound_inputs
from roots_compress.stages.quantize.plan import RoundingPlan
from roots_compress.stages.quantize.products.choice import Choice
from roots_compress.stages.quantize.walk import BITS, Rounded

WORST_LISTED = 5


def bytes_of_forms(
    config: QuantizeConfig, model: RootsWithHead, quantized: RootsWithHead, choice: Choice
) -> dict[str, Json]:
    """Return the model's bytes with the chosen products, and with the others.

    Integer products leave the same inputs in floating point as in the times that were compared.
    """
    size = other = stored_bytes(quantized)
    into: Format = "w8a8" if choice.products == "float" else "w8"
    for index, layer in enumerate(model.model.all_layers()):
        prefix = f"{model.config.spec.layer_path(index)}."
        for each in (each for half in layer.halves for each in bound_inputs(half)):
            if prefix + each.name in choice.higher:
                continue
            for name in each.consumers:
                module = quantized.get_submodule(prefix + name)
                assert isinstance(module, QuantizedLinear)
                for sign, form in ((-1, module.format), (1, into)):
                    size_of = group_size_of(config.group_size, form, module.width)
                    other += sign * matrix_bytes(module.rows, module.width, form, size_of)
    return {choice.products: size, "integer" if choice.products == "float" else "float": other}


def layer_errors(model: RootsWithHead, rounded: Rounded, plan: RoundingPlan) -> tuple[LayerError, ...]:
    """Return each matrix's rounding error on the calibration text, its input's rounding included."""
    spec, inputs = model.config.spec, dict[str, str]()
    for index, layer in enumerate(model.model.all_layers()):
        prefix = f"{spec.layer_path(index)}."
        for each in (each for half in layer.halves for each in bound_inputs(half)):
            inputs |= dict.fromkeys((prefix + name for name in each.consumers), prefix + each.name)
    return tuple(
        LayerError(name, rounded.errors[name] ** 2, inputs.get(name) in plan.higher)
        for name in spec.matrices()
        if name in rounded.errors
    )


def notes_of(
    config: QuantizeConfig,
    model: RootsWithHead,
    quantized: RootsWithHead,
    rounded: Rounded,
    plan: RoundingPlan,
) -> dict[str, Json]:
    """Return the stage's notes for a report."""
    counts = Counter((name.rsplit(".", 1)[-1], chosen) for name, chosen in rounded.formats.items())
    formats: dict[str, Json] = {f"{kind} {chosen}": count for (kind, chosen), count in sorted(counts.items())}
    weights: Counter[int] = Counter()
    for name, chosen in rounded.formats.items():
        matrix = quantized.get_submodule(name)
        assert isinstance(matrix, QuantizedWeight)
        weights[BITS[chosen]] += matrix.rows * matrix.width
    total = sum(parameter.numel() for parameter in model.parameters())
    worst = sorted(rounded.errors, key=lambda name: rounded.errors[name], reverse=True)[:WORST_LISTED]
    return {
        "scheme": config.scheme,
        "formats": formats,
        "share_in_8_bits": weights[8] / total,
        "share_in_4_bits": weights[4] / total,
        "cache": config.cache,
        "folded_sites": plan.folded,
        "spared_sites": list[Json](sorted(plan.higher)),
        "expected_loss": plan.expected_loss,
        "largest_relative_errors": {name: rounded.errors[name] for name in worst},
        "bytes": stored_bytes(quantized),
        "bytes_before": stored_bytes(model),
    }
