"""What a graph must be to serve as a decoder with a cache: its inputs, its outputs and their shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from roots_compress.errors import InputError
from roots_compress.io.genai_config import HEAD_SIZE
from roots_compress.runtime.onnx.graph_config import EXPORT_AGAIN, config_beside
from roots_compress.runtime.onnx.session import PAST_MEANS, PRESENT_MEANS, TOKEN_TYPES
from roots_compress.runtime.prompts import positions
from roots_compress.runtime.protocol import Tokens

TOKEN_INPUTS = ("input_ids", "attention_mask", "position_ids")
NEEDED_INPUTS = TOKEN_INPUTS[:2]
"""Those that every decoder reads. Some count positions themselves."""
PAST, PRESENT = "past_key_values.", "present."
KEY_VALUE = (".key", ".value")
ELEMENT_TYPES: dict[str, DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
CACHE_TYPES = ELEMENT_TYPES | {"tensor(int8)": np.int8}


@dataclass(frozen=True)
class KeyValue:
    """One cached tensor of a layer, `(B, heads, S, width)`: keys or values."""

    past: str
    present: str
    heads: int
    width: int
    dtype: DTypeLike
    of_source: bool = False
    """Whether it is of an encoder-decoder's cross-attention."""


@dataclass(frozen=True)
class State:
    """Another tensor that a step reads and gives anew, `(B, *shape)`; zeros, or nothing, before the first."""

    past: str
    present: str
    shape: tuple[int, ...]
    dtype: DTypeLike


def cached_tensors(session: Any, graph: Path) -> tuple[KeyValue, ...]:
    """Return the graph's cached keys and values.

    Raises:
        InputError: the graph's inputs and outputs are not those of a decoder with a KV cache.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    pasts = [name for name in inputs if name.startswith(PAST) and name.endswith(KEY_VALUE)]
    if not pasts and "position_ids" not in inputs:
        raise InputError(
            "the graph is an encoder's: it reads a whole text at once and generates none",
            where=graph,
            remedy="Name a graph of a causal language model.",
        )
    expected_outputs = {"logits", *(PRESENT + name.removeprefix(PAST) for name in pasts)}
    states = other_states(session)
    expected_outputs |= {state.present for state in states}
    known = {*TOKEN_INPUTS, *pasts, *(state.past for state in states)}
    if set(inputs) - known or {*NEEDED_INPUTS, *pasts} - set(inputs) or set(outputs) != expected_outputs:
        raise InputError(
            f"the graph's inputs {_names(inputs)} and outputs {_names(outputs)} are not a decoder's with a KV"
            f" cache: {_names(TOKEN_INPUTS)}, {PAST}N.key, .value; logits, {PRESENT}N.key, .value",
            where=graph,
            remedy=EXPORT_AGAIN,
        )
    wrong = [
        name
        for name in TOKEN_INPUTS
        if name in inputs and (inputs[name].type not in TOKEN_TYPES or _is_fixed(inputs[name].shape))
    ]
    wrong += ["logits"] * (outputs["logits"].type not in ELEMENT_TYPES)
    wrong += [name for name in pasts if inputs[name].type not in CACHE_TYPES]
    shapes = {name: _completed(inputs[name].shape, graph) for name in pasts}
    wrong += [name for name in pasts if not is_cache_shape(shapes[name])]
    if wrong:
        raise InputError(
            f"{_names(wrong)} of the graph has a type or shape that cannot be served: tokens are integers"
            " of any batch and length, logits float or float16, caches those or int8, of shape"
            " (batch, heads, length, width)",
            where=graph,
            remedy=EXPORT_AGAIN,
        )
    return tuple(
        KeyValue(
            past=name,
            present=PRESENT + name.removeprefix(PAST),
            heads=shapes[name][1],
            width=shapes[name][3],
            dtype=CACHE_TYPES[inputs[name].type],
        )
        for name in pasts
    )


def _completed(shape: list[Any], graph: Path) -> list[Any]:
    """Return a cache's shape; onnxruntime-genai leaves its width to the file beside the graph."""
    if len(shape) != 4 or isinstance(shape[3], int):
        return shape
    return [*shape[:3], config_beside(graph).get(HEAD_SIZE, shape[3])]


def token_types(session: Any) -> dict[str, DTypeLike]:
    """Return the types of the inputs that are given for each token, by their names, in a fixed order."""
    types = {value.name: value.type for value in session.get_inputs()}
    return {name: TOKEN_TYPES[types[name]] for name in TOKEN_INPUTS if name in types}


def token_feeds(
    types: Mapping[str, DTypeLike], input_ids: Tokens, mask: Tokens, graph: Path
) -> dict[str, NDArray[np.integer]]:
    """Return what a graph reads of new tokens `(B, T)` under the mask `(B, S)`, by its inputs' names.

    Args:
        types: as `token_types` returns them.
        graph: for messages.

    Raises:
        InputError: a row is padded, and the graph is not told where its tokens stand.
    """
    if "position_ids" not in types and not mask.all():
        raise InputError(
            "texts of unlike lengths are to be read together, and the graph has no input position_ids that "
            "would say where each begins",
            where=graph,
            remedy="Give one text at a time, or export the model with position_ids.",
        )
    positions_BT = positions(mask)[:, -input_ids.shape[1] :]
    given = dict(zip(TOKEN_INPUTS, (input_ids, mask, positions_BT), strict=True))
    return {name: np.ascontiguousarray(given[name], dtype=dtype) for name, dtype in types.items()}


def other_states(session: Any) -> tuple[State, ...]:
    """Return what a cache holds beside keys and values.

    These are the states of convolutions and of linear attention, of fixed sizes, and the mean keys of
    block-sparse layers, which need not be fed.
    """
    found = [
        (value, PRESENT_MEANS + value.name.removeprefix(PAST_MEANS))
        for value in session.get_overridable_initializers()
        if value.name.startswith(PAST_MEANS)
    ]
    found += [
        (value, value.name.replace(PAST, PRESENT).replace("past_", "present_"))
        for value in session.get_inputs()
        if value.name.startswith("past_") and not value.name.endswith(KEY_VALUE)
    ]
    return tuple(
        State(
            past=value.name,
            present=present,
            shape=tuple(size if isinstance(size, int) else 0 for size in value.shape[1:]),
            dtype=ELEMENT_TYPES[value.type],
        )
        for value, present in found
        if value.type in ELEMENT_TYPES
    )


def check_logits(session: Any, vocab_size: int, graph: Path) -> None:
    """Check that the logits are as wide as config.json says, so far as the graph says itself.

    Raises:
        InputError: they are not.
    """
    logits = next(value for value in session.get_outputs() if value.name == "logits")
    if not logits.shape or (isinstance(logits.shape[-1], int) and logits.shape[-1] != vocab_size):
        raise InputError(
            f"the logits have the shape {logits.shape}, and config.json a vocabulary of {vocab_size}",
            where=graph,
            remedy="Graph and config.json belong to different models. " + EXPORT_AGAIN,
        )


def _is_fixed(shape: list[int | str]) -> bool:
    return len(shape) != 2 or any(isinstance(size, int) for size in shape)


def is_cache_shape(shape: list[int | str]) -> bool:
    """Whether batch and length are open, and heads and width are not."""
    return len(shape) == 4 and [isinstance(size, int) for size in shape] == [False, True, False, True]


def _names(values: Collection[str]) -> str:
    """Name a few values, and say how many more there are."""
    shown = list(values)[:6]
    return ", ".join(shown) + (f" and {len(values) - len(shown)} more" if len(values) > len(shown) else "")
