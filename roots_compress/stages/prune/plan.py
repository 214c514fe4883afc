"""The plan of a cut: from ratios and scores to legal numbers of units. Pure functions without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roots_compress.configs.prune import PruneConfig
from roots_compress.errors import InputError, Key, Text
from roots_compress.models.ops.base import Axis, OpSpec, changed
from roots_compress.models.spec import Layer, ModelSpec
from roots_compress.tasks.registry import task_of_spec

if TYPE_CHECKING:
    from torch import Tensor


Units = Mapping[str, int]
"""The units to keep in each group of a block's axis, by the axis's name. Other axes are not cut."""
LayerTarget = Mapping[str, Units]
"""The units to keep in a layer, by block name."""


@dataclass(frozen=True)
class AxisNames:
    """The names of an axis in keys, errors and notes."""

    ratio: str
    """Its key in the recipe."""
    unit: str
    """Its units, for errors."""
    width: str
    """Its number of units, in notes."""
    time: str
    """A unit's part in the time of a token, in notes."""


AXES = {
    "queries": AxisNames("query_ratio", "query head in each key/value group", "num_attention_heads", "head"),
    "kv_groups": AxisNames("head_ratio", "key/value group", "num_key_value_heads", "group"),
    "value_heads": AxisNames(
        "value_head_ratio",
        "value head of each key head of linear attention",
        "linear_num_value_heads",
        "value_head",
    ),
    "key_heads": AxisNames(
        "key_head_ratio", "key head of linear attention", "linear_num_key_heads", "key_head"
    ),
    "conv_channels": AxisNames("conv_ratio", "convolution channel", "conv_channels", "conv_channel"),
    "mlp_channels": AxisNames("ratio", "MLP channel", "intermediate_size", "channel"),
    "experts": AxisNames("expert_ratio", "expert", "num_experts", "expert"),
    "expert_channels": AxisNames("ratio", "MLP channel", "moe_intermediate_size", "expert_channel"),
}
"""Every axis of a block, by its name."""
UNITS = {cut.ratio: cut.unit for cut in AXES.values()} | {"layer_ratio": "layer", "residual_ratio": "channel"}
"""The axis that each ratio cuts, by key."""


@dataclass(frozen=True)
class Plan:
    """Legal widths, known before any measurement, and the number of layers to keep."""

    layers: tuple[int, ...]
    """Layers to keep in each stack, in running order."""
    targets: tuple[LayerTarget, ...]
    """For every layer of the unpruned model, including those to be removed."""
    hidden_size: int
    """Width of the residual stream."""
    needed: int | None = None
    """Parameters to save at the least cost, if a target sets their number. With any target the widths above
    are the present ones."""


def plan_ratios(config: PruneConfig, spec: ModelSpec) -> Plan:
    """Return the widths for the ratios; needs only the model's shape.

    Raises:
        InputError: a ratio leaves no legal width (the message names the nearest that does), or the model has
            nothing that a ratio cuts.
    """
    _check_axes(config, spec)
    targets = tuple(
        {
            sublayer.name: {
                axis.name: kept_width(
                    axis.each,
                    ratio_of(config, axis.name),
                    step(axis, config.multiple_of),
                    key=AXES[axis.name].ratio,
                    at_least=axis.least,
                )
                for axis in sublayer.op.axes()
            }
            for sublayer in layer
        }
        for layer in spec.layers
    )
    return Plan(
        tuple(
            kept_width(len(stack.layers), config.layer_ratio, 1, key="layer_ratio") for stack in spec.running
        ),
        targets,
        kept_width(spec.width, config.residual_ratio, config.multiple_of, key="residual_ratio"),
    )


def _check_axes(config: PruneConfig, spec: ModelSpec) -> None:
    present = {axis.name for _, op in spec.blocks() for axis in op.axes()}
    ratios = {AXES[name].ratio for name in present}
    for name, cut in AXES.items():
        if ratio_of(config, name) and cut.ratio not in ratios:
            others = ", ".join(dict.fromkeys(AXES[each].ratio for each in AXES if each in present))
            raise InputError(
                f"{cut.ratio} {ratio_of(config, name)} cannot be met: the model has no {cut.unit} to cut",
                where=Key(cut.ratio),
                remedy=f"Set {cut.ratio} to 0. This model takes {others}, layer_ratio and residual_ratio.",
            )
    if config.residual_ratio and (reason := _fixed_stream(spec)):
        raise InputError(
            f"residual_ratio {config.residual_ratio} cannot be met: {reason}",
            where=Key("residual_ratio"),
            remedy="Set residual_ratio to 0, and cut other axes.",
        )


def _fixed_stream(spec: ModelSpec) -> str | None:
    """Return why the residual stream cannot be narrowed; None if every reader normalises it first."""
    for index, layer in enumerate(spec.layers):
        for each in layer:
            if each.stream_norm is not None:
                return (
                    f"layer {index} normalises the stream itself after each addition; over fewer channels "
                    "that norm changes all that follows, and no refit of what reads it makes up for that"
                )
            if each.joint_norm is not None:
                return (
                    f"layer {index} normalises what two blocks give together, and no refit makes up for that"
                )
            if each.pre_norm is None:
                return f"a block of layer {index} reads the stream without a norm, whose gain could be fitted"
    normed = all(stack.final_norm for stack in spec.running)
    return None if normed else "there is no final norm whose gain could be fitted"


