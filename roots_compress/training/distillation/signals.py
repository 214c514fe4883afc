"""Terms inside student and teacher: hidden states, and relations between tokens.

Shape legend: B windows, T tokens, N scored positions of a batch, W and U hidden sizes of student and teacher,
C channels of any kind, A relation heads, D channels of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from roots_compress.models.attention import Visibility
from roots_compress.models.blocks.attention import AttentionBlock
from roots_compress.models.heads import RootsWithHead
from roots_compress.training.batches import Batch

RIDGE = 1e-5
"""Ridge relative to the mean square of the student's channels, for directions of a fitted map without
data."""


@dataclass(frozen=True)
class Signals:
    """The outputs of a forward pass that a loss needs."""

    final_NW: Tensor
    """The head's inputs at the scored positions: normed final hidden states, or vectors of texts."""
    states: tuple[Tensor, ...]
    """If requested: the residual stream `NW` after each layer, at the scored positions."""
    projections: tuple[Tensor, ...]
    """If requested: queries, keys and values `BTC` of the last attention, before rotary positions."""


def run(model: RootsWithHead, batch: Batch, *, states: bool = False, projections: bool = False) -> Signals:
    """Run the model without its head."""
    with _outputs_of(_last_attention(model) if projections else ()) as outputs:
        output = model.model(
            **batch.inputs,
            use_cache=False,
            output_hidden_states=states,
        )
    scored_BT = batch.scored_BT
    return Signals(
        model.states_at(output.last_hidden_state, scored_BT, batch.segment_ids_BT),
        tuple(state_BTW[scored_BT] for state_BTW in (output.hidden_states or ())[1:]),
        tuple(outputs),
    )


def _last_attention(model: RootsWithHead) -> list[nn.Linear]:
    """Return the linear layers for queries, keys and values of the last self-attention."""
    blocks = [half.block for layer in model.model.layers for half in layer.halves]
    attentions = [block for block in blocks if isinstance(block, AttentionBlock)]
    return [block for block in attentions if block.spec.source == "self"][-1].readers()


def matched_layers(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Return, for each student layer, the teacher layer (from 0) of the same relative depth."""
    return tuple(
        max(1, round(number * teacher_layers / student_layers)) - 1 for number in range(1, student_layers + 1)
    )


def hidden_distance(student_NU: Tensor, teacher_NU: Tensor) -> Tensor:
    """Return the squared distance of hidden states at each position, `N`, over the teacher's variance there.

    Matching hidden states: Romero et al. 2015, FitNets. Each position is normalised by its own variance over
    the channels: positions with massive activations (Sun et al. 2024) would otherwise drown the rest, and a
    variance taken over a batch would make the loss of a position depend on its neighbours and on padding.
    """
    student_NU, teacher_NU = student_NU.float(), teacher_NU.float()
    spread = (teacher_NU - teacher_NU.mean(dim=-1, keepdim=True)).square().mean(dim=-1)
    distance = (student_NU - teacher_NU).square().mean(dim=-1)
    return distance / spread.clamp(min=torch.finfo(torch.float32).tiny)


def relation_heads(student: int, teacher: int, most: int) -> int:
    """Return the largest number of relation heads, at most `most`, that divides both widths."""
    common = math.gcd(student, teacher)
    return max(heads for heads in range(1, min(most, common) + 1) if common % heads == 0)


def relation_divergence(
    student_BTC: Tensor, teacher_BTC: Tensor, segment_ids_BT: Tensor, heads: int, *, causal: bool = True
) -> Tensor:
    """Return KL(teacher || student) of the self-relations at each position, `BT`, averaged over heads.

    Wang et al. 2021, MiniLMv2: vectors are cut into relation heads, whatever heads the attention has, so that
    student and teacher may differ in both width and heads; the relation of a token is the softmax of its
    scaled products with all tokens it can see. Windows are processed one at a time, and again in the backward
    pass, so that only one window's `ATT` relations are in memory.

    Args:
        student_BTC: queries, keys or values; their width may differ from the teacher's.
        segment_ids_BT: tokens see those of their own document.
        heads: A; divides both widths.
    """
    everywhere_BT = torch.ones_like(segment_ids_BT, dtype=torch.bool)
    tokens = segment_ids_BT.shape[1]
    visible_B1TT = Visibility(tokens, everywhere_BT, None, segment_ids_BT, causal).mask()
    rows = [
        checkpoint(_window_divergence, *row, heads, use_reentrant=False, preserve_rng_state=False)
        for row in zip(student_BTC, teacher_BTC, visible_B1TT, strict=True)
    ]
    return torch.stack(rows)


def least_squares_maps(
    pairs: Iterable[tuple[Sequence[Tensor], Sequence[Tensor]]],
) -> list[Tensor]:
    """Return, for each pair of matched layers, the best linear map `UW` from student to teacher states.

    The minimiser of ||S M^T - H||^2 over all positions given, by the normal equations with a slight ridge:
    the regressor of FitNets (Romero et al. 2015) in closed form.

    Args:
        pairs: batches of student states `NW` and the teacher's `NU`, one of each for every pair of layers.
    """
    grams: list[Tensor] = []
    crosses: list[Tensor] = []
    for students, teachers in pairs:
        for index, (student, teacher) in enumerate(zip(students, teachers, strict=True)):
            student, teacher = student.double(), teacher.double()
            gram_WW, cross_WU = student.T @ student, student.T @ teacher
            if index == len(grams):
                grams.append(gram_WW)
                crosses.append(cross_WU)
            else:
                grams[index] += gram_WW
                crosses[index] += cross_WU
    maps = []
    for gram_WW, cross_WU in zip(grams, crosses, strict=True):
        ridge = (
            RIDGE
            * gram_WW.diagonal().mean()
            * torch.eye(len(gram_WW), dtype=torch.float64, device=gram_WW.device)
        )
        maps.append(torch.linalg.solve(gram_WW + ridge, cross_WU).T.float())
    return maps


def _window_divergence(student_TC: Tensor, teacher_TC: Tensor, visible_1TT: Tensor, heads: int) -> Tensor:
    log_student_ATT, log_teacher_ATT = (
        _log_relations(vectors_TC, visible_1TT, heads) for vectors_TC in (student_TC, teacher_TC)
    )
    # Invisible tokens have zero probability in both: this avoids 0 * (-inf + inf).
    difference_ATT = (log_teacher_ATT - log_student_ATT).masked_fill(~visible_1TT, 0.0)
    divergence_T: Tensor = (log_teacher_ATT.exp() * difference_ATT).sum(dim=-1).mean(dim=0)
    return divergence_T


def _log_relations(vectors_TC: Tensor, visible_1TT: Tensor, heads: int) -> Tensor:
    vectors_ATD = vectors_TC.float().unflatten(-1, (heads, -1)).transpose(0, 1)
    products_ATT = vectors_ATD @ vectors_ATD.mT / math.sqrt(vectors_ATD.shape[-1])
    log_relations_ATT: Tensor = products_ATT.masked_fill(~visible_1TT, -torch.inf).float().log_softmax(dim=-1)
    return log_relations_ATT


@contextmanager
def _outputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within the block, collect the outputs of these modules, in running order."""
    outputs: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for module in modules
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
