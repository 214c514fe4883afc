"""The cost of rounding each input and its matrices in the model's loss, measured once on the float model.

The loss grows by half the expected square of its gradient along a change: the Fisher information's view of
small changes (Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting"; Li et al. 2021, "BRECQ"). The
change is that of the outputs when the matrices are rounded to 4 bits, or the input to 8; tokens are
independent. Costs are in nats a prediction (of a token, or of a text). An error relative to the outputs would
not show their effect on the loss: in SmolLM2 one down projection of thirty carries a quarter of the cost of
all 120 inputs in 4 bits, and three of them a third of what quantizing inputs costs.

Shape legend: T tokens of a window, I inputs and O outputs of a matrix.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from roots_compress.calibration.gradients import observe_gradients, positions_read
from roots_compress.configs.quantize import GroupSetting
from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.quantized import Format, matrix_bytes, rounded_input
from roots_compress.progress import bar
from roots_compress.stages.quantize.groups import group_size_of
from roots_compress.stages.quantize.inputs import bound_inputs
from roots_compress.stages.quantize.plan import InputCost
from roots_compress.stages.quantize.rounding import quantize_matrix

Change = Callable[[Tensor], Tensor]
"""Returns the change of a matrix's outputs `TO` for inputs `TI`."""
WINDOWS = 8
"""Windows for the gradients: enough to tell inputs apart, because their costs span three orders of
magnitude."""


def rounding_costs(
    model: RootsWithHead,
    windows: PackedWindows,
    weight_format: Format,
    group_size: GroupSetting,
    scales: Mapping[str, Tensor],
    *,
    seed: int,
    device: str,
    events: Events,
) -> dict[str, InputCost]:
    """Return each input's cost by its first consumer, such as `model.layers.0.mlp.down_proj`.

    `w4` rounds weights, `w8a8` inputs; `scales` are folded before. The first few windows are read. `seed` is
    for sampling the labels, with which the gradients' second moment is the Fisher information.
    """
    input_of: dict[str, str] = {}
    change_of: dict[str, Change] = {}
    prices: dict[str, int] = defaultdict(int)
    for index, layer in enumerate(model.model.all_layers()):
        prefix = f"{model.config.spec.layer_path(index)}."
        for each in (each for half in layer.halves for each in bound_inputs(half)):
            scale_C = scales.get(prefix + each.name)
            for name, linear in each.consumers.items():
                weight_OI = linear.weight.detach()
                if scale_C is None:
                    scale_C = torch.ones(weight_OI.shape[1], device=weight_OI.device)
                input_of[prefix + name] = prefix + each.name
                if weight_format == "w4":
                    change_of[prefix + name] = _rounded_weight(weight_OI, scale_C, group_size)
                    prices[prefix + each.name] += _bytes_saved(linear, group_size)
                else:
                    change_of[prefix + name] = _rounded_input(weight_OI, scale_C)
                    prices[prefix + each.name] += int(weight_OI.numel() * each.spec.share)
    losses: dict[str, float] = defaultdict(float)

    def observer(name: str, inputs_TI: Tensor, gradients_TO: Tensor) -> None:
        moved_TO = change_of[name](inputs_TI)
        losses[input_of[name]] += float((moved_TO * gradients_TO).sum(dim=1).square().sum()) / 2

    few = windows[:WINDOWS]
    labels = torch.Generator().manual_seed(seed)
    with bar(events, "taking gradients") as progress:
        observe_gradients(model, few, input_of, observer, sampled=labels, device=device, progress=progress)
    predictions = int(positions_read(model, few).sum())
    return {name: InputCost(losses[name] / predictions, prices[name]) for name in prices}


def _rounded_weight(weight_OI: Tensor, scale_I: Tensor, group_size: GroupSetting) -> Change:
    """Return the change of outputs when the folded weight is rounded to 4 bits; bfloat16 saves memory."""
    size = group_size_of(group_size, "w4", weight_OI.shape[1])
    rounded_OI = quantize_matrix(weight_OI * scale_I, "w4", size, clip=False).dequantize() / scale_I
    change_OI = (rounded_OI - weight_OI).bfloat16()
    return lambda inputs_TI: inputs_TI @ change_OI.float().T


def _rounded_input(weight_OI: Tensor, scale_I: Tensor) -> Change:
    """Return the change of outputs when the folded input is rounded to 8 bits, token by token."""

    def change(inputs_TI: Tensor) -> Tensor:
        rounded_TI = rounded_input(inputs_TI / scale_I, "w8a8", group_size=0) * scale_I
        return (rounded_TI - inputs_TI) @ weight_OI.T

    return change


def _bytes_saved(linear: nn.Linear, group_size: GroupSetting) -> int:
    rows, width = linear.weight.shape
    formats: tuple[Format, Format] = ("w8", "w4")
    eight, four = (
        matrix_bytes(rows, width, each, group_size_of(group_size, each, width)) for each in formats
    )
    return eight - four
