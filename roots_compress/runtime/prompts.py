"""Token arrays as every engine takes them: checks, left padding and positions.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from roots_compress.errors import InputError, StageError

if TYPE_CHECKING:
    from roots_compress.runtime.protocol import LanguageModel, Logits, Served, Step, Tokens

    Text = tuple[Tokens, Tokens | None]


def left_pad(prompts: Sequence[Sequence[int]]) -> tuple[Tokens, Tokens | None]:
    """Stack prompts of different lengths into `(B, T)` tokens, padded on the left.

    Returns:
        the tokens, and the mask that is 0 at padding; no mask where the prompts are equally long.

    Raises:
        InputError: there is no prompt, or one has no token.
    """
    lengths = [len(prompt) for prompt in prompts]
    if not lengths or 0 in lengths:
        what = f"prompt {lengths.index(0) + 1} of {len(lengths)} has no token" if lengths else "no prompt"
        raise InputError(what, remedy="Give at least one token, such as the tokenizer's BOS token.")
    longest = max(lengths)
    input_ids, mask = np.zeros((2, len(prompts), longest), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return input_ids, None if min(lengths) == longest else mask


def advance(
    model: LanguageModel, step: Step, token_ids_B: Tokens, length: int, text: Callable[[], Text]
) -> Step:
    """Return the step after one more token per row: through the cache, or anew where the model asks for it.

    Args:
        step: the one before; its cache must not be used again.
        length: of the longest row, its new token included.
        text: returns all tokens, the new ones included, and their mask.
    """
    if model.renewed_after is not None and length == model.renewed_after + 1:
        return model.prefill(*text())
    return model.decode(token_ids_B, step.cache)


def positions(attention_mask: Tokens) -> Tokens:
    """Return the position of each token in its row, `(B, T)`: padding does not count, and stands at 0."""
    numbered: Tokens = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)
    return numbered


def check_prompt(model: LanguageModel, input_ids: Tokens, attention_mask: Tokens | None) -> None:
    """Refuse a prompt that the model cannot read.

    Raises:
        InputError: no token, more tokens than the context holds, an id outside the vocabulary, or a mask that
            is not of the prompt's shape, not left-padded, or hides a whole row.
    """
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise InputError(
            f"a prompt of shape {input_ids.shape} has no token",
            remedy="Give at least one token, such as the tokenizer's BOS token.",
        )
    check_context(model, input_ids.shape[1])
    check_ids(model, input_ids)
    if attention_mask is None:
        return
    if attention_mask.shape != input_ids.shape:
        raise InputError(
            f"the mask's shape {attention_mask.shape} is not the prompt's {input_ids.shape}",
            remedy="Give a mask with one entry for each token.",
        )
    if not attention_mask[:, -1].all() or (np.diff(attention_mask, axis=1) < 0).any():
        raise InputError(
            "the mask hides the end of a prompt or has a gap",
            remedy="Pad on the left: zeros first, then ones.",
        )


def check_targets(
    model: LanguageModel, input_ids: Tokens, attention_mask: Tokens | None, *, sources: int
) -> None:
    """Refuse targets that a decoder cannot go on from: as `check_prompt`, and padding of any kind.

    Raises:
        InputError: what is wrong with them, or that they are not as many as the sources.
    """
    check_prompt(model, input_ids, attention_mask)
    if len(input_ids) != sources:
        raise InputError(
            f"there are {len(input_ids)} targets and {sources} sources", remedy="Give one of each for a row."
        )
    if attention_mask is not None and not attention_mask.all():
        raise InputError("the targets differ in length", remedy="Give targets of one length.")


def check_ids(model: Served, input_ids: Tokens) -> None:
    """Refuse token ids that the model does not know.

    Raises:
        InputError: naming one, and the size of the vocabulary.
    """
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= model.vocab_size:
        raise InputError(
            f"token id {low if low < 0 else high} is outside the model's vocabulary of {model.vocab_size}",
            remedy="Use the tokenizer the model was trained with.",
        )


def check_context(model: LanguageModel, tokens: int) -> None:
    """Refuse more tokens than the model's context holds.

    Raises:
        InputError: naming both figures.
    """
    if tokens > model.max_context:
        raise InputError(
            f"{tokens} tokens of context are more than the model's {model.max_context}",
            remedy="Shorten the prompt or ask for fewer new tokens.",
        )


def check_finite(logits: Logits) -> None:
    """Refuse logits with NaN or infinity: whatever follows from them would be noise that looks like a figure.

    Raises:
        StageError: naming how many of them are not finite.
    """
    # One sum is quicker than a test of each: it is finite only where every logit is.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(logits.sum(dtype=np.float64)):
            return
    bad = int(np.count_nonzero(~np.isfinite(logits)))
    raise StageError(
        f"{bad} of {logits.size} logits are not finite: the model is broken",
        remedy="If a stage has just quantized it, leave the widest layers in a wider format.",
    )
