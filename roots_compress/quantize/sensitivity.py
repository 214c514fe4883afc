"""What 4 bits would cost each site in the model's loss, measured once on the float model.

The loss grows by half the expected square of its gradient along a change: the Fisher information's view of
small changes (Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting"; Li et al. 2021, "BRECQ"). The
change is that of a site's outputs when its matrices are rounded to the nearest of 4 bits; each token counts
by itself. An error relative to the outputs would not know where they lead: in SmolLM2 one down projection of
thirty carries a quarter of the cost of all 120 sites.

Shape legend: T tokens of a window, I inputs and O outputs of a matrix.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from roots_compress.data.windows import PackedWindows
from roots_compress.model.gradients import observe_gradients
from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.model.quantized import matrix_bytes
from roots_compress.quantize.plan import SiteCost
from roots_compress.quantize.rounding import quantize_matrix
from roots_compress.quantize.sites import attention_sites, mlp_sites

WINDOWS = 8
"""Windows whose gradients are taken: enough to tell sites apart, as their costs span three orders."""


def four_bit_costs(
    model: RootsForCausalLM, windows: PackedWindows, group_size: int, *, seed: int, device: str
) -> dict[str, SiteCost]:
    """Return each site's cost by its full name, such as `model.layers.0.mlp.down_proj`.

    Memory holds the changes of all matrices in bfloat16: half of the model's own.

    Args:
        model: a float32 model on `device`.
        windows: calibration text, of which the first few windows are read.
        group_size: columns that share a scale.
        seed: draws the labels that make the gradients' second moment the Fisher information.
        device: where to compute.
    """
    site_of: dict[str, str] = {}
    changes: dict[str, Tensor] = {}
    saved: dict[str, int] = defaultdict(int)
    for index, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{index}."
        for site in (*attention_sites(layer), *mlp_sites(layer, model.config.activation)):
            for name, linear in site.consumers.items():
                weight = linear.weight.detach()
                rounded = quantize_matrix(weight, "w4", group_size, clip=False).dequantize()
                changes[prefix + name] = (rounded - weight).bfloat16()
                site_of[prefix + name] = prefix + site.name
                saved[prefix + site.name] += _saved_bytes(linear, group_size)
    losses: dict[str, float] = defaultdict(float)

    def observer(name: str, inputs_TI: Tensor, gradients_TO: Tensor) -> None:
        moved_TO = inputs_TI @ changes[name].float().T
        losses[site_of[name]] += float((moved_TO * gradients_TO).sum(dim=1).square().sum()) / 2

    few = PackedWindows(windows.input_ids[:WINDOWS], windows.labels[:WINDOWS], windows.segment_ids[:WINDOWS])
    labels = torch.Generator().manual_seed(seed)
    observe_gradients(model, few, site_of, observer, sampled=labels, device=device)
    return {name: SiteCost(losses[name] / few.input_ids.size, saved[name]) for name in saved}


def _saved_bytes(linear: nn.Linear, group_size: int) -> int:
    rows, width = linear.weight.shape
    return matrix_bytes(rows, width, "w8", group_size) - matrix_bytes(rows, width, "w4", group_size)
