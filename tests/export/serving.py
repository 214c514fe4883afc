"""Runs a graph by its raw inputs and outputs, as a stranger to this project would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from roots_compress.export.graph import build_graph
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.runtime.onnx.session import session_settings
from roots_compress.system.machine import own_instruction_set

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def open_graph(model: RootsForCausalLM, *, portable: bool = False) -> Any:
    """Return a session over the model's graph."""
    return open_bytes(ir.to_proto(build_graph(model, portable=portable)).SerializeToString())


def open_bytes(graph: bytes | Path) -> Any:
    """Return a session on one thread, by the kernels that a graph of this project runs on."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for name, value in session_settings(own_instruction_set(), bounded=True).items():
        options.add_session_config_entry(name, value)
    source = graph if isinstance(graph, bytes) else str(graph)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def left_padded_mask(batch: int, tokens: int) -> Tensor:
    """Return `(B, T)` with rows from all tokens down to one."""
    lengths = torch.linspace(tokens, 1, batch).long()
    return (torch.arange(tokens) >= tokens - lengths[:, None]).long()


def serve(session: Any, input_ids: Tensor, mask: Tensor, splits: list[int]) -> NDArray[Any]:
    """Return logits `(B, T, V)`, feeding the tokens in pieces that end at each split and at T."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    pasts = {
        value.name: np.zeros(
            [len(input_ids), *(size if isinstance(size, int) else 0 for size in value.shape[1:])],
            FLOATS[value.type],
        )
        for value in session.get_inputs()
        if value.name.startswith("past_")
    }
    outputs = [output.name for output in session.get_outputs()]
    kept = {name.replace("past_key_values", "present").replace("past_", "present_"): name for name in pasts}
    names = [name for name in outputs if name == "logits" or name in kept]
    pieces, start = [], 0
    for end in [*splits, input_ids.shape[1]]:
        feed = {
            "input_ids": input_ids[:, start:end].numpy(),
            "attention_mask": mask[:, :end].numpy(),
            "position_ids": positions[:, start:end].numpy(),
            **pasts,
        }
        given = dict(zip(names, session.run(names, feed), strict=True))
        pieces.append(given.pop("logits"))
        pasts = {kept[name]: value for name, value in given.items()}
        start = end
    return np.concatenate(pieces, axis=1)


def expected(model: RootsWithHead, input_ids: Tensor, mask: Tensor) -> NDArray[Any]:
    """Return the checkpoint's logits `(B, T, V)` in one pass without a cache."""
    with torch.inference_mode():
        logits: NDArray[Any] = model(input_ids, attention_mask=mask, use_cache=False).logits.float().numpy()
    return logits


def relative_difference(actual: NDArray[Any], reference: NDArray[Any], mask: Tensor) -> float:
    """Return the largest difference outside padding, relative to the largest logit."""
    rows = mask.numpy().astype(bool)
    return float(np.abs(actual[rows] - reference[rows]).max() / np.abs(reference[rows]).max())
