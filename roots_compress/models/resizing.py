"""The only code that resizes weights: it cuts channels, heads and layers out of a model and its config.

torch-pruning's dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning",
arXiv:2301.12900) finds which rows and columns of which matrices belong to one channel, and does the cutting.
It traces one block at a time, which keeps it quick however deep the model is.

- An MLP is traced as it is: a channel is a column of `down_proj` and a row of `up_proj` and, where there is
  one, of `gate_proj`, with their biases.
- Attention is traced without what mixes channels inside a head only (norms of queries and keys, rotary
  positions, softmax): through the rotation's two halves the graph would lose track of which channel is which.
  What is left couples the columns of `o_proj` with their query head and with the key/value head it reads,
  which is what a cut by whole heads has to respect; a cut of query heads alone leaves keys and values out.
  Query and key norms span one head and stay as they are.
- The residual stream is traced through the whole model, with the same stand-in for attention: a channel of
  it is a column of the embeddings and of what reads it, a row of what writes it, an element of every norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from roots_compress.errors import InputError
from roots_compress.models.layers import RootsAttention, RootsMLP
from roots_compress.models.modeling import RootsForCausalLM

StreamNorm = nn.RMSNorm | nn.LayerNorm
# Two tokens or more: with one, the graph takes the shape of a head for that of a flattened feature map.
TRACED_TOKENS = 3


def check_resizable(model: RootsForCausalLM) -> None:
    """Refuse a model whose matrices cannot be cut.

    Raises:
        InputError: the model is quantized.
    """
    if model.config.quantization:
        raise InputError(
            "the model is quantized, and quantized weights cannot be resized",
            remedy="Prune first, then quantize: give the checkpoint from before quantization.",
        )


def mlp_group(
    model: RootsForCausalLM, index: int, channels: Sequence[int] | None = None
) -> tp.dependency.Group:
    """Return the dependency group of these MLP channels of a layer (all without), rooted in `down_proj`."""
    mlp = model.model.layers[index].mlp
    return _group(mlp, mlp.down_proj, RootsMLP.forward, channels)


def attention_group(
    model: RootsForCausalLM, index: int, channels: Sequence[int] | None = None
) -> tp.dependency.Group:
    """Return the dependency group of these columns of a layer's `o_proj` (all without), rooted there."""
    attention = model.model.layers[index].self_attn
    return _group(attention, attention.o_proj, _couple_heads, channels)


def query_group(
    model: RootsForCausalLM, index: int, channels: Sequence[int] | None = None
) -> tp.dependency.Group:
    """Return the group of these columns of `o_proj` and their query heads, without keys and values."""
    attention = model.model.layers[index].self_attn
    return _group(attention, attention.o_proj, _queries_only, channels)


def residual_group(model: RootsForCausalLM, channels: Sequence[int] | None = None) -> tp.dependency.Group:
    """Return the group of these channels of the residual stream (all without), rooted in the embedding."""
    embedding = model.model.embed_tokens
    norms = StreamNormPruner()
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    was_training = model.training
    # Tokens carry no gradient, so the graph is read off that of the weights.
    model.requires_grad_(True)
    with torch.enable_grad():
        graph = tp.DependencyGraph().build_dependency(
            model,
            example_inputs=torch.zeros(1, TRACED_TOKENS, dtype=torch.long, device=embedding.weight.device),
            forward_fn=_couple_stream,
            customized_pruners={nn.RMSNorm: norms, nn.LayerNorm: norms},
            verbose=False,
        )
    for parameter in frozen:
        parameter.requires_grad_(False)
    model.train(was_training)
    chosen = range(model.config.hidden_size) if channels is None else channels
    return graph.get_pruning_group(embedding, tp.prune_embedding_out_channels, list(chosen))


def keep_residual_channels(model: RootsForCausalLM, kept: Sequence[int]) -> None:
    """Cut all channels of the residual stream but these, and with them the width of the embeddings.

    Raises:
        InputError: the model is quantized.
    """
    check_resizable(model)
    removed = _complement(kept, model.config.hidden_size)
    if removed:
        residual_group(model, removed).prune()
    model.config.hidden_size = len(kept)
    # Embedding and head were cut each by itself; where they are one matrix, they become so again.
    model.tie_weights()


class StreamNormPruner(tp.pruner.function.BasePruningFunc):
    """Cuts elements out of a norm over the residual stream.

    torch-pruning has none for RMS norms, and its own for layer norms does not promise to keep the order.
    """

    def prune_out_channels(self, layer: StreamNorm, idxs: Sequence[int]) -> StreamNorm:
        """Remove these elements of the gain, and of the bias where there is one."""
        kept = _all_but(idxs, self.get_out_channels(layer))
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, self._prune_parameter_and_grad(parameter, kept, 0))
        layer.normalized_shape = (len(kept),)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: StreamNorm) -> int:
        """Return how many elements the norm spans."""
        return layer.normalized_shape[0]

    get_in_channels = get_out_channels


def keep_mlp_channels(model: RootsForCausalLM, index: int, kept: Sequence[int]) -> None:
    """Cut all MLP channels of a layer but these.

    Raises:
        InputError: the model is quantized.
    """
    check_resizable(model)
    widths = model.config.layers[index]
    removed = _complement(kept, widths["intermediate_size"])
    if removed:
        mlp_group(model, index, removed).prune()
    widths["intermediate_size"] = len(kept)


