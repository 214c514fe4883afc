"""The state of one training in each of its processes: weights, optimizer, position, totals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from roots_compress.configs.training import TrainingConfig
from roots_compress.errors import StageError
from roots_compress.models.device import Precision, autocast
from roots_compress.models.layer import recompute
from roots_compress.results import Json
from roots_compress.training.batches import Batch, BatchOrder
from roots_compress.training.interrupts import uninterrupted
from roots_compress.training.memory import hand_back_free_memory
from roots_compress.training.objective import TrainingStep
from roots_compress.training.optimizer import learning_rate, make_optimizer, trainable
from roots_compress.training.parallel.placement import placement
from roots_compress.training.parallel.shares import windows_of
from roots_compress.training.parallel.team import Team
from roots_compress.training.saving import SavedStates
from roots_compress.training.state import fingerprint_of
from roots_compress.training.summary import FitSummary, Tally

HAND_BACK_EVERY = 20
"""Memory is returned at intervals of this many times its own duration: with a fragmented heap it takes longer
than a small step."""
SMALLEST_LOSS_SCALE = 2.0**-10
LOSS_SCALE = 2.0**16
"""Where dynamic loss scaling begins; halved until gradients fit, doubled after many steps that do."""


@dataclass(frozen=True)
class Lesson:
    """Data that all processes of a training share."""

    order: BatchOrder
    config: TrainingConfig
    device: str
    precision: Precision
    seed: int

    def facts(self) -> dict[str, Json]:
        """Return everything that a training's result depends on besides weights and text."""
        return {
            "config": self.config.model_dump(mode="json", exclude={*TrainingConfig.unkeyed}),
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
        }


