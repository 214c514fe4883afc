"""Initialising a student from its teacher's own weights.

Student layers take the weights of teacher layers at even depths, the first and the last among them (as
DistilBERT does, Sanh et al. 2019). A narrower student takes the most important units by weight norms, in
their old order: residual channels once for the whole model, the units of a block's axes block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from roots_compress.models.blocks.base import Block, Half
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.layer import NORMS
from roots_compress.models.layer_inputs import LayerInputTables
from roots_compress.models.ops.base import Axis, OpSpec
from roots_compress.models.spec import ENCODER, ModelSpec
from roots_compress.models.stack import StackParts
from roots_compress.stages.distill.presets import spread_layers

Named = Iterator[tuple[str, Tensor]]
"""Parameters and their names in the student."""


@dataclass(frozen=True)
class Inheritance:
    """The weights that a student inherited from its teacher."""

    layers: tuple[int, ...]
    """For each student layer, the number of its teacher layer, from 0."""
    inherited: int
    """Parameters copied."""
    fresh: int
    """Parameters that kept their initial values."""


@dataclass(frozen=True)
class _Stream:
    """The channels of the teacher's residual stream that the student has."""

    kept: Tensor
    gain: float
    """Factor on norms: the kept channels have a larger share of the mean square than the others."""

    def of_norm(self, prefix: str, norm: nn.Module) -> Named:
        """Yield the gain of a norm over the stream, and its bias if it has one."""
        for name, parameter in norm.named_parameters():
            value = parameter[self.kept]
            yield f"{prefix}.{name}", value * self.gain if name == "weight" else value


@torch.no_grad()
def inherit(student: RootsWithHead, teacher: RootsWithHead) -> Inheritance:
    """Copy into the student, in place, every teacher weight that fits.

    Weights that do not fit keep their initial values: the whole student if its residual stream is wider than
        the teacher's or has other norms; a block that is wider or has another form (`OpSpec.form`).
    """
    spec = teacher.config.spec
    layers = tuple(
        first + index
        for own, stack, first in zip(student.model.parts(), spec.running, (0, spec.begins), strict=False)
        for index in spread_layers(len(own.layers), stack)
    )
    parameters = student.named_tensors()
    inherited = 0
    for name, value in _inherited(student, teacher, layers):
        if name in parameters and value.shape == parameters[name].shape:
            parameters[name].copy_(value)
            inherited += value.numel()
    total = sum(parameter.numel() for parameter in parameters.values())
    return Inheritance(layers, inherited, total - inherited)


def _inherited(student: RootsWithHead, teacher: RootsWithHead, layers: tuple[int, ...]) -> Named:
    """Yield the teacher's weights by their names in the student."""
    wanted, spec = student.config.spec, teacher.config.spec
    if wanted.width > spec.width or _norms(wanted) != _norms(spec):
        return
    energy, projected = _residual_energy(teacher), spec.embeddings.tables is not None
    kept = _largest(energy[None], wanted.width)
    stream = _Stream(kept, float((energy[kept].mean() / energy.mean()).sqrt()))
    for prefix in ("model", ENCODER) if teacher.model.encoder is not None else ("model",):
        for name, module in teacher.get_submodule(prefix).named_children():
            if isinstance(module, nn.Embedding):
                rows = module.num_embeddings
                if hasattr(own := student.get_submodule(prefix), name):
                    rows = own.get_submodule(name).get_parameter("weight").shape[0]
                of_rows = module.weight[:rows]
                yield f"{prefix}.{name}.weight", of_rows if projected else of_rows[:, kept]
            elif projected and name in ("embed_norm", "embed_projection"):
                for part, parameter in module.named_parameters():
                    yield f"{prefix}.{name}.{part}", parameter if name == "embed_norm" else parameter[kept]
            elif isinstance(module, LayerInputTables):
                for part, weight in module.of_layers(layers).items():
                    read = part.startswith("projection")
                    yield f"{prefix}.{name}.{part}", weight[:, kept] if read else weight
            elif not isinstance(module, nn.ModuleList | StackParts):
                yield from stream.of_norm(f"{prefix}.{name}", module)
    for name, parameter in teacher.named_parameters(remove_duplicate=False):
        if not name.startswith("model."):
            # From the head, only weights that read the stream: those that also write one may have another
            # width.
            yield name, parameter[..., kept] if parameter.shape[-1] == spec.width else parameter
    theirs = teacher.model.all_layers()
    for number, (layer, taken) in enumerate(zip(student.model.all_layers(), layers, strict=True)):
        halves = {half.name: half for half in theirs[taken].halves}
        for half in layer.halves:
            if half.name in halves:
                prefix = f"{wanted.layer_path(number)}.{half.name}"
                yield from _of_half(prefix, half.block.spec, halves[half.name], stream)


