"""Distillation losses, pure functions of tensors, and the objective that runs the teacher.

Shape legend: N scored positions, V vocabulary, W and U hidden sizes of student and teacher.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.training.batches import Batch
from roots_compress.training.config import DistillLossConfig
from roots_compress.training.objective import Loss, Objective, chunked_mean, final_hidden


def kl_divergence(
    student_NV: Tensor, teacher_NV: Tensor, *, temperature: float, direction: Literal["forward", "reverse"]
) -> Tensor:
    """Return the KL divergence between the softened distributions at each position, `N`, in nats times T^2.

    The factor T^2 keeps the gradient's size independent of the temperature (Hinton, Vinyals and Dean 2015,
    section 2). `forward` is KL(teacher || student), which spreads the student over all that the teacher
    allows; `reverse` is KL(student || teacher), which lets it keep to the teacher's main modes (Gu et al.
    2024, MiniLLM).

    Args:
        student_NV: the student's logits, of any floating dtype; computed with in float32 or wider.
        teacher_NV: the teacher's logits.
        temperature: T, above 0.
        direction: which of the two distributions the expectation is over.
    """
    log_student = _log_softmax(student_NV, temperature)
    log_teacher = _log_softmax(teacher_NV, temperature)
    log_p, log_q = (log_teacher, log_student) if direction == "forward" else (log_student, log_teacher)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1) * temperature**2


def hidden_distance(student_NU: Tensor, teacher_NU: Tensor) -> Tensor:
    """Return the squared distance of hidden states at each position, `N`, over the teacher's variance there.

    Each position is normalised by its own variance over the channels: positions with massive activations
    (Sun et al. 2024) would otherwise drown the rest, and a variance taken over a batch would make the loss
    of a position depend on its neighbours and on padding.
    """
    student_NU, teacher_NU = student_NU.float(), teacher_NU.float()
    spread = (teacher_NU - teacher_NU.mean(dim=-1, keepdim=True)).square().mean(dim=-1)
    distance = (student_NU - teacher_NU).square().mean(dim=-1)
    return distance / spread.clamp(min=torch.finfo(torch.float32).tiny)


def matched_layers(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Return, for each student layer, the teacher layer (counted from 1) at the same relative depth."""
    return tuple(
        max(1, round(number * teacher_layers / student_layers)) for number in range(1, student_layers + 1)
    )


class Distillation(Objective):
    """Cross-entropy with the text, KL divergence to a frozen teacher, and optionally matched hidden states.

    Only the terms with a weight above 0 are computed; without KL and hidden states the teacher does not run.
    Where the widths differ, hidden states are compared through learned linear maps, one for each student
    layer (Romero et al. 2015, FitNets); they are trained along, and are no part of the student.

    Args:
        teacher: put in eval mode and frozen here; it must share the student's vocabulary.
        student: the model to be trained, for its shape.
        config: weights, temperature and direction.
        seed: initialises the maps.
    """

    def __init__(
        self, teacher: RootsForCausalLM, student: RootsForCausalLM, config: DistillLossConfig, *, seed: int
    ) -> None:
        super().__init__()
        assert teacher.config.vocab_size == student.config.vocab_size
        self.config = config
        self.teacher = teacher.eval().requires_grad_(False)
        self.matches = matched_layers(len(student.config.layers), len(teacher.config.layers))
        self.maps = nn.ModuleList()
        widths = student.config.hidden_size, teacher.config.hidden_size
        if config.hidden_weight and widths[0] != widths[1]:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.maps.extend(nn.Linear(*widths, bias=False) for _ in self.matches)

    def extra_repr(self) -> str:
        """Name the settings, which tell one distillation's saved state from another's."""
        return str(self.config)

    def train(self, mode: bool = True) -> Distillation:
        """Change the mode of the maps; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, model: RootsForCausalLM, batch: Batch) -> Loss:
        """Return the weighted loss of a batch, and its terms."""
        config = self.config
        use_hidden = config.hidden_weight > 0
        student_NW, student_states = final_hidden(model, batch, states=use_hidden)
        teacher_NU, teacher_states = self._teacher_hidden(batch)
        targets_N = batch.targets_N

        def term_sums(part: slice) -> Tensor:
            logits_nV = model.project(student_NW[part]).float()
            cross_entropy = F.cross_entropy(logits_nV, targets_N[part], reduction="sum")
            if teacher_NU is None or not config.kl_weight:
                return torch.stack((cross_entropy, torch.zeros_like(cross_entropy)))
            with torch.no_grad():
                teacher_nV = self.teacher.project(teacher_NU[part])
            divergence = kl_divergence(
                logits_nV, teacher_nV, temperature=config.temperature, direction=config.direction
            )
            return torch.stack((cross_entropy, divergence.sum()))

        cross_entropy, kl = chunked_mean(term_sums, len(targets_N), model.config.vocab_size)
        total = config.cross_entropy_weight * cross_entropy + config.kl_weight * kl
        parts = {"cross_entropy": cross_entropy.detach()}
        if config.kl_weight:
            parts["kl"] = kl.detach()
        if use_hidden:
            hidden = self._hidden_loss(student_states, teacher_states)
            total = total + config.hidden_weight * hidden
            parts["hidden"] = hidden.detach()
        return Loss(total, parts)

    def _teacher_hidden(self, batch: Batch) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        if not (self.config.kl_weight or self.config.hidden_weight):
            return None, ()
        assert not self.teacher.training
        # Not inference mode: its tensors could not be kept for the student's backward pass.
        with torch.no_grad():
            return final_hidden(self.teacher, batch, states=self.config.hidden_weight > 0)

    def _hidden_loss(self, student_states: tuple[Tensor, ...], teacher_states: tuple[Tensor, ...]) -> Tensor:
        """Return the distance averaged over positions and student layers; the embedding is not matched."""
        distances = []
        for index, match in enumerate(self.matches):
            state_NU = student_states[index + 1]
            if self.maps:
                state_NU = self.maps[index](state_NU)
            distances.append(hidden_distance(state_NU, teacher_states[match]).mean())
        return torch.stack(distances).mean()


def _log_softmax(logits_NV: Tensor, temperature: float) -> Tensor:
    wide = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return (wide / temperature).log_softmax(dim=-1)