def ratio_of(config: PruneConfig, axis: str) -> float:
    """Return the fraction of an axis to remove."""
    ratio: float = getattr(config, AXES[axis].ratio)
    return ratio


def step(axis: Axis, multiple_of: int) -> int:
    """Return the divisor of the number of kept units: `multiple_of` for single channels."""
    return multiple_of if axis.size == 1 else 1


def fewest(axis: Axis, multiple_of: int) -> int:
    """Return the fewest units that each group of an axis can keep."""
    return min(max(step(axis, multiple_of), axis.least), axis.each)


def shape_of(layer: Layer) -> LayerTarget:
    """Return a layer's numbers of units."""
    return {each.name: {axis.name: axis.each for axis in each.op.axes()} for each in layer}


def narrowed(layer: Layer, target: LayerTarget) -> Layer:
    """Return a layer after a cut to a target; axes that the target leaves out are not cut."""
    return tuple(changed(each, op=narrowed_block(each.op, target.get(each.name, {}))) for each in layer)


def narrowed_block(op: OpSpec, kept: Units) -> OpSpec:
    """Return a block after a cut, axis by axis."""
    for name in [axis.name for axis in op.axes() if axis.name in kept]:
        axis = next(axis for axis in op.axes() if axis.name == name)
        op = op.cut(name, kept[name] * axis.groups)
    return op


def kept_width(width: int, ratio: float, multiple_of: int, *, key: str, at_least: int = 1) -> int:
    """Return the multiple of `multiple_of` nearest to `width * (1 - ratio)`.

    Args:
        ratio: fraction to remove, between 0 and 1.
        multiple_of: widths that run fast are multiples of this.

    Raises:
        InputError: the nearest such width removes nothing or everything; the message names the nearest ratio
            that works.
    """
    if ratio == 0:
        return width
    least, most = max(multiple_of, at_least), (width - 1) // multiple_of * multiple_of
    if most < least:
        smaller = f"no multiple of {multiple_of} is below {width}"
        lower = "Lower multiple_of, or leave this width alone with a ratio of 0."
        if width <= at_least:
            has = f"one {UNITS[key]}, which" if width == 1 else f"{width} {UNITS[key]}s, all of which"
            smaller, lower = f"the model has {has} must stay", f"Set {key} to 0."
        raise InputError(f"{key} {ratio} leaves no legal width: {smaller}", where=Key(key), remedy=lower)
    kept = multiple_of * int(width * (1 - ratio) / multiple_of + 0.5)
    if not least <= kept <= most:
        nearest = most if kept > most else least
        unit = f" in multiples of {multiple_of}" if multiple_of > 1 else ""
        stays = f"{least} to {most} can stay{unit}" if least < most else f"only {least} can stay"
        raise InputError(
            f"{key} {ratio} leaves no legal width: of {width}, {stays}",
            where=Key(key),
            remedy=f"The nearest legal {key} is {1 - nearest / width:.4f}, which keeps {nearest}.",
        )
    return kept


def best_units(scores_U: Tensor, count: int) -> list[int]:
    """Return the `count` units of highest score, in rising order. Of equal scores the first is kept."""
    order = scores_U.cpu().argsort(descending=True, stable=True)
    return sorted(order[:count].tolist())


def best_of_each(scores_U: Tensor, groups: int, count: int) -> list[int]:
    """Return the `count` units of highest score in each of `groups` equal groups, in rising order."""
    size = len(scores_U) // groups
    return [
        group * size + unit
        for group, scores in enumerate(scores_U.view(groups, size))
        for unit in best_units(scores, count)
    ]


def adapted(config: PruneConfig, spec: ModelSpec) -> PruneConfig:
    """Return the settings adapted to a model: one that writes no text is calibrated on given text.

    Raises:
        InputError: a setting needs decoding, or predictions, which the model does not have.
    """
    task = task_of_spec(spec)
    if task.writes_unasked:
        return config
    if config.target is not None and config.target.decode_ms is not None:
        raise InputError(
            "decode_ms is the time of a token that a decoder without an encoder decodes, and this is none",
            where=Key("target", "decode_ms"),
            remedy=Text("Give ", Key("target", "parameters"), " or ", Key("target", "bytes"), "."),
        )
    if not task.predicts:
        for key, asked in (
            ("layer_ratio", config.layer_ratio > 0),
            ("target", config.target is not None),
            ("uniform", not config.uniform),
            ("score", config.score == "taylor"),
        ):
            if asked:
                raise InputError(
                    f"{key} needs predictions, and the model makes none: it gives vectors or scores",
                    where=Key(key),
                    remedy="Leave it out.",
                )
    return config.model_copy(update={"own_windows": 0})
