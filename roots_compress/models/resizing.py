"""Removes units along the axes of a model's blocks, and channels of its residual stream.

torch-pruning finds the parameters that belong together. It traces one block at a time, so its time does not
depend on the model's depth. A block's `coupled` leaves out operations that mix channels only inside a head
(norms of queries and keys, rotary positions, softmax), because the trace would lose the channels there. The
residual stream is traced through the whole model in the same way: each of its channels is a column of the
embeddings and of the stream's readers, a row of its writers, and an element of every norm. A test compares
the groups found here with the axes of the blocks (`models/ops/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch_pruning as tp
from torch import Tensor, nn

from roots_compress.errors import InputError
from roots_compress.models.blocks.base import Block
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.norm import RMSNorm
from roots_compress.models.ops.base import Axis
from roots_compress.models.spec import Place

StreamNorm = nn.RMSNorm | nn.LayerNorm
# At least two tokens: with one, the graph mistakes the shape of a head for a flattened feature map.
TRACED_TOKENS = 3


def check_resizable(model: RootsWithHead) -> None:
    """Refuse a model whose matrices cannot be cut.

    Raises:
        InputError: the model is quantized.
    """
    if model.config.quantization:
        raise InputError(
            "the model is quantized, and quantized weights cannot be resized",
            remedy="Prune first, then quantize: give the checkpoint from before quantization.",
        )


def block_at(model: RootsWithHead, place: Place) -> Block:
    """Return the block at a place."""
    block: Block = model.model.all_layers()[place.layer].half_named(place.name).block
    return block


def axis_of(block: Block, name: str) -> Axis:
    """Return an axis of a block by its name."""
    return next(axis for axis in block.spec.axes() if axis.name == name)


def columns_of(axis: Axis, units: Sequence[int]) -> list[int]:
    """Return these units' input channels in an axis's projection."""
    return [unit * axis.size + offset for unit in units for offset in range(axis.size)]


def group_of(
    block: Block, axis: Axis, units: Sequence[int] | None = None, *, part: str | None = None
) -> tp.dependency.Group:
    """Return torch-pruning's group of these units of an axis (by default all), rooted in its projection.

    Args:
        axis: one with a projection or with parts.
        part: the part of the axis to which the units belong.
    """
    projection = part or axis.projection
    assert projection is not None, f"{axis.name} has no projection"
    root = block.linear(projection)
    # The graph is read from autograd, also if the parameters are frozen.
    example_BTW = root.weight.new_zeros(1, TRACED_TOKENS, root.out_features, requires_grad=True)
    was_training = block.training
    with torch.enable_grad():
        graph = tp.DependencyGraph().build_dependency(
            block.holder(projection),
            example_inputs=example_BTW,
            forward_fn=lambda traced, x_BTW: traced.coupled(x_BTW, axis.name),
            verbose=False,
        )
    block.train(was_training)
    chosen = range(root.in_features) if units is None else columns_of(axis, units)
    group = graph.get_pruning_group(root, tp.prune_linear_in_channels, list(chosen))
    for number, (dependency, indices) in enumerate(group.items):
        # A key/value channel is listed once for every query head that reads it, but must be cut once.
        if len(set(indices)) < len(indices):
            group[number] = (dependency, sorted(set(indices)))
    return group


def keep_units(
    model: RootsWithHead, place: Place, name: str, kept: Sequence[int] | Mapping[str, Sequence[int]]
) -> None:
    """Keep only these units of a block's axis.

    Args:
        kept: the units that stay; for an axis with parts possibly those of each part, equally many.

    Raises:
        InputError: the model is quantized.
    """
    check_resizable(model)
    block = block_at(model, place)
    axis = axis_of(block, name)
    if axis.parts:
        count = _keep_in_parts(block, axis, kept)
    else:
        assert not isinstance(kept, Mapping), f"{name} has no parts"
        count = _keep_in_groups(block, axis, kept)
    spec = block.spec.cut(name, count)
    block.spec = spec
    model.config.spec = model.config.spec.with_op(place, spec)


def _keep_in_parts(block: Block, axis: Axis, kept: Sequence[int] | Mapping[str, Sequence[int]]) -> int:
    by_part = kept if isinstance(kept, Mapping) else dict.fromkeys(axis.parts, kept)
    counts = {len(units) for units in by_part.values()}
    assert len(counts) == 1, f"the parts would keep {sorted(counts)} units of {axis.name}"
    for part, units in by_part.items():
        if removed := _complement(units, axis.units):
            group_of(block, axis, removed, part=part).prune()
    return counts.pop()


def _keep_in_groups(block: Block, axis: Axis, kept: Sequence[int]) -> int:
    of_group = [0] * axis.groups
    for unit in kept:
        of_group[unit * axis.groups // axis.units] += 1
    assert len(set(of_group)) == 1, f"the groups would keep {of_group} units of {axis.name}"
    removed = _complement(kept, axis.units)
    if removed and axis.projection is None:
        block.drop(axis.name, kept)
    elif removed:
        group_of(block, axis, removed).prune()
        _cut_untraced(block, axis, kept)
    return len(kept)


def keep_layers(model: RootsWithHead, kept: Sequence[int]) -> None:
    """Keep only these layers, numbered from 0 as in a KV cache.

    Raises:
        InputError: the model is quantized.
    """
    check_resizable(model)
    layers, spec = model.model.all_layers(), model.config.spec
    _complement(kept, len(layers))
    for part, first, end in list(model.model.parts_and_layers()):
        stay = [index for index in kept if first <= index < end]
        assert stay, "a stack would have no layer left"
        part.layers = nn.ModuleList(layers[index] for index in stay)
        for number, layer in enumerate(part.layers):
            for half in layer.halves:
                half.block.layer_idx = number
    if (tables := model.model.embed_layers) is not None:
        tables.keep_layers(kept)
    model.config.spec = spec.with_chosen(kept)


def residual_group(model: RootsWithHead, channels: Sequence[int] | None = None) -> tp.dependency.Group:
    """Return the group of these channels of the residual stream (by default all), rooted where it begins."""
    embedding, projected = model.model.embed_tokens, model.config.spec.embeddings.tables is not None
    norms = StreamNormPruner()
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    was_training = model.training
    # Tokens have no gradient, so the graph is read from the weights' gradients.
    model.requires_grad_(True)
    with torch.enable_grad():
        graph = tp.DependencyGraph().build_dependency(
            model,
            example_inputs=torch.zeros(1, TRACED_TOKENS, dtype=torch.long, device=embedding.weight.device),
            forward_fn=_couple_stream,
            customized_pruners={RMSNorm: norms, nn.LayerNorm: norms},
            verbose=False,
        )
    for parameter in frozen:
        parameter.requires_grad_(False)
    model.train(was_training)
    chosen = range(model.config.hidden_size) if channels is None else channels
    if projected:
        return graph.get_pruning_group(
            model.model.embed_projection, tp.prune_linear_out_channels, list(chosen)
        )
    return graph.get_pruning_group(embedding, tp.prune_embedding_out_channels, list(chosen))


def keep_residual_channels(model: RootsWithHead, kept: Sequence[int]) -> None:
    """Keep only these channels of the residual stream and of the embeddings.

    Raises:
        InputError: the model is quantized.
    """
    check_resizable(model)
    removed = _complement(kept, model.config.hidden_size)
    if removed:
        residual_group(model, removed).prune()
        _cut_untraced_readers(model, kept)
    model.config.spec = model.config.spec.with_embeddings(width=len(kept))
    # Embedding and head were cut separately; if they were one matrix, they are tied again.
    model.tie_weights()


class StreamNormPruner(tp.pruner.function.BasePruningFunc):
    """Removes elements of a norm over the residual stream.

    torch-pruning has no such pruner for RMS norms, and its own for layer norms may change the order.
    """

    def prune_out_channels(self, layer: StreamNorm, idxs: Sequence[int]) -> StreamNorm:
        """Remove these elements of the gain, and of the bias if there is one."""
        kept = _all_but(idxs, self.get_out_channels(layer))
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, self._prune_parameter_and_grad(parameter, kept, 0))
        layer.normalized_shape = (len(kept),)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: StreamNorm) -> int:
        """Return the norm's width."""
        return layer.normalized_shape[0]

    get_in_channels = get_out_channels


