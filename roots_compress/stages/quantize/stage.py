"""The `quantize` stage: a float checkpoint in, a quantized one and its choices out."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from roots_compress.calibration.own_text import with_own_text
from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.quantize import Products, QuantizeConfig
from roots_compress.data.documents import TextSplit
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, Key, StageError, Text
from roots_compress.evaluation.size import stored_bytes
from roots_compress.events import Events
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.limits import require_fusible
from roots_compress.models.quantized import Format, QuantizedWeight
from roots_compress.models.spec import HEAD
from roots_compress.progress import Phases
from roots_compress.results import Json
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.quantize.budget import check_budget, least_bytes
from roots_compress.stages.quantize.cache_choice import (
    MOST_LOST,
    cache_loss,
    choice_of,
    times_of_caches,
    with_cache,
)
from roots_compress.stages.quantize.expected import adapted, phases_of
from roots_compress.stages.quantize.groups import stored_sizes
from roots_compress.stages.quantize.half import half_precision
from roots_compress.stages.quantize.head import head_scale, round_head, round_layer_inputs
from roots_compress.stages.quantize.notes import bytes_of_forms, layer_errors, notes_of
from roots_compress.stages.quantize.plan import (
    InputCost,
    RoundingPlan,
    format_of_tables,
    higher_within_bytes,
    higher_within_loss,
    usual_format,
)
from roots_compress.stages.quantize.products.choice import choose
from roots_compress.stages.quantize.products.times import form_times, served_on
from roots_compress.stages.quantize.sensitivity import rounding_costs
from roots_compress.stages.quantize.smoothing import outlier_scales
from roots_compress.stages.quantize.walk import Rounded, round_layers
from roots_compress.tasks.registry import task_of_model


def quantize(config: QuantizeConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
    """Store a model's weights in fewer bits.

    Args:
        checkpoint: a float32 model; it is not changed.
        context: its training text is read to measure activations; its seed draws the calibration windows, the
            text that the model writes, and labels. Its folder keeps the timings for a restart; the rest is
            short enough to repeat.

    Raises:
        InputError: the model is quantized or in half precision already, or the text is too short.
        StageError: weights or activations are not finite, or overflow float16; or the result is not as
            planned.
        GateMissedError: `max_bytes` is less than the model takes with all layers in 4 bits.
    """
    model, device, seed = checkpoint.model, context.device, context.seed
    _check_source(model, config)
    config = adapted(config, model.config.spec)
    windows = planned(config, checkpoint, context.text, seed=seed)
    if config.scheme == "fp16":
        halved = half_precision(model, windows)
        return StageOutcome(
            Checkpoint(halved, checkpoint.tokenizer),
            {"scheme": "fp16", "bytes": stored_bytes(halved), "bytes_before": stored_bytes(model)},
        )
    deciding = config.scheme == "int8" and config.products == "auto"
    times = None
    if deciding:
        times = form_times(
            config,
            model.config,
            context.work,
            context.chosen,
            portable=context.export.portable,
            events=context.events,
        )
    caches = times_of_caches(config, model.config, context)
    config = with_cache(config, caches)
    nn.Module.to(model, device)
    try:
        with Phases(context.events, "quantize", phases_of(config, *windows.input_ids.shape)) as phases:
            windows = with_own_text(windows, checkpoint, config.own_windows, seed=seed, events=phases)

            def plan_of(products: Products) -> RoundingPlan:
                return _planned(model, windows, config, products, seed=seed, device=device, events=phases)

            choice = None
            if deciding:
                plan, choice = choose(config, served_on(config), times, plan_of)
            else:
                plan = plan_of("float" if config.products == "float" else "integer")
            rounded, stream = round_layers(model, windows, config, plan, device=device, events=phases)
        round_head(model, stream, plan.scales.get(HEAD), config.group_size, rounded)
        round_layer_inputs(model, format_of_tables(plan.usual), config.group_size, rounded)
    finally:
        nn.Module.to(model, "cpu")
    quantized = assemble(model, rounded, config)
    chosen: dict[str, Json] = {} if choice is None else choice.to_json()
    if caches is not None:
        added = cache_loss(quantized, windows) if config.cache == "int8" else None
        if added is not None and not added <= MOST_LOST:
            config = config.model_copy(update={"cache": "float"})
            quantized = assemble(model, rounded, config)
        chosen |= {"cache": config.cache, "cache_choice": choice_of(config, caches, added)}
    _check_result(model, quantized, rounded)
    notes = notes_of(config, model, quantized, rounded, plan)
    if choice is not None:
        notes["choice"] = {**choice.to_json(), "bytes": bytes_of_forms(config, model, quantized, choice)}
    if caches is not None:
        notes["cache_choice"] = chosen["cache_choice"]
    return StageOutcome(
        Checkpoint(quantized, checkpoint.tokenizer),
        notes,
        chosen or None,
        layer_errors=layer_errors(model, rounded, plan),
    )


def planned(config: QuantizeConfig, checkpoint: Checkpoint, text: TextSplit, *, seed: int) -> PackedWindows:
    """Return the text to calibrate on, after checking that the settings suit the model.

    The model's weights are not read: they need no storage.

    Raises:
        InputError: the text is too short.
        GateMissedError: `max_bytes` is less than the model takes with all layers in 4 bits.
    """
    model = checkpoint.model
    config, task = adapted(config, model.config.spec), task_of_model(model)
    settings = config.calibration
    check_budget(model, config)
    block_size = min(settings.block_size, model.config.max_position_embeddings)
    windows = task.training_windows(
        text.train, checkpoint.tokenizer, block_size, seed=seed, limit=settings.windows
    )
    if config.compensate and config.scheme != "fp16":
        _check_calibration(model, windows, config.own_windows, writes=task.writes)
    return windows


def _check_source(model: RootsWithHead, config: QuantizeConfig) -> None:
    if model.config.quantization:
        raise InputError(
            "the model is quantized already",
            remedy="Give the checkpoint from before quantization.",
        )
    if config.cache == "int8":
        require_fusible(model.config.is_fusible)
    for name, parameter in model.named_tensors().items():
        if parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise InputError(
                f"the model's {name} is {kind}, and quantization starts from float32",
                remedy="Give the float32 checkpoint that this one was made from.",
            )
        if not torch.isfinite(parameter).all():
            raise StageError(f"{name} holds NaN or infinite weights", remedy="The checkpoint is broken.")


def _check_calibration(model: RootsWithHead, windows: PackedWindows, own: int, *, writes: bool) -> None:
    """Refuse fewer tokens than a matrix has inputs: compensation would overfit them."""
    widest = max(matrix.width for matrix in model.config.spec.matrices().values())
    count, block_size = windows.input_ids.shape
    tokens, needed = (count + own) * block_size, -(-widest // block_size)
    among = ", the model's own among them" if writes else ""
    if tokens < widest:
        raise InputError(
            f"{tokens} tokens of calibration text are too few for matrices of {widest} inputs",
            where=Key("calibration"),
            remedy=Text(
                f"{needed} windows of {block_size} tokens are needed{among}: give more text, raise ",
                Key("calibration", "windows"),
                *((" or ", Key("own_windows")) if writes else ()),
                ", or set ",
                Key("compensate"),
                " to false.",
            ),
        )


def _planned(
    model: RootsWithHead,
    windows: PackedWindows,
    config: QuantizeConfig,
    products: Products,
    *,
    seed: int,
    device: str,
    events: Events,
) -> RoundingPlan:
    """Decide which scales to fold, and for which inputs the usual format costs too much."""
    usual, size = usual_format(config.scheme, products), config.group_size
    scales: dict[str, Tensor] = {}
    if config.fold:
        scales, stream = outlier_scales(model, windows, usual, size, device=device, events=events)
        if (scale_W := head_scale(model, windows, stream, size, events=events)) is not None:
            scales[HEAD] = scale_W
    if config.scheme == "int8" and (products == "float" or config.activation_loss is None):
        return RoundingPlan(usual, scales, ())
    costs = rounding_costs(model, windows, usual, size, scales, seed=seed, device=device, events=events)
    return plan_by_costs(config, model, usual, scales, costs)


def plan_by_costs(
    config: QuantizeConfig,
    model: RootsWithHead,
    usual: Format,
    scales: Mapping[str, Tensor],
    costs: Mapping[str, InputCost],
) -> RoundingPlan:
    """Return which inputs get the usual format, by its cost for each of them and the settings."""
    allowed = config.activation_loss if config.scheme == "int8" else config.max_loss
    if allowed is not None:
        higher = higher_within_loss(costs, allowed)
    elif config.max_bytes is not None:
        higher = higher_within_bytes(costs, config.max_bytes - least_bytes(model, config))
    else:
        prices = sum(cost.price for cost in costs.values())
        higher = higher_within_bytes(costs, int(config.eight_bit_fraction * prices))
    rest = [cost for name, cost in costs.items() if name not in higher]
    share = sum(cost.price for cost in rest) / max(1, sum(cost.price for cost in costs.values()))
    return RoundingPlan(usual, scales, higher, sum(cost.loss for cost in rest), share)


def assemble(model: RootsWithHead, rounded: Rounded, settings: QuantizeConfig) -> RootsWithHead:
    """Return a new model, in eval mode on the CPU, from the quantized and the remaining tensors."""
    config = copy.deepcopy(model.config)
    config.quantization = {
        **stored_sizes(settings.group_size, rounded.group_sizes),
        "formats": dict(sorted(rounded.formats.items())),
        **({"fixed_inputs": sorted(rounded.fixed_inputs)} if rounded.fixed_inputs else {}),
        **({"cache": settings.cache} if settings.cache == "int8" else {}),
    }
    quantized: RootsWithHead = make_model(config).eval()
    if model.can_generate():
        quantized.generation_config = copy.deepcopy(model.generation_config)
    old = model.state_dict()
    state = {name: rounded.state.get(name, old.get(name)) for name in quantized.state_dict()}
    quantized.load_state_dict(state, strict=True)
    return quantized


def _check_result(model: RootsWithHead, quantized: RootsWithHead, rounded: Rounded) -> None:
    """Check that the result is as planned."""
    modules = {name for name, module in quantized.named_modules() if isinstance(module, QuantizedWeight)}
    matrices = model.config.spec.matrices().keys()
    if not modules == matrices == rounded.formats.keys():
        raise StageError(
            "these modules are not as planned: "
            f"{sorted((modules ^ matrices) | (matrices ^ rounded.formats.keys()))}",
            remedy="This is a fault of roots-compress: please report it with the checkpoint's config.json.",
        )
    for name, tensor in quantized.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise StageError(
                f"{name} holds NaN or infinite values after quantization",
                remedy="Check the checkpoint's weights, or set fold or compensate to false.",
            )
    before, after = stored_bytes(model), stored_bytes(quantized)
    if after >= before:
        raise StageError(
            f"the quantized weights take {after} bytes, those before {before}",
            remedy="The layers are too narrow for groups: lower group_size.",
        )
