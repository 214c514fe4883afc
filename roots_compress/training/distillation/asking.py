"""Computes a teacher's targets, in one process or in several with a part of the text each.

Process 0 writes the results of all.

Shape legend: N scored positions, n of them, V vocabulary, k kept tokens, K = k + 1 outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roots_compress.configs.training import DistillLossConfig, Strategy
from roots_compress.errors import StageError
from roots_compress.models.device import Precision, autocast
from roots_compress.models.heads import RootsWithHead
from roots_compress.training.batches import Batch, BatchOrder
from roots_compress.training.distillation.divergence import soften, top_k_with_tail
from roots_compress.training.distillation.head import PROJECTED, chunks
from roots_compress.training.distillation.signals import run
from roots_compress.training.distillation.teacher_cache import Part
from roots_compress.training.parallel.divided import divided
from roots_compress.training.parallel.placement import Copies, Placement, Shards
from roots_compress.training.parallel.team import Team

BATCH_SIZE = 4
"""Windows that a teacher reads at a time."""
Targets = tuple[Tensor, Tensor]
"""Tokens `Nk` and log-probabilities `NK`."""


class Asked(nn.Module):
    """A teacher whose forward pass returns the content of a cache."""

    def __init__(self, teacher: RootsWithHead, config: DistillLossConfig) -> None:
        super().__init__()
        self.teacher, self.config = teacher, config

    def forward(self, batch: Batch) -> Targets:
        """Return tokens `Nk` and log-probabilities `NK` at the scored positions of a batch.

        The latter are NaN if a logit is NaN or infinite.
        """
        assert self.config.top_k is not None
        final_NU = run(self.teacher, batch).final_NW
        tokens, log_probs = [], []
        for piece in chunks(len(final_NU), self.teacher.outcomes, PROJECTED):
            log_probs_nV = soften(self.teacher.project(final_NU[piece]), self.config.temperature)
            tokens_nk, log_probs_nK = top_k_with_tail(log_probs_nV, self.config.top_k)
            tokens.append(tokens_nk)
            log_probs.append(log_probs_nK)
        return torch.cat(tokens), torch.cat(log_probs)


@dataclass(frozen=True)
class Questions:
    """Parts of a text for which a teacher's targets are needed."""

    order: BatchOrder
    parts: tuple[Part, ...]
    device: str
    precision: Precision
    strategy: Strategy
    tensor_parallel: bool

    def answered(self, team: Team, asked: Asked) -> Iterator[tuple[Part, Targets]]:
        """Yield the parts and their targets in order, only in process 0.

        Raises:
            StageError: the teacher's logits are not finite; in every process.
        """
        module = self._placed(team, asked)
        for start in range(0, len(self.parts), team.size):
            together = self.parts[start : start + team.size]
            own = _batches(together[team.rank]) if team.rank < len(together) else []
            read = own
            if self._in_parts:
                # Processes that hold parts of a teacher must run it equally often, whatever parts are left.
                most = max(len(_batches(part)) for part in together)
                read = own + [range(1)] * (most - len(own))
            answers: list[Targets] = []
            fault = None
            with autocast(self.device, self.precision):
                for rows in read:
                    answers.append(self._answers(module, rows))
                    if not answers[-1][1].isfinite().all():
                        fault = fault or rows
            for faulty in team.gather(fault):
                if faulty is not None:
                    raise StageError(
                        f"the teacher's logits are NaN or infinite in training windows {faulty.start} to "
                        f"{faulty.stop - 1}",
                        remedy="Check the teacher's weights; with fp16, use precision: bf16 or fp32.",
                    )
            joined = [torch.cat(each).cpu() for each in zip(*answers[: len(own)], strict=True)]
            for part, found in zip(together, team.to_leader(joined), strict=False):
                yield part, (found[0], found[1])

    def _placed(self, team: Team, asked: Asked) -> nn.Module:
        """Return the teacher on the device, whole or divided."""
        if team.size > 1 and self.tensor_parallel:
            return Asked(divided(asked.teacher, team, self.device), asked.config)
        kinds: tuple[type[Placement], type[Placement]] = (Placement, Shards if self._in_parts else Copies)
        return kinds[team.size > 1](asked, team, self.device).module

    @property
    def _in_parts(self) -> bool:
        """Whether each of several processes holds a part of the teacher."""
        return self.tensor_parallel or self.strategy == "fsdp"

    def _answers(self, module: nn.Module, rows: range) -> Targets:
        """Return the targets of some windows; a divided teacher reads equally many each time."""
        more = BATCH_SIZE - len(rows) if self.tensor_parallel else 0
        targets: Targets = module(self.order.at([*rows, *[rows[0]] * more], self.device))
        scored = int(self.order.scored_counts[rows.start : rows.stop].sum())
        return targets[0][:scored], targets[1][:scored]


def answer(team: Team, asked: Asked, questions: Questions) -> None:
    """Compute the targets of this process's parts, in a process other than 0."""
    with torch.no_grad():
        for _ in questions.answered(team, asked):
            raise AssertionError("only process 0 gets the targets")


def _batches(part: Part) -> list[range]:
    """Return the windows of a part, in the teacher's batches."""
    starts = range(part.first, part.stop, BATCH_SIZE)
    return [range(first, min(first + BATCH_SIZE, part.stop)) for first in starts]
