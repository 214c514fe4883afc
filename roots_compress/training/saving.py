"""Saves and loads a training's state: process 0 writes and reads, the others are checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from roots_compress.errors import StageError
from roots_compress.results import Json
from roots_compress.training.interrupts import uninterrupted
from roots_compress.training.objective import TrainingStep
from roots_compress.training.parallel.placement import Placement, Replicas
from roots_compress.training.parallel.team import Team
from roots_compress.training.state import SavedState, fingerprint_of, load_state, save_state


class SavedStates:
    """The saved states of one training.

    Every method is called by all processes of a team at once. A state holds whole tensors, however they were
    distributed, so a training can go on with another number of processes, or another strategy.

    Args:
        work: the folder of the states; None in processes that do not write.
    """

    def __init__(self, team: Team, work: Path | None) -> None:
        self.team, self.work = team, work
        self._state: SavedState | None = None
        self._fingerprint = ""

    def find(self, step: TrainingStep, facts: Mapping[str, Json], text: Mapping[str, Tensor]) -> None:
        """Find the newest state of this training, and load its weights into the step of process 0.

        Args:
            step: the start of the training.
            facts: everything else that the result depends on.
        """
        if self.work is None:
            return
        parameters = dict(step.named_parameters())
        self._fingerprint = fingerprint_of(facts, {**parameters, **dict(step.named_buffers()), **text})
        self._state = load_state(self.work, self._fingerprint)
        if self._state is not None:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    if parameter.requires_grad:
                        parameter.copy_(self._state.tensors[f"parameter/{name}"])

    def restore(
        self, placement: Placement, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[int, dict[str, Any]] | None:
        """Load optimizer state and random state; return step and facts, or None if none was found."""
        state = self._state
        keys = [] if state is None else [key for key in state.tensors if key.startswith("optimizer/")]
        found: tuple[int, dict[str, Any], list[str]] | None = self.team.from_leader(
            None if state is None else (state.step, state.facts, keys)
        )
        if found is None:
            return None
        step, facts, keys = found
        for key in keys:
            _, entry, name = key.split("/", 2)
            parameter = parameters[name]
            # AdamW counts steps in a scalar of each parameter; other state has the parameter's shape.
            like = torch.zeros(()) if entry == "step" else parameter.detach()
            whole = None if state is None else state.tensors[key]
            optimizer.state[parameter][entry] = placement.placed(whole, like)
        if state is not None:
            torch.set_rng_state(state.tensors["random/cpu"])
            if placement.device == "cuda":
                torch.cuda.set_rng_state(state.tensors["random/cuda"])
            self._state = None
        return step, facts

    def save(
        self,
        step: int,
        placement: Placement,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        facts: dict[str, Json],
    ) -> None:
        """Save the state after a step.

        Raises:
            StageError: it cannot be written; or processes that each hold all weights differ in them.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            tensors[f"parameter/{name}"] = self._kept(parameter.detach(), placement)
            for key, value in optimizer.state[parameter].items():
                tensors[f"optimizer/{key}/{name}"] = self._kept(value, placement)
        self._check_agreement(step, tensors if isinstance(placement, Replicas) else {})
        if self.work is not None:
            tensors["random/cpu"] = torch.get_rng_state()
            if placement.device == "cuda":
                tensors["random/cuda"] = torch.cuda.get_rng_state()
            self._write(self.work, SavedState(step, tensors, facts))

    def _kept(self, tensor: Tensor, placement: Placement) -> Tensor:
        """Return a tensor for the saved state; processes that do not write keep no gathered tensor."""
        whole = placement.whole(tensor)
        if whole is tensor:
            return tensor
        return whole.cpu() if self.team.leads else whole.to("meta")

    def _check_agreement(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        if self.team.size == 1:
            return
        seen = self.team.gather((step, fingerprint_of({}, tensors)))
        for rank, each in enumerate(seen):
            if each != seen[0]:
                raise StageError(
                    f"process {rank} of {len(seen)} has other weights than process 0 after step {step}",
                    remedy="Run the command again: it goes on from the last saved state. At a second time, "
                    "a device or its memory may be at fault.",
                    transient=True,
                )

    def _write(self, work: Path, state: SavedState) -> None:
        with uninterrupted():
            try:
                save_state(work, state, self._fingerprint)
            except (OSError, SafetensorError) as error:
                raise StageError(
                    f"the training state of step {state.step} cannot be written: {error}",
                    where=work,
                    remedy="Make room there and run the command again: it goes on from the last saved state.",
                    transient=True,
                ) from error
