"""The distillation objective: cross-entropy with the text, and distances to the teacher.

Shape legend: N scored positions, n positions of a chunk, V vocabulary, W and U hidden sizes of student and
teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from roots_compress.configs.training import DistillLossConfig
from roots_compress.data.windows import PackedWindows
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.results import Json
from roots_compress.training.batches import Batch
from roots_compress.training.distillation.divergence import divergence
from roots_compress.training.distillation.head import head_loss
from roots_compress.training.distillation.samples import sample_answers, sample_continuations
from roots_compress.training.distillation.signals import (
    Signals,
    hidden_distance,
    matched_layers,
    relation_divergence,
    relation_heads,
    run,
)
from roots_compress.training.distillation.teacher import (
    log_probs_of_cache,
    log_probs_of_teacher,
    logits_of_teacher,
)
from roots_compress.training.distillation.teacher_cache import TeacherCache
from roots_compress.training.objective import (
    Distance,
    Loss,
    Objective,
    ScoreLoss,
    score_distance,
    text_distance,
)
from roots_compress.training.parallel.twins import tensors_of, twin

Compared = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""From the student's logits at some positions to the log-probabilities of student and teacher there."""


class Distillation(Objective):
    """Cross-entropy with the text, and distances to a frozen teacher's distributions and hidden states.

    Only terms with a weight above 0 are computed; without any teacher term the teacher does not run. If the
    widths differ, hidden states are compared through linear maps, one for each student layer, which do not
    belong to the student: trained with it (Romero et al. 2015, FitNets), or given and fixed. For models of
        vectors the divergence is 1 less their cosine, for scores the squared difference. They have no
        cross-entropy; for rated texts, the distance from their numbers replaces it.

    Args:
        teacher: a model, put in eval mode and frozen here, whose tokens are the student's; or its cache on
            the very windows of the training. Its tables may have fewer rows than the student's: distributions
            are compared over its own.
        config: the weights, and which divergence.
        seed: for learned maps, and for an on-policy student's text.
        maps: fitted ones, `UW` for each student layer.
        answers: whether an on-policy student writes answers of conversations instead of the rest of windows.
        rated: whether scores also learn the numbers in the data.
    """

    def __init__(
        self,
        teacher: RootsWithHead | TeacherCache,
        student: RootsWithHead,
        config: DistillLossConfig,
        *,
        seed: int,
        maps: Sequence[Tensor] = (),
        answers: bool = False,
        rated: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.seed, self.answers = config, seed, answers
        self.rated = rated and config.cross_entropy_weight > 0
        self.whole_micro_batches = config.whole_micro_batches
        self.teacher: RootsWithHead | None = None
        self.cache: TeacherCache | None = None
        self.maps = nn.ModuleList()
        if isinstance(teacher, TeacherCache):
            assert not config.needs_running_teacher
            self.cache = teacher
            return
        # Rows beyond the teacher's have no token: they pad a student's tables to a round number.
        assert teacher.outcomes <= student.outcomes
        self.teacher = teacher.eval().requires_grad_(False)
        self.matches = matched_layers(student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        widths = student.config.hidden_size, teacher.config.hidden_size
        if config.hidden_weight and widths[0] != widths[1]:
            self.maps.extend(
                _learned_maps(*widths, len(self.matches), seed) if not maps else _fixed_maps(maps)
            )

    def extra_repr(self) -> str:
        """Return the settings and the cache, which identify a distillation's saved state."""
        settings = self.config.model_dump(mode="json", exclude={"cache"})
        return f"{settings}, seed={self.seed}, cache={self.cache and self.cache.sha256}"

    @property
    def running_teacher(self) -> RootsWithHead | None:
        return self.teacher

    def taught_by(self, teacher: RootsWithHead) -> Distillation:
        """Return the objective with the same maps, but with another teacher."""
        found = twin(self, "meta", tensors_of(self))
        found.teacher = teacher.eval().requires_grad_(False)
        return found

    def read_files(self) -> Json:
        """Return the hashes of the teacher's cache in this process."""
        return None if self.cache is None else self.cache.found()

    def train(self, mode: bool = True) -> Distillation:
        """Change the mode of the maps; the teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def check(self, model: RootsWithHead, windows: PackedWindows) -> None:
        if self.rated:
            ScoreLoss().check(model, windows)

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        """Return the weighted loss of a batch, and its terms."""
        config = self.config
        sampled = self._may_write(batch)
        if sampled is not None:
            rows = model.outcomes if self.teacher is None else self.teacher.outcomes
            assert isinstance(model, RootsForCausalLM), "no other model writes text"
            sample = sample_answers if self.answers else sample_continuations
            batch = sample(model, batch, sampled, vocab_size=rows)
        student = run(model, batch, states=config.hidden_weight > 0, projections=config.relation_weight > 0)
        teacher = self._run_teacher(batch)
        weights = {}
        if self.rated:
            weights["score_loss"] = config.cross_entropy_weight
        # There is no cross-entropy with the student's own text, nor for vectors.
        elif sampled is None and model.head_matrix is not None:
            weights["cross_entropy"] = config.cross_entropy_weight
        if config.divergence_weight:
            weights["divergence"] = config.divergence_weight
        total, parts = self._head_terms(model, student, teacher, batch, weights)
        for name, weight, term in self._inner_terms(student, teacher, batch):
            total = total + weight * term
            parts[name] = term.detach()
        return Loss(total, parts)

    def _may_write(self, batch: Batch) -> torch.Generator | None:
        """Return the generator for the student's own text, if this batch has such text."""
        if not self.config.on_policy_ratio:
            return None
        rng = np.random.default_rng((self.seed, batch.first))
        if rng.random() >= self.config.on_policy_ratio:
            return None
        generator = torch.Generator(batch.input_ids_BT.device)
        return generator.manual_seed(int(rng.integers(1 << 62)))

    def _run_teacher(self, batch: Batch) -> Signals | None:
        config = self.config
        if self.teacher is None or not (
            config.divergence_weight or config.hidden_weight or config.relation_weight
        ):
            return None
        assert not self.teacher.training
        # Not inference mode: its tensors could not be kept for the student's backward pass.
        with torch.no_grad():
            return run(
                self.teacher, batch, states=config.hidden_weight > 0, projections=config.relation_weight > 0
            )

    def _head_terms(
        self,
        model: RootsWithHead,
        student: Signals,
        teacher: Signals | None,
        batch: Batch,
        weights: dict[str, float],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the terms on logits, and the terms."""
        if not weights:
            return student.final_NW.new_zeros(()), {}
        made = {
            "score_loss": lambda: score_distance(model, batch),
            "cross_entropy": lambda: text_distance(batch),
            "divergence": lambda: self._distance(model, teacher, batch),
        }
        distances = [made[name]() for name in weights]

        def term_sums(logits_nV: Tensor, part: slice) -> list[Tensor]:
            return [distance(logits_nV, part) for distance in distances]

        total, terms_L = head_loss(model, student.final_NW, term_sums, tuple(weights.values()))
        return total, dict(zip(weights, terms_L, strict=True))

    def _distance(self, model: RootsWithHead, teacher: Signals | None, batch: Batch) -> Distance:
        """Return the function for the student's distance from its teacher."""
        if self.teacher is not None and self.teacher.head_matrix is None:
            assert teacher is not None
            theirs, wanted_NV = self.teacher, self.teacher.head_input(teacher.final_NW)
            return lambda given_nV, part: theirs.distance(given_nV, wanted_NV[part]).sum()
        compared, config = self._compared(model, teacher, batch), self.config

        def distance(logits_nV: Tensor, part: slice) -> Tensor:
            distances_n = divergence(*compared(logits_nV, part), config.divergence)
            # T^2 keeps the gradient's size independent of the temperature (Hinton et al. 2015).
            return distances_n.sum() * config.temperature**2

        return distance

    def _compared(self, model: RootsWithHead, teacher: Signals | None, batch: Batch) -> Compared:
        temperature = self.config.temperature
        if self.cache is not None:
            cached = self.cache.read(batch.rows).to(batch.input_ids_BT.device)
            rows = self.cache.vocab_size
            return lambda logits_nV, part: log_probs_of_cache(cached, part, logits_nV[:, :rows], temperature)
        assert self.teacher is not None
        assert teacher is not None
        theirs = logits_of_teacher(self.teacher, teacher.final_NW, outcomes=model.outcomes)
        rows = self.teacher.outcomes
        return lambda logits_nV, part: log_probs_of_teacher(theirs.at(part), logits_nV[:, :rows], temperature)

    def _inner_terms(
        self, student: Signals, teacher: Signals | None, batch: Batch
    ) -> list[tuple[str, float, Tensor]]:
        """Return name, weight and mean of the terms inside the models."""
        terms = []
        if self.config.hidden_weight:
            assert teacher is not None
            terms.append(("hidden", self.config.hidden_weight, self._hidden_term(student, teacher)))
        if self.config.relation_weight:
            assert teacher is not None
            terms.append(
                ("relations", self.config.relation_weight, self._relation_term(student, teacher, batch))
            )
        return terms

    def _hidden_term(self, student: Signals, teacher: Signals) -> Tensor:
        """Return the distance averaged over positions and student layers; the embedding is not matched."""
        distances = []
        for index, match in enumerate(self.matches):
            state_NU = student.states[index]
            if self.maps:
                state_NU = self.maps[index](state_NU)
            distances.append(hidden_distance(state_NU, teacher.states[match]).mean())
        return torch.stack(distances).mean()

    def _relation_term(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """Return the divergence averaged over positions and over queries, keys and values."""
        assert self.teacher is not None
        last = [each for each in self.teacher.config.spec.attentions() if each.source == "self"][-1]
        means = []
        for student_BTC, teacher_BTC in zip(student.projections, teacher.projections, strict=True):
            heads = relation_heads(student_BTC.shape[-1], teacher_BTC.shape[-1], last.heads)
            distance_BT = relation_divergence(
                student_BTC, teacher_BTC, batch.segment_ids_BT, heads, causal=last.causal
            )
            means.append(distance_BT[batch.scored_BT].mean())
        return torch.stack(means).mean()


def _learned_maps(student_width: int, teacher_width: int, count: int, seed: int) -> list[nn.Linear]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [nn.Linear(student_width, teacher_width, bias=False) for _ in range(count)]


def _fixed_maps(maps: Sequence[Tensor]) -> list[nn.Linear]:
    linears = []
    for map_UW in maps:
        teacher_width, student_width = map_UW.shape
        linear = nn.Linear(student_width, teacher_width, bias=False)
        linear.weight = nn.Parameter(map_UW, requires_grad=False)
        linears.append(linear)
    return linears
