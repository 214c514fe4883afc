"""A frozen model whose matrices are divided among the processes of a machine: tensor parallelism.

Shoeybi et al. 2019, Megatron-LM, arXiv:1909.08053. A block that can be cut along an axis can be divided along
it: each process holds a part of the heads or channels, and the parts' outputs are added.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.parallel.style import ParallelStyle

from roots_compress.models.blocks.base import Block
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.base import Axis
from roots_compress.training.parallel.team import Team
from roots_compress.training.parallel.twins import fill, sent, tensors_of, twin

Model = TypeVar("Model", bound=RootsWithHead)


def divided(model: Model, team: Team, device: str) -> Model:
    """Return a frozen model that the processes of each machine run together, on the rows of all.

    Each process must run it equally often, on equally many rows of equal length, and gets the outputs for its
    own rows. A process holds a part of each block, along an axis. Tables, norms, the head, and blocks that no
    axis divides into equal parts are whole in each.

    Args:
        model: one with weights in process 0, where it is not changed; elsewhere its twin on the meta device.
    """
    machines, rest = divmod(team.size, team.local_size)
    shape = (1, team.size) if rest else (machines, team.local_size)
    mesh = init_device_mesh(device, shape, mesh_dim_names=("machine", "process"))["process"]
    found = twin(model, "meta")
    wholes = {id(tensor): whole for tensor, whole in zip(tensors_of(found), tensors_of(model), strict=True)}

    def whole_of(tensor: Tensor) -> Tensor:
        whole = sent(wholes[id(tensor)] if team.leads else None, tensor, device)
        return nn.Parameter(whole, requires_grad=False) if isinstance(tensor, nn.Parameter) else whole

    abstract = tensors_of(found)  # kept alive until all are made: `wholes` has them by their ids
    blocks = [each for each in found.modules() if isinstance(each, Block)]
    # One block at a time, of which a part stays, so that only process 0 ever holds a whole model.
    for block in blocks:
        fill(block, whole_of)
        _divide(block, mesh)
    fill(found, whole_of)
    del abstract
    _read_together(found.model, mesh)
    return found


def _divide(block: Block, mesh: DeviceMesh) -> None:
    """Keep this process's part of a block, along the first axis that can be divided."""
    for axis in block.spec.axes():
        styles = _styles(block, axis)
        if styles and axis.units % mesh.size() == 0:
            parallelize_module(block, mesh, styles)
            block.spec = block.spec.cut(axis.name, axis.units // mesh.size())
            return


def _styles(block: Block, axis: Axis) -> dict[str, ParallelStyle]:
    """Return how each linear layer along an axis is divided; none if consecutive units do not form a part."""
    styles: dict[str, ParallelStyle] = {}
    if axis.groups > 1 or not axis.size:
        return styles
    for member in axis.members:
        layer, _, _ = member.parameter.rpartition(".")
        if not isinstance(block.get_submodule(layer), nn.Linear):
            return {}
        styles[layer] = ColwiseParallel() if member.dimension == 0 else RowwiseParallel()
    return styles


def _read_together(model: nn.Module, mesh: DeviceMesh) -> None:
    """Let a model read the rows of all processes, and return this process's."""
    size, rank = mesh.size(), mesh.get_local_rank()

    def rows_of_all(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        rows = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(size)]
        dist.all_gather(rows, value.contiguous(), group=mesh.get_group())
        return torch.cat(rows)

    def own_rows(value: Any) -> Any:
        return value.chunk(size)[rank] if isinstance(value, Tensor) else tuple(map(own_rows, value))

    def before(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return arguments, {name: rows_of_all(value) for name, value in named.items()}

    def after(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
        for name, value in output.items():
            output[name] = own_rows(value)
        return output

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.register_forward_hook(after)
