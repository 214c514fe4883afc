"""The two graphs of an encoder-decoder: their files, inputs and outputs, in optimum's names.

The decoder's graph serves with its caches and without: where it is given no keys and values of the source,
it computes them from the encoder's output, and returns them. With them it reads the cached ones, and returns
none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from roots_compress.errors import InputError
from roots_compress.runtime.onnx.decoder_graph import ELEMENT_TYPES, PAST, PRESENT, KeyValue, is_cache_shape
from roots_compress.runtime.onnx.graph_config import EXPORT_AGAIN

if TYPE_CHECKING:
    from roots_compress.models.ops.attention import Attention
    from roots_compress.models.spec import ModelSpec

ENCODER_GRAPH: Final = "encoder_model.onnx"
DECODER_GRAPH: Final = "decoder_model_merged.onnx"
"""By this name optimum takes one decoder for the first token and for those after it."""
STATES: Final = "last_hidden_state"
"""What the encoder's graph gives."""
SOURCE_INPUTS: Final = ("input_ids", "attention_mask")
DECODER_INPUTS: Final = ("input_ids", "encoder_attention_mask", "encoder_hidden_states")
BRANCH: Final = "use_cache_branch"
"""By it optimum's own graphs are told whether there are caches, which ours see from the caches' lengths."""

Axes = dict[str, dict[int, str]]


class Cached(NamedTuple):
    """An attention of the decoder, whose keys and values are cached."""

    name: str
    """In the names of inputs and outputs: `0.decoder` of self-attention, `0.encoder` of cross-attention."""
    op: Attention


def cached_attentions(spec: ModelSpec) -> list[Cached]:
    """Return the decoder's attentions, in the order in which they run."""
    from roots_compress.models.ops.attention import Attention

    return [
        Cached(f"{index}.{'decoder' if sublayer.op.source == 'self' else 'encoder'}", sublayer.op)
        for index, layer in enumerate(spec.stack.layers)
        for sublayer in layer
        if isinstance(sublayer.op, Attention)
    ]


def encoder_axes() -> tuple[Axes, Axes]:
    """Return the inputs and the output of the encoder's graph, and their dynamic axes."""
    by_token = {0: "batch_size", 1: "encoder_sequence_length"}
    return dict.fromkeys(SOURCE_INPUTS, by_token), {STATES: by_token}


def decoder_axes(spec: ModelSpec) -> tuple[Axes, Axes]:
    """Return the inputs and outputs of the decoder's graph, caches included, and their dynamic axes."""
    by_token = {0: "batch_size", 1: "decoder_sequence_length"}
    of_source = {0: "batch_size", 1: "encoder_sequence_length"}
    inputs = {"input_ids": by_token, "encoder_attention_mask": of_source, "encoder_hidden_states": of_source}
    outputs = {"logits": by_token}
    for name, op in cached_attentions(spec):
        before, after = ("past", "total") if op.source == "self" else ("past_source", "new_source")
        for part in ("key", "value"):
            inputs[f"{PAST}{name}.{part}"] = {0: "batch_size", 2: f"{before}_sequence_length"}
            outputs[f"{PRESENT}{name}.{part}"] = {0: "batch_size", 2: f"{after}_sequence_length"}
    return inputs, outputs


def cached_tensors(session: Any, graph: Path) -> tuple[KeyValue, ...]:
    """Return the decoder's cached tensors, in the graph's order.

    Raises:
        InputError: the graph's inputs and outputs are not those of a decoder that reads an encoder's output.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name for value in session.get_outputs()}
    pasts = [name for name in inputs if name.startswith(PAST)]
    presents = [PRESENT + name.removeprefix(PAST) for name in pasts]
    known = all(name.split(".")[-2] in ("decoder", "encoder") for name in pasts if name.count(".") == 3)
    read = {*inputs} - {BRANCH}
    if not pasts or not known or read != {*DECODER_INPUTS, *pasts} or outputs != {"logits", *presents}:
        raise InputError(
            f"the graph's inputs {', '.join(inputs)[:200]} are not those of a decoder that reads an encoder's"
            f" output: {', '.join(DECODER_INPUTS)}, {PAST}N.decoder.key and so on",
            where=graph,
            remedy=EXPORT_AGAIN,
        )
    # An empty past may be given in another shape; what comes of it has the model's, where it says any.
    shapes = {value.name: value.shape for value in session.get_outputs()}
    for name, present in zip(pasts, presents, strict=True):
        if BRANCH in inputs and not is_cache_shape(shapes[present]):
            shapes[present] = inputs[name].shape
    for name, present in zip(pasts, presents, strict=True):
        if not is_cache_shape(shapes[present]) or inputs[name].type not in ELEMENT_TYPES:
            raise InputError(
                f"{present} of the graph has a type or shape that cannot be served: caches are float or half,"
                " of shape (batch, heads, length, width)",
                where=graph,
                remedy=EXPORT_AGAIN,
            )
    return tuple(
        KeyValue(
            past=name,
            present=present,
            heads=shapes[present][1],
            width=shapes[present][3],
            dtype=ELEMENT_TYPES[inputs[name].type],
            of_source=".encoder." in name,
        )
        for name, present in zip(pasts, presents, strict=True)
    )
