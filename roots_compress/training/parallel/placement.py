"""Placement of weights, gradients and optimizer state: all in each process, or a part in each.

Every method but `Placement` itself's constructor is called by all processes of a team at once, in the same
order: the others send or receive the data that the method needs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from roots_compress.configs.training import TrainingConfig
from roots_compress.models.device import Precision, autocast
from roots_compress.models.layer import RootsLayer
from roots_compress.training.batches import Batch, BatchOrder
from roots_compress.training.objective import TrainingStep
from roots_compress.training.parallel.divided import divided
from roots_compress.training.parallel.team import Team
from roots_compress.training.parallel.twins import emptied, fill, sent, tensors_of, twin


class Placement:
    """One process that holds everything.

    Args:
        module: one with weights in process 0; elsewhere its twin on the meta device.
        apart: tensors of the module that are already placed.
    """

    def __init__(self, module: nn.Module, team: Team, device: str, apart: Sequence[Tensor] = ()) -> None:
        self.team, self.device = team, device
        self.module = module.to(device) if team.leads else twin(module, device, apart)
        self.call: Callable[..., Any] = self.module

    def accumulating(self) -> AbstractContextManager[None]:
        """Return the context of a backward pass that is not the last of its step."""
        return nullcontext()

    def whole(self, tensor: Tensor) -> Tensor:
        """Return a parameter, or a tensor of its optimizer state, as if one process held it."""
        return tensor

    def placed(self, whole: Tensor | None, like: Tensor) -> Tensor:
        """Return this process's part of a tensor of process 0.

        Args:
            like: a placed tensor of the same shape.
        """
        assert whole is not None
        return whole.to(self.device)

    def held_bytes(self, optimizer: torch.optim.Optimizer) -> dict[str, int]:
        """Return this process's bytes of trained weights, frozen weights and optimizer state."""
        held = {"trained": 0, "frozen": 0, "optimizer": 0}
        for parameter in self.module.parameters():
            held["trained" if parameter.requires_grad else "frozen"] += local(parameter).nbytes
        for state in optimizer.state.values():
            held["optimizer"] += sum(local(value).nbytes for value in state.values())
        return held

    def finish(self) -> None:
        """Copy trained weights back to the modules of process 0."""


class Copies(Placement):
    """Each process holds everything."""

    def __init__(self, module: nn.Module, team: Team, device: str, apart: Sequence[Tensor] = ()) -> None:
        super().__init__(module, team, device, apart)
        there = set(map(id, apart))
        for tensor in tensors_of(self.module):
            if id(tensor) not in there:
                tensor.data.copy_(sent(tensor.data if team.leads else None, tensor.data, device))

    def placed(self, whole: Tensor | None, like: Tensor) -> Tensor:
        return sent(whole, like, self.device)


class Replicas(Copies):
    """Each process holds everything, and gradients are averaged (DistributedDataParallel, Li et al. 2020).

    Args:
        first: a batch, to find out whether the loss depends on all trained parameters.
    """

    def __init__(
        self,
        step: TrainingStep,
        team: Team,
        device: str,
        first: Batch,
        precision: Precision,
        apart: Sequence[Tensor] = (),
    ) -> None:
        super().__init__(step, team, device, apart)
        # A parameter that no process uses keeps no gradient, as it does in one process: the optimizer then
        # does not change it. Searching for such parameters in every step takes time, and torch warns if there
        # are none.
        with autocast(device, precision):
            unused = self._leaves_some_unused(first)
        self.wrapped = nn.parallel.DistributedDataParallel(
            self.module, find_unused_parameters=unused, init_sync=False
        )
        self.call = self.wrapped
        # This object, and errors whose frames hold it, may outlive the group's end. The reducer must not be
        # the last to hold the group then: it is freed under Python's lock, and the group waits for a thread
        # that may want this lock. Freed by Python, the group gives up the lock while it waits.
        for part in (self.wrapped.reducer, self.wrapped.logger):
            weakref.finalize(part, _held_until_here, self.wrapped.process_group)

    def _leaves_some_unused(self, batch: Batch) -> bool:
        """Whether the loss does not depend on some trained parameters."""
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        total, _ = self.module(batch)
        return None in torch.autograd.grad(total, trained, allow_unused=True)

    def accumulating(self) -> AbstractContextManager[None]:
        """Return the context in which gradients stay in this process."""
        context: AbstractContextManager[None] = self.wrapped.no_sync()
        return context


class Shards(Placement):
    """Each process holds a part of every parameter (fully_shard of PyTorch; ZeRO-3, Rajbhandari et al. 2020).

    A layer's weights are gathered when it runs and freed after it; embeddings and heads, which losses read,
    are kept during a step.
    """

    def __init__(self, module: nn.Module, team: Team, device: str, apart: Sequence[Tensor] = ()) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.team, self.device = team, device
        self._original, self.module = module, twin(module, "meta", apart)
        there, kept = set(map(id, apart)), {each for each in apart if isinstance(each, nn.Parameter)}
        self.mesh = init_device_mesh(device, (team.size,))
        # One layer at a time, so that no process ever holds the whole model.
        layers = [
            each
            for each in self.module.modules()
            if isinstance(each, RootsLayer) and there.isdisjoint(map(id, each.parameters()))
        ]
        for part in (*layers, self.module):
            fill(part, lambda tensor: emptied(tensor, device))
            fully_shard(part, mesh=self.mesh, ignored_params=kept)
        self.call = self.module
        wholes = dict(module.named_parameters())
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if id(parameter) not in there:
                    whole = wholes[name].detach() if team.leads else None
                    local(parameter).copy_(local(self.placed(whole, parameter)))
        buffers = dict(module.named_buffers())
        for name, buffer in self.module.named_buffers():
            if id(buffer) not in there:
                buffer.copy_(sent(buffers[name] if team.leads else None, buffer, device))

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    def placed(self, whole: Tensor | None, like: Tensor) -> Tensor:
        """Return this process's part, as a distributed tensor."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            return sent(whole, like, self.device)
        full = torch.empty(like.shape, dtype=like.dtype, device=self.device) if whole is None else whole
        return distribute_tensor(full.to(self.device), self.mesh, like.placements)

    def finish(self) -> None:
        """Gather each parameter, and copy it into process 0's module."""
        wholes = dict(self._original.named_parameters())
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if not parameter.requires_grad:
                    continue
                whole = self.whole(parameter.detach())
                if self.team.leads:
                    wholes[name].copy_(whole)


def placement(
    step: TrainingStep,
    team: Team,
    device: str,
    config: TrainingConfig,
    order: BatchOrder,
    precision: Precision,
) -> Placement:
    """Return the placement of a step's tensors; a divided teacher is replaced in the step."""
    if team.size == 1:
        return Placement(step, team, device)
    apart: Sequence[Tensor] = ()
    if config.tensor_parallel_teacher and (teacher := step.objective.running_teacher) is not None:
        parts = divided(teacher, team, device)
        step.objective, apart = step.objective.taught_by(parts), tensors_of(parts)
    if config.strategy == "fsdp":
        return Shards(step, team, device, apart)
    return Replicas(step, team, device, order.at([0], device), precision, apart)


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.detach()


def _held_until_here(_group: object) -> None:
    """Release a process group."""
