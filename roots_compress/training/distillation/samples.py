"""Text that the student writes itself, for its teacher to correct.

Shape legend: B windows, T tokens in a window, P of them given, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.data.special_tokens import stop_ids
from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.models.caches import empty_cache
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.training.batches import Batch


@torch.no_grad()
def sample_continuations(
    model: RootsForCausalLM, batch: Batch, generator: torch.Generator, *, vocab_size: int | None = None
) -> Batch:
    """Return the windows with their second half sampled from the model; only that half is scored.

    On-policy distillation (Agarwal et al. 2024, GKD): a student that learns only from text does not learn to
    continue after its own mistakes. Each window continues the document at its middle; tokens after an end of
    text are not scored.

    Args:
        batch: windows of two or more tokens.
        generator: one on the batch's device, for sampling.
        vocab_size: samples only from this many first tokens; None for all.
    """
    given = batch.input_ids_BT.shape[1] // 2
    return _continued(
        model,
        batch,
        batch.input_ids_BT[:, :given],
        batch.segment_ids_BT[:, :given],
        generator,
        vocab_size=vocab_size,
    )


@torch.no_grad()
def sample_answers(
    model: RootsForCausalLM, batch: Batch, generator: torch.Generator, *, vocab_size: int | None = None
) -> Batch:
    """Return windows of one prompt each, with an answer sampled from the model; only that is scored.

    One of each window's answers is chosen. Everything before it in its conversation is given, up to half of
    the window's length, and ends at the middle of every row; padding before it is hidden.

    Args:
        generator: one on the batch's device, for choosing the answer and sampling.
        vocab_size: samples only from this many first tokens; None for all.
    """
    most = batch.input_ids_BT.shape[1] // 2
    scored_BT = batch.scored_BT
    # The first scored position of an answer reads the last token of its prompt.
    opens_BT = scored_BT & ~F.pad(scored_BT[:, :-1], (1, 0))
    ends_B = torch.multinomial(opens_BT.float(), 1, generator=generator)
    places_BP = ends_B + torch.arange(1 - most, 1, device=ends_B.device)
    there_BP = places_BP >= 0
    places_BP = places_BP.clamp(min=0)
    prompt_BP, segments_BP = (
        each_BT.gather(1, places_BP) for each_BT in (batch.input_ids_BT, batch.segment_ids_BT)
    )
    return _continued(
        model,
        batch,
        prompt_BP,
        segments_BP.masked_fill(~there_BP, -1),
        generator,
        vocab_size=vocab_size,
    )


def _continued(
    model: RootsForCausalLM,
    batch: Batch,
    prompt_BP: Tensor,
    segments_BP: Tensor,
    generator: torch.Generator,
    *,
    vocab_size: int | None,
) -> Batch:
    """Return windows that continue the document at the end of the given tokens."""
    given = prompt_BP.shape[1]
    # Earlier documents are hidden like padding, so positions restart with the document as in training.
    mask_BS = (segments_BP == segments_BP[:, -1:]).long()
    tokens: list[Tensor] = []
    length, next_BT = batch.input_ids_BT.shape[1], prompt_BP
    past = empty_cache(model.config.spec, length)
    for _ in range(length - given):
        output = model.model(input_ids=next_BT, attention_mask=mask_BS, past_key_values=past, use_cache=True)
        logits_BV = model.project(output.last_hidden_state[:, -1])[:, :vocab_size]
        probabilities_BV = logits_BV.float().softmax(dim=-1)
        next_BT = torch.multinomial(probabilities_BV, 1, generator=generator)
        tokens.append(next_BT)
        mask_BS = torch.cat((mask_BS, torch.ones_like(next_BT)), dim=1)
    sampled_BS = torch.cat(tokens, dim=1)
    ends = torch.tensor(_end_of_text(model), dtype=sampled_BS.dtype, device=sampled_BS.device)
    ended_BS = torch.isin(sampled_BS, ends).long()
    targets_BT = torch.full_like(batch.input_ids_BT, IGNORED_LABEL)
    after_end_BS = ended_BS.cumsum(dim=1) > ended_BS
    targets_BT[:, given - 1 : -1] = sampled_BS.masked_fill(after_end_BS, IGNORED_LABEL)
    return Batch(
        input_ids_BT=torch.cat((prompt_BP, sampled_BS), dim=1),
        targets_BT=targets_BT,
        segment_ids_BT=torch.cat((segments_BP, segments_BP[:, -1:].expand_as(sampled_BS)), dim=1),
        rows=(),
        first=batch.first,
    )


def _end_of_text(model: RootsForCausalLM) -> list[int]:
    generation = model.generation_config
    named = None if generation is None else generation.eos_token_id
    return list(stop_ids(named, model.config.eos_token_id, None))