def keep_kv_groups(model: RootsForCausalLM, index: int, kept: Sequence[int]) -> None:
    """Cut all key/value heads of a layer but these, each with the query heads that read it.

    Raises:
        InputError: the model is quantized.
    """
    check_resizable(model)
    widths = model.config.layers[index]
    attention = model.model.layers[index].self_attn
    each = attention.num_heads // attention.num_kv_heads
    removed = _complement(kept, attention.num_kv_heads)
    if removed:
        attention_group(model, index, head_columns(removed, each * attention.head_dim)).prune()
    attention.num_heads = widths["num_attention_heads"] = len(kept) * each
    attention.num_kv_heads = widths["num_key_value_heads"] = len(kept)


def keep_query_heads(model: RootsForCausalLM, index: int, kept: Sequence[int]) -> None:
    """Cut all query heads of a layer but these, equally many of each key/value group.

    Raises:
        InputError: the model is quantized.
    """
    check_resizable(model)
    attention = model.model.layers[index].self_attn
    each = attention.num_heads // attention.num_kv_heads
    of_group = [sum(head // each == group for head in kept) for group in range(attention.num_kv_heads)]
    assert len(set(of_group)) == 1, f"the key/value groups would keep {of_group} query heads"
    removed = _complement(kept, attention.num_heads)
    if removed:
        query_group(model, index, head_columns(removed, attention.head_dim)).prune()
    attention.num_heads = model.config.layers[index]["num_attention_heads"] = len(kept)


def head_columns(groups: Sequence[int], size: int) -> list[int]:
    """Return the columns of `o_proj` that read these key/value groups or heads, `size` columns each."""
    return [group * size + offset for group in groups for offset in range(size)]


def keep_layers(model: RootsForCausalLM, kept: Sequence[int]) -> None:
    """Drop all layers but these, and number those that stay from 0, as their places in a KV cache are.

    Raises:
        InputError: the model is quantized.
    """
    check_resizable(model)
    _complement(kept, len(model.model.layers))
    model.model.layers = nn.ModuleList(model.model.layers[index] for index in kept)
    model.config.layers = [model.config.layers[index] for index in kept]
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index


def _complement(kept: Sequence[int], count: int) -> list[int]:
    """Return what is not kept. What is kept must be in rising order, within range, and something."""
    assert len(kept) > 0, "nothing would be left"
    assert list(kept) == sorted(set(kept) & set(range(count))), (kept, count)
    return _all_but(kept, count)


def _all_but(numbers: Sequence[int], count: int) -> list[int]:
    excluded = set(numbers)
    return [number for number in range(count) if number not in excluded]


def _group(
    block: nn.Module,
    root: nn.Linear,
    forward: Callable[[Any, Tensor], Tensor],
    channels: Sequence[int] | None,
) -> tp.dependency.Group:
    # The graph is read off autograd, also where the parameters are frozen.
    example_BTW = root.weight.new_zeros(1, TRACED_TOKENS, root.out_features, requires_grad=True)
    was_training = block.training
    with torch.enable_grad():
        graph = tp.DependencyGraph().build_dependency(
            block, example_inputs=example_BTW, forward_fn=forward, verbose=False
        )
    block.train(was_training)
    chosen = range(root.in_features) if channels is None else channels
    group = graph.get_pruning_group(root, tp.prune_linear_in_channels, list(chosen))
    for number, (dependency, indices) in enumerate(group.items):
        # A key/value channel is named once for every query head that reads it; it is to be cut once.
        if len(set(indices)) < len(indices):
            group[number] = (dependency, sorted(set(indices)))
    return group


def _queries_only(attention: RootsAttention, hidden_BTW: Tensor) -> Tensor:
    """Join each query channel to the column of `o_proj` that its head's context goes to."""
    out_BTW: Tensor = attention.o_proj(attention.q_proj(hidden_BTW))
    return out_BTW


def _couple_stream(model: RootsForCausalLM, tokens_BT: Tensor) -> Tensor:
    """Run the model with couplings in place of attention: what reads and writes the stream, in its order."""
    decoder = model.model
    hidden_BTW = decoder.embed_tokens(tokens_BT)
    if model.config.position == "learned":
        hidden_BTW = hidden_BTW + decoder.embed_positions(tokens_BT)
    for layer in decoder.layers:
        hidden_BTW = hidden_BTW + _couple_heads(layer.self_attn, layer.input_layernorm(hidden_BTW))
        hidden_BTW = hidden_BTW + layer.mlp(layer.post_attention_layernorm(hidden_BTW))
    return model.project(decoder.norm(hidden_BTW))


def _couple_heads(attention: RootsAttention, hidden_BTW: Tensor) -> Tensor:
    """Combine queries, keys and values channel by channel: the couplings of attention, head by head."""
    each = attention.num_heads // attention.num_kv_heads

    def repeat(key_BTC: Tensor) -> Tensor:
        if each == 1:
            return key_BTC
        batch, tokens, _ = key_BTC.shape
        heads = key_BTC.view(batch, tokens, attention.num_kv_heads, attention.head_dim).transpose(1, 2)
        # torch-pruning knows grouped heads by this expansion of five dimensions.
        repeated = heads[:, :, None].expand(-1, -1, each, -1, -1)
        return (
            repeated.reshape(batch, attention.num_heads, tokens, -1)
            .transpose(1, 2)
            .reshape(batch, tokens, -1)
        )

    query, key, value = (
        projection(hidden_BTW) for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    out_BTW: Tensor = attention.o_proj(query * repeat(key) * repeat(value))
    return out_BTW
