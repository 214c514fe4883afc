"""Text generation over any `LanguageModel`: greedy or sampled, streamed, for a batch of ragged prompts.

Shape legend: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from roots_compress.checkpoints.logit_settings import LogitSettings
from roots_compress.errors import InputError
from roots_compress.runtime.logit_processors import UNCHANGED, adjusted_rows
from roots_compress.runtime.prompts import advance, check_context, check_finite, check_prompt, left_pad
from roots_compress.runtime.protocol import LanguageModel, Logits, Tokens

LEAST_TEMPERATURE = 1e-6
"""Logits divided by less might overflow; the likeliest token is drawn long before."""


def require_sampling(
    temperature: float,
    *,
    top_k: int | None,
    top_p: float | None,
    spelled: Callable[[str], str] = str,
) -> None:
    """Refuse settings of sampling where nothing is sampled, or that are out of range.

    Args:
        temperature: 0 where the likeliest token is taken each time.
        spelled: returns what a caller calls a setting.

    Raises:
        InputError: there is such a one.
    """
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise InputError(
            "the likeliest token is taken each time, so that there is nothing to sample from",
            where=spelled("top_k" if top_k is not None else "top_p"),
            remedy=f"Give a {spelled('temperature')} above 0, such as 0.8.",
        )
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(
            f"must be above 0 and at most 1, not {top_p}",
            where=spelled("top_p"),
            remedy="Give a value such as 0.9.",
        )


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Collection[int] = (),
    settings: LogitSettings = UNCHANGED,
    seed: int = 0,
) -> Iterator[list[int | None]]:
    """Continue each prompt, yielding one token per prompt as soon as it is known.

    Args:
        prompts: token ids; lengths may differ.
        max_new_tokens: the most tokens each prompt is continued by.
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: sample among the likeliest tokens whose probabilities together first reach `p`, after `top_k`
            (nucleus sampling, Holtzman et al. 2020).
        stop_tokens: ids that end their row; they are yielded, as the row's last token.

    Returns:
        an iterator of one entry per prompt and step, None where the row has ended.

    Raises:
        InputError: an option is out of range, a prompt has no token or one outside the vocabulary, or prompt
            and new tokens exceed the model's context. Raised by the call itself, before the first token.
        StageError: while iterating, the model gives logits that are not finite.
    """
    for name, value, legal in (
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 1),
        ("temperature", temperature, temperature == 0 or LEAST_TEMPERATURE <= temperature < np.inf),
        ("top_k", top_k, top_k is None or top_k >= 1),
        ("top_p", top_p, top_p is None or 0 < top_p <= 1),
        ("seed", seed, seed >= 0),
    ):
        if not legal:
            raise InputError(
                f"{name} cannot be {value}",
                remedy="max_new_tokens and top_k start at 1; temperature is 0 or at least "
                f"{LEAST_TEMPERATURE}; top_p is above 0, at most 1; seed is not below 0.",
            )
    input_ids, mask = left_pad(prompts)
    rows = [list(prompt) for prompt in prompts]
    check_prompt(model, input_ids, mask)
    # The last new token is never read back, so it needs no place in the cache.
    check_context(model, input_ids.shape[1] + max_new_tokens - 1)
    generator = np.random.default_rng(seed)

    def choose(logits_BV: Logits) -> Tokens:
        logits_BV = adjusted_rows(
            logits_BV,
            rows,
            settings,
            prompt_lengths=[len(prompt) for prompt in prompts],
            max_new_tokens=max_new_tokens,
            stop_tokens=stop_tokens,
        )
        if temperature == 0:
            likeliest_B: Tokens = logits_BV.argmax(axis=-1)
            return likeliest_B
        return sample(logits_BV.astype(np.float64) / temperature, generator, top_k=top_k, top_p=top_p)

    def steps() -> Iterator[list[int | None]]:
        running = np.ones(len(prompts), dtype=bool)
        step = model.prefill(input_ids, mask)
        for remaining in range(max_new_tokens - 1, -1, -1):
            check_finite(step.logits)
            tokens_B = choose(step.logits)
            for row, token in zip(rows, tokens_B.tolist(), strict=True):
                row.append(token)
            yield [int(token) if runs else None for token, runs in zip(tokens_B, running, strict=True)]
            running &= ~np.isin(tokens_B, list(stop_tokens))
            if not (remaining and running.any()):
                return
            step = advance(model, step, tokens_B, max(map(len, rows)), lambda: left_pad(rows))

    return steps()


def sample(
    logits_BV: NDArray[np.float64],
    generator: np.random.Generator,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tokens:
    """Draw one token per row from the softmax of the logits, restricted as `generate` describes.

    Of tokens that tie at a restriction's edge, those with the lower id are kept.
    """
    order_BV = np.argsort(-logits_BV, axis=-1, kind="stable")
    ranked_BV = np.take_along_axis(logits_BV, order_BV, axis=-1)
    weights_BV = np.exp(ranked_BV - ranked_BV[:, :1])
    if top_k is not None:
        weights_BV[:, top_k:] = 0
    probabilities_BV = weights_BV / weights_BV.sum(axis=-1, keepdims=True)
    if top_p is not None:
        before_BV = probabilities_BV.cumsum(axis=-1) - probabilities_BV
        probabilities_BV[before_BV >= top_p] = 0
    cumulative_BV = probabilities_BV.cumsum(axis=-1)
    draws_B = generator.random(len(logits_BV)) * cumulative_BV[:, -1]
    ranks_B = (cumulative_BV <= draws_B[:, None]).sum(axis=-1)
    tokens_B: Tokens = np.take_along_axis(order_BV, ranks_B[:, None], axis=-1)[:, 0]
    return tokens_B
