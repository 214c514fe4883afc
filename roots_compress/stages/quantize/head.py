"""The output head and the embedding, both in 8 bits; one table if they are tied.

The head's input comes from the final norm, like an input of a layer from its norm (`inputs.py`). So a scale
can be folded into the norm at no cost, and the head's columns compensate it. It pays: in SmolLM2 a few
channels there are up to 33 times as large as most, and rounding them together with others in a group costs
more than all weights in 8 bits. With a tied head, embeddings that are looked up are divided by the scale
again (`QuantizedEmbedding.lookup_scale`). The candidate scales are those of weight-only formats in the layers
(AWQ, Lin et al. 2024).

Shape legend: V vocabulary, W hidden size, R rows (positions in the text).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.calibration.activations import ResidualStream, batches
from roots_compress.configs.quantize import GroupSetting
from roots_compress.data.windows import PackedWindows
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.quantized import Format, rounded_input
from roots_compress.models.spec import EMBEDDING, HEAD, LAYER_PROJECTION, LAYER_TABLE
from roots_compress.progress import track
from roots_compress.stages.quantize.groups import group_size_of
from roots_compress.stages.quantize.inputs import SAMPLED_ROWS, SeenInput
from roots_compress.stages.quantize.rounding import quantize_matrix
from roots_compress.stages.quantize.smoothing import energy_scales, output_error, relative_error
from roots_compress.stages.quantize.walk import Rounded

HEAD_FORMAT: Format = "w8"
"""Format of both: tables are looked up row by row, and 4 bits cost the head more than they save."""
JUDGED_WINDOWS = 4
"""Windows of calibration text on which scales are compared."""
JUDGED_TOKENS = 128
"""Tokens of each, from the first on: a tied table takes a forward pass for every scale."""
JUDGED_ROWS = 256
"""Evenly spaced positions in them whose predictions are compared."""
ROUNDED_ROWS = 4096
"""Rows of a table for all layers that are rounded at a time; it may be most of a model."""


@torch.no_grad()
def head_input(model: RootsWithHead, stream: ResidualStream) -> SeenInput:
    """Return the output head's input from a stream that has passed all layers."""
    stride = max(1, sum(hidden_BTW[..., 0].numel() for hidden_BTW in stream.hidden) // SAMPLED_ROWS)
    seen = SeenInput(model.config.table_width, stride=stride, device=stream.device)
    for hidden_BTW in stream.hidden:
        states_BTW = model.model.normed(hidden_BTW.to(stream.device))
        seen.update(model.head_input(states_BTW).flatten(0, -2))
    seen.statistics.check(HEAD)
    return seen


@torch.no_grad()
def head_scale(
    model: RootsWithHead,
    windows: PackedWindows,
    stream: ResidualStream,
    group_size: GroupSetting,
    *,
    events: Events,
) -> Tensor | None:
    """Return the channel scale `W` with the least error of the predictions; None if none helps.

    Without a norm before the head no scale can be folded. A scale that suits the head may harm the
    embeddings, so both are rounded, and the divergence from the float model is measured at the end.
    """
    if model.head_norm is None:
        return None
    spread = windows[:: max(1, len(windows.input_ids) // JUDGED_WINDOWS)][:JUDGED_WINDOWS]
    judged = spread.beginning(JUDGED_TOKENS)
    tied, head_VW = model.config.tie_word_embeddings, _matrix(model, HEAD)
    size = group_size_of(group_size, HEAD_FORMAT, head_VW.shape[1])
    plain_RW = _final_states(model, judged, _matrix(model, EMBEDDING), stream.device)
    expected_RV = F.log_softmax(model.bounded(plain_RW @ head_VW.T), dim=-1)

    def divergence(scale_W: Tensor) -> float:
        rounded_VW = quantize_matrix(head_VW * scale_W, HEAD_FORMAT, size).dequantize()
        states_RW = plain_RW
        if tied:
            states_RW = _final_states(model, judged, rounded_VW / scale_W, stream.device)
        inputs_RW = rounded_input(states_RW / scale_W, HEAD_FORMAT, size)
        found_RV = F.log_softmax(model.bounded(inputs_RW @ rounded_VW.T), dim=-1)
        return float(F.kl_div(found_RV, expected_RV, reduction="batchmean", log_target=True))

    best, least = None, divergence(torch.ones_like(head_VW[0]))
    scales = energy_scales(head_input(model, stream).mean_square)
    for scale_W in track(scales, events, "looking for the head's outliers"):
        if (found := divergence(scale_W)) < least:
            best, least = scale_W, found
    return best


def _final_states(model: RootsWithHead, windows: PackedWindows, table_VW: Tensor, device: str) -> Tensor:
    """Return the head's input, `RW` at some positions, with these embedding rows."""
    states = []
    embedding = model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _module, ids, _output: F.embedding(ids[0], table_VW))
    try:
        for inputs in batches(windows, device=device):
            output = model.model(**inputs, use_cache=False)
            states.append(model.head_input(output.last_hidden_state).flatten(0, -2))
    finally:
        handle.remove()
    states_NW = torch.cat(states)
    return states_NW[:: max(1, len(states_NW) // JUDGED_ROWS)]


@torch.no_grad()
def round_head(
    model: RootsWithHead,
    stream: ResidualStream,
    scale_W: Tensor | None,
    group_size: GroupSetting,
    rounded: Rounded,
) -> None:
    """Add the embedding, the head and the norm before it to the rounded tensors.

    The stream has passed all layers, quantized; the model is left as it is.
    """
    spec, table_VW = model.config.spec, _matrix(model, EMBEDDING)
    size = group_size_of(group_size, HEAD_FORMAT, table_VW.shape[1])
    if not (spec.head.predicts_tokens and spec.tied):
        table = quantize_matrix(table_VW, HEAD_FORMAT, size)
        rounded.add(EMBEDDING, table, relative_error(table_VW, table.dequantize()))
    if not spec.head.predicts_tokens:
        return
    seen, head_VW = head_input(model, stream), _matrix(model, HEAD)
    if scale_W is None:
        scale_W = torch.ones_like(seen.mean_square)
    if (norm := model.head_norm) is not None:
        for name, parameter in model.get_submodule(norm).named_parameters():
            rounded.state[f"{norm}.{name}"] = (parameter / scale_W).cpu()
    head_VW = head_VW * scale_W
    sample_SW, importance_W = seen.sample / scale_W, seen.mean_square / scale_W.square()
    if spec.tied:
        # Stored once, in the format for both lookup and product, without weighting for either.
        table = quantize_matrix(head_VW, HEAD_FORMAT, size)
        rounded.add(EMBEDDING, table, output_error(sample_SW, head_VW, table))
        rounded.state[f"{EMBEDDING}.lookup_scale"] = (1 / scale_W).cpu()
        return
    head = quantize_matrix(head_VW, HEAD_FORMAT, size, importance_C=importance_W)
    rounded.add(HEAD, head, output_error(sample_SW, head_VW, head))


def round_layer_inputs(
    model: RootsWithHead, weight_format: Format, group_size: GroupSetting, rounded: Rounded
) -> None:
    """Add per-layer embeddings (table and projection), if any, to the rounded tensors."""
    for name in (each for each in (LAYER_TABLE, LAYER_PROJECTION) if each in model.config.spec.matrices()):
        weight_RC = _matrix(model, name)
        size = group_size_of(group_size, weight_format, weight_RC.shape[1])
        parts, lost, whole = list[dict[str, Tensor]](), 0.0, 0.0
        for rows_RC in weight_RC.split(ROUNDED_ROWS):
            matrix = quantize_matrix(rows_RC, weight_format, size)
            parts.append({key: tensor.cpu() for key, tensor in matrix.buffers().items()})
            lost += float((matrix.dequantize() - rows_RC).double().square().sum())
            whole += float(rows_RC.double().square().sum())
        rounded.note(name, matrix, (lost / whole) ** 0.5 if whole else 0.0)
        rounded.state |= {f"{name}.{key}": torch.cat([each[key] for each in parts]) for key in parts[0]}


def _matrix(model: RootsWithHead, name: str) -> Tensor:
    return model.get_submodule(name).get_parameter("weight").detach()