class TrainingRun:
    """One training, from the view of one process of a team.

    Args:
        step: model and objective; in processes other than 0 a twin of them without weights.
        work: the folder of the first process's saved states; None in the others.
        say: reports where a training goes on from.
    """

    def __init__(
        self,
        team: Team,
        step: TrainingStep,
        lesson: Lesson,
        *,
        work: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.team, self.order, self.config = team, lesson.order, lesson.config
        self.device, self.precision = lesson.device, lesson.precision
        self.step, self.saved_step, self.tally = 0, 0, Tally()
        self._hand_back_at = 0.0
        self._held: list[int] = []
        self._ending = False
        """Whether a process received a signal to end."""
        team.require_same(
            "data",
            {
                "text": fingerprint_of(lesson.facts(), self.order.tensors) if team.size > 1 else None,
                "files": step.objective.read_files(),
            },
        )
        self._states = SavedStates(team, work)
        self._states.find(step, {**lesson.facts(), "objective": repr(step.objective)}, self.order.tensors)
        torch.manual_seed(lesson.seed)
        step.train()
        recompute(step.model, self.config.activation_checkpointing)
        self.placement = placement(step, team, self.device, self.config, self.order, self.precision)
        self.parameters = trainable(self.placement.module)
        self.adamw = make_optimizer(self.parameters, self.config)
        self.scaler = torch.amp.GradScaler(
            self.device, init_scale=LOSS_SCALE, enabled=self.precision == "fp16"
        )
        self._resume()
        if self.step:
            say(f"going on from step {self.step} of {self.config.steps}")

    def train(self, tell: Callable[[], None]) -> bool:
        """Do the remaining steps, and save the state in between.

        Returns:
            whether it came to its end; no process that leads gets to know otherwise.

        Raises:
            StageError: as `advance` and `save` raise it in all processes, or another one was told to end.
        """
        # One process may be interrupted within a step. Several must stop after the same one: a signal is held
        # back, the others hear of it with the next step's losses, and all save the state together.
        with uninterrupted() if self.team.size > 1 else nullcontext(self._held) as self._held:
            while self.step < self.config.steps and not self._ending:
                self.advance()
                tell()
                last = self.step == self.config.steps
                if self.step % self.config.checkpoint_every == 0 or last or self._ending:
                    self.save()
        if self.step < self.config.steps and self.team.leads:
            raise StageError(
                f"another process was told to end at step {self.step} of {self.config.steps}",
                remedy="Run the command again: it goes on from there.",
                transient=True,
            )
        return self.step == self.config.steps

    def advance(self) -> None:
        """Do one optimizer step."""
        started = time.perf_counter()
        if started >= self._hand_back_at:
            hand_back_free_memory()
            self._hand_back_at = started + HAND_BACK_EVERY * (time.perf_counter() - started)
        losses, tokens = self._backward()
        if not self.scaler.is_enabled():
            self._require(math.isfinite(losses["total"]), f"the loss became {losses['total']}")
        self.scaler.unscale_(self.adamw)
        norms = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        norm, scale = float(self.placement.whole(norms)), float(self.scaler.get_scale())
        if not self.scaler.is_enabled():
            self._require(math.isfinite(norm), f"the gradient's norm became {norm}")
        else:
            # An overflow, also of the loss, is no failure here: the step is skipped, and the scale halved.
            self._require(scale >= SMALLEST_LOSS_SCALE, f"gradients overflow even at a loss scale of {scale}")
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        with uninterrupted():
            self.scaler.step(self.adamw)
            self.scaler.update()
            self.adamw.zero_grad()
            self.step += 1
            self.tally.add(losses, step=self.step, tokens=tokens, seconds=time.perf_counter() - started)
            self.tally.record(step=self.step, steps=self.config.steps)
            self.tally.skipped_steps += float(self.scaler.get_scale()) < scale

    def _backward(self) -> tuple[dict[str, float], int]:
        """Accumulate the gradients of one step; return the mean losses and the tokens that all read."""
        # A step that Ctrl-C interrupted may have left gradients.
        self.adamw.zero_grad()
        batches = self._micro_batches()
        counts = [int(batch.scored_BT.sum()) for batch in batches]
        everything = self._scored(counts)
        sums: dict[str, Tensor] = {}
        shares: dict[str, float] = {}
        for index, (batch, count) in enumerate(zip(batches, counts, strict=True)):
            # Weighted by scored tokens, so that the sum is the mean over the whole accumulated batch.
            share = count / everything
            more = index + 1 < len(batches)
            with self.placement.accumulating() if more else nullcontext():
                with autocast(self.device, self.precision):
                    total, parts = self.placement.call(batch)
                # Gradients are averaged over the processes, and a mean over all windows is their sum.
                self.scaler.scale(total * (share * self.team.size)).backward()
            for name, value in {"total": total.detach(), **parts}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + share * value
                shares[name] = shares.get(name, 0.0) + share
        tokens = sum(b.input_ids_BT.numel() for b in batches)
        return self._together({name: float(value) for name, value in sums.items()}, shares, tokens)

    def _together(
        self, sums: dict[str, float], shares: dict[str, float], tokens: int
    ) -> tuple[dict[str, float], int]:
        """Combine the results of all processes, and whether one is to end; equal in all."""
        found = self.team.gather((sums, shares, tokens, bool(self._held)))
        self._ending = any(each[3] for each in found)
        names = dict.fromkeys(name for each in found for name in each[0])
        # A term that some batches lack is a mean over the others.
        losses = {
            name: sum(each[0].get(name, 0.0) for each in found)
            / sum(each[1].get(name, 0.0) for each in found)
            for name in names
        }
        return losses, sum(each[2] for each in found)

    def _micro_batches(self) -> list[Batch]:
        parts = windows_of(self.config, self.step, rank=self.team.rank, size=self.team.size)
        return [self.order.take(part.start, len(part), self.device) for part in parts]

    def _scored(self, counts: list[int]) -> int:
        """Return how many positions all processes score in this step, given this one's."""
        if self.team.size == 1:
            return sum(counts)
        windows = self.config.batch_size * self.config.accumulation
        return self.order.scored(self.step * windows, windows)

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise StageError(
                what,
                where=f"training step {self.step + 1} of {self.config.steps}",
                remedy=f"Lower learning_rate (now {self.config.learning_rate:g}), raise warmup_ratio, or set "
                "precision: fp32; and check that the model's own weights are finite.",
            )

    def save(self) -> None:
        """Save the state, unless the disk has it already.

        Raises:
            StageError: it cannot be written, or replicas differ.
        """
        if self.step != self.saved_step:
            facts: dict[str, Any] = {
                **asdict(self.tally),
                "loss_scale": self.scaler.state_dict() if self.scaler.is_enabled() else None,
            }
            self._states.save(self.step, self.placement, self.parameters, self.adamw, facts)
            self.saved_step = self.step

    def _resume(self) -> None:
        """Go on from a saved state, if any."""
        found = self._states.restore(self.placement, self.parameters, self.adamw)
        if found is not None:
            self.step, facts = found
            self.saved_step = self.step
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(facts["loss_scale"])
            self.tally = Tally(**{each.name: facts[each.name] for each in fields(Tally)})

    def finish(self) -> FitSummary:
        """Copy the weights back to process 0, and return the training's summary."""
        self.placement.finish()
        losses = dict(self.tally.losses)
        scale: dict[str, Json] | None = None
        if self.scaler.is_enabled():
            scale = {"loss_scale": self.scaler.get_scale(), "skipped_steps": self.tally.skipped_steps}
        processes: dict[str, Json] | None = None
        if self.team.size > 1:
            held = self.team.gather(self.placement.held_bytes(self.adamw))
            processes = {
                "number": self.team.size,
                "strategy": self.config.strategy,
                "held_bytes": [dict(each) for each in held],
            }
        total = losses.pop("total")
        self._require(math.isfinite(total), f"the loss became {total} in every step")
        tally = self.tally
        curves = tally.points()
        return FitSummary(self.step, tally.tokens, tally.seconds, total, losses, scale, curves, processes)