def _of_half(prefix: str, wanted: OpSpec, half: Half, stream: _Stream) -> Named:
    """Yield the norms of a teacher's block, and its weights if they fit."""
    for place in NORMS:
        norm = getattr(half, place)
        if norm is not None:
            yield from stream.of_norm(f"{prefix}_{place}", norm)
    if half.stream_scale is not None:
        yield f"{prefix}_stream_scale", half.stream_scale
    for name, value in _of_block(wanted, half.block, stream.kept).items():
        yield f"{prefix}.{name}", value


def _of_block(wanted: OpSpec, block: Block, residual: Tensor) -> dict[str, Tensor]:
    """Return a block's weights with the wanted units of each axis; none if it has too few."""
    spec, weights = block.spec, dict[str, Tensor]((*block.named_parameters(), *block.named_buffers()))
    if wanted.form() != spec.form():
        return {}
    for goal in wanted.axes():
        axis = next(axis for axis in spec.axes() if axis.name == goal.name)
        if goal.units > axis.units:
            return {}
        kept = _chosen(axis, weights, goal.units)
        for member in axis.members:
            entries = (kept[:, None] * member.size + torch.arange(member.size)).flatten()
            weights[member.parameter] = weights[member.parameter].index_select(member.dimension, entries)
        spec = spec.cut(axis.name, goal.units)
    for name in (*spec.readers, *spec.source_readers):
        weights[f"{name}.weight"] = weights[f"{name}.weight"][:, residual]
    for name in (f"{writer}.{part}" for writer in spec.writers for part in ("weight", "bias")):
        if name in weights:
            weights[name] = weights[name][residual]
    return weights


def _chosen(axis: Axis, weights: dict[str, Tensor], count: int) -> Tensor:
    """Return the most important units of an axis, ascending; equally many of each of its groups.

    The score of a single channel is the product of the norms of its input and output weights; of a head, the
    energy of its output weights; of a channel of experts, that energy over all experts. Experts, which have
    no projection, are taken by number.
    """
    if axis.parts:
        energy_U = torch.stack([weights[f"{part}.weight"].square().sum(dim=0) for part in axis.parts])
        return _largest(energy_U.sum(dim=0)[None], count)
    if axis.projection is None:
        in_groups = torch.arange(axis.units).view(axis.groups, -1)
        return in_groups[:, : count // axis.groups].flatten()
    if axis.size == 1:
        matrices = [member for member in axis.members if weights[member.parameter].ndim == 2]
        # The projection first: a product's last bits depend on the order.
        norms = [weights[each.parameter].norm(dim=1 - each.dimension) for each in reversed(matrices)]
        importance = reduce(torch.mul, norms)
    else:
        columns_WUC = weights[f"{axis.projection}.weight"].unflatten(1, (axis.units, -1))
        importance = columns_WUC.square().sum(dim=(0, 2))
    return _largest(importance.unflatten(0, (axis.groups, -1)), count // axis.groups)


def _norms(spec: ModelSpec) -> set[tuple[str, str]]:
    """Return the places and kinds of the norms over the residual stream, and which blocks share one."""
    norms = [(place, getattr(each, place)) for layer in spec.layers for each in layer for place in NORMS]
    norms += [("final_norm", stack.final_norm) for stack in spec.running]
    switches = {
        (each.name, switch)
        for layer in spec.layers
        for each in layer
        for switch in ("parallel", "shares_norm")
        if getattr(each, switch)
    }
    return switches | {(place, norm.kind) for place, norm in norms if norm is not None}


def _residual_energy(teacher: RootsWithHead) -> Tensor:
    """Return, for each residual channel, the sum of squares of all weights that write to it."""
    if teacher.config.spec.embeddings.tables is None:
        energy: Tensor = _weight(teacher.model.embed_tokens).square().sum(dim=0)
    else:
        energy = _weight(teacher.model.embed_projection).square().sum(dim=1)
    for layer in teacher.model.all_layers():
        for half in layer.halves:
            for writer in half.block.writers():
                written = writer.weight.square().sum(dim=1)
                # The gain of a norm after the block scales the outputs of its weights.
                gained = written if half.post_norm is None else written * _weight(half.post_norm).square()
                energy = energy + gained
    return energy


def _largest(importance_GU: Tensor, count: int) -> Tensor:
    """Return the numbers of the `count` largest entries of each group, ascending."""
    kept = importance_GU.topk(count).indices.sort().values
    return (kept + torch.arange(len(importance_GU))[:, None] * importance_GU.shape[1]).flatten()


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight
