"""Half precision: casts every weight to float16, after checking that nothing overflows."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from roots_compress.calibration.activations import batches
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import StageError
from roots_compress.models.blocks.moe import MoeBlock
from roots_compress.models.heads import RootsWithHead

LARGEST = 65504.0
"""The largest finite float16."""


def half_precision(model: RootsWithHead, windows: PackedWindows) -> RootsWithHead:
    """Return a float16 copy of a model; the biases for choosing experts stay in float32.

    The text runs in the model's own precision to find the largest activations.

    Raises:
        StageError: a weight, or a module's output on the text, is too large for float16.
    """
    for name, tensor in model.state_dict().items():
        _check(f"the weight {name}", tensor)

    def hook(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            _check(f"the output of {name} on the calibration text", output)

    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: hook(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            model(**next(batches(windows, 1)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    halved = copy.deepcopy(model)
    halved.half()
    for block, given in zip(halved.modules(), model.modules(), strict=True):
        # Biases as large as DeepSeek-V3's are 0.008 apart in float16, so other experts would be chosen.
        if isinstance(block, MoeBlock) and isinstance(given, MoeBlock) and given.spec.selection_bias:
            block.selection_bias = given.selection_bias.clone()
    halved.config.dtype = torch.float16
    halved.eval()
    return halved


def _check(what: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    largest = float(tensor.abs().amax())
    # Written so that NaN fails too.
    if not largest <= LARGEST:
        raise StageError(
            f"{what} reaches {largest:g}; float16 holds {LARGEST:g} at most",
            remedy="Keep this model in float32, or quantize it with `--int8`, whose scales are float32.",
        )