def _cut_untraced(block: Block, axis: Axis, kept: Sequence[int]) -> None:
    """Cut parameters along an axis that are not traced."""
    for member in axis.members:
        path, _, name = member.parameter.rpartition(".")
        module = block.get_submodule(path)
        if isinstance(module, nn.Linear) and member.traced:
            continue
        entries = [unit * member.size + offset for unit in kept for offset in range(member.size)]
        parameter = module.get_parameter(name).detach()
        index = torch.tensor(entries, device=parameter.device)
        setattr(module, name, nn.Parameter(parameter.index_select(member.dimension, index)))
        if isinstance(module, nn.RMSNorm):
            module.normalized_shape = (len(entries),)
        elif isinstance(module, nn.Embedding):
            module.embedding_dim = len(entries)
        elif isinstance(module, nn.Conv1d):
            module.in_channels = module.out_channels = module.groups = len(entries)
        elif isinstance(module, nn.Linear):
            module.out_features = len(entries)


def _cut_untraced_readers(model: RootsWithHead, kept: Sequence[int]) -> None:
    """Cut readers of the residual stream that are not traced, such as a router."""
    halves = [half for layer in model.model.all_layers() for half in layer.halves]
    readers = [each for half in halves for each in half.block.readers()]
    if model.model.embed_layers is not None:
        readers.append(model.model.embed_layers.projection)
    for reader in readers:
        if reader.in_features > len(kept):
            reader.weight = nn.Parameter(reader.weight.detach()[:, list(kept)])
            reader.in_features = len(kept)


def _complement(kept: Sequence[int], count: int) -> list[int]:
    """Return the units to remove. The kept ones must be in rising order, within range, and at least one."""
    assert len(kept) > 0, "nothing would be left"
    assert list(kept) == sorted(set(kept) & set(range(count))), (kept, count)
    return _all_but(kept, count)


def _all_but(numbers: Sequence[int], count: int) -> list[int]:
    excluded = set(numbers)
    return [number for number in range(count) if number not in excluded]


def _couple_stream(model: RootsWithHead, tokens_BT: Tensor) -> Tensor:
    """Run the model with couplings in place of blocks: the stream's readers and writers, in order."""
    normed_BTW: Tensor | None = None
    for part in model.model.parts():
        hidden_BTW = model.model.embed_tokens(tokens_BT)
        if model.config.spec.embeddings.positions is not None:
            hidden_BTW = hidden_BTW + part.embed_positions(tokens_BT)
        if model.config.spec.embeddings.tables is not None:
            hidden_BTW = part.embed_projection(hidden_BTW)
        waiting_BTW: Tensor | None = None
        for layer in part.layers:
            for half in layer.halves:
                axis = next((each.name for each in half.block.spec.axes()), "")
                given_BTW = half.given(half.block.coupled(half.read(hidden_BTW), axis, normed_BTW))
                hidden_BTW, waiting_BTW = half.add(hidden_BTW, given_BTW, waiting_BTW)
        normed_BTW = part.normed(hidden_BTW)
    assert normed_BTW is not None
    return model.project(normed_BTW)
