"""Beam search over any `BeamModel`: the likeliest text among several that are continued side by side.

The search keeps to the rules of transformers' `generate`, so that the same settings give the same text.

Shape legend: R beams that run, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roots_compress.checkpoints.logit_settings import MOST_PENALTY, LogitSettings
from roots_compress.errors import InputError
from roots_compress.runtime.logit_processors import UNCHANGED, adjusted_rows, log_softmax
from roots_compress.runtime.prompts import advance, check_context, check_finite, check_prompt, left_pad
from roots_compress.runtime.protocol import BeamModel

Scores = NDArray[np.float32]
MOST_BEAMS = 1024
"""More would fill memory before they change a text."""


@dataclass(frozen=True)
class Beams:
    """How a search goes on and when it ends."""

    count: int = 4
    """Texts that are continued side by side."""
    length_penalty: float = 1.0
    """A text's log-probability is divided by its number of new tokens to this power (Wu et al. 2016)."""
    early_stopping: bool | Literal["never"] = False
    """Whether the search ends as soon as `count` texts have ended. If not, it ends when none that runs can
    become better than these: judged by its present length or, with `never`, by the greatest it may have."""

    def __post_init__(self) -> None:
        if self.count > MOST_BEAMS:
            raise InputError(
                f"{self.count} beams are asked for; at most {MOST_BEAMS} are continued side by side",
                remedy="Give fewer, by --beams or as num_beams in generation_config.json.",
            )
        if not -MOST_PENALTY <= self.length_penalty <= MOST_PENALTY:
            raise InputError(
                f"a length penalty must be from {-MOST_PENALTY:g} to {MOST_PENALTY:g}, "
                f"not {self.length_penalty:g}",
                remedy="Give a value such as 1 or 2.",
            )

    def score(self, log_probability: float, tokens: int) -> float:
        """Return what texts are compared by."""
        return float(np.float32(log_probability) / np.float32(tokens**self.length_penalty))


class Ended(NamedTuple):
    """A text that has ended."""

    score: float
    tokens: list[int]


def beam_search(
    model: BeamModel,
    prompt: Sequence[int],
    beams: Beams,
    *,
    max_new_tokens: int,
    stop_tokens: Collection[int] = (),
    settings: LogitSettings = UNCHANGED,
) -> list[int]:
    """Return the tokens that follow a prompt, the stop token included.

    Args:
        max_new_tokens: the most tokens that the prompt is continued by.
        settings: what is done to log-probabilities before tokens are chosen.

    Raises:
        InputError: an option is out of range, or prompt and new tokens do not fit the model.
        StageError: the model gives logits that are not finite.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("num_beams", beams.count)):
        if value < 1:
            raise InputError(f"{name} cannot be {value}", remedy="Give 1 or more.")
    input_ids, mask = left_pad([prompt])
    check_prompt(model, input_ids, mask)
    check_context(model, len(prompt) + max_new_tokens - 1)
    # At worst every beam goes on with each stop token: so many candidates leave `count` that go on.
    most = max(2, 1 + len(stop_tokens)) * beams.count
    step, rows = model.prefill(input_ids, mask), [list(prompt)]
    scores_R, ended = np.zeros(1, dtype=np.float32), list[Ended]()
    for tokens in range(1, max_new_tokens + 1):
        check_finite(step.logits)
        chances_RV = adjusted_rows(
            log_softmax(step.logits),
            rows,
            settings,
            prompt_lengths=[len(prompt)] * len(rows),
            max_new_tokens=max_new_tokens,
            stop_tokens=stop_tokens,
        )
        total_x = (chances_RV + scores_R[:, None]).reshape(-1)
        best = _largest(total_x, most)
        origins, chosen = np.divmod(best, model.vocab_size)
        ends = np.isin(chosen, list(stop_tokens)) | (tokens == max_new_tokens)
        for place in np.flatnonzero(ends[: beams.count]):
            text = [*rows[origins[place]][len(prompt) :], int(chosen[place])]
            ended.append(Ended(beams.score(total_x[best[place]], tokens), text))
        ended = sorted(ended, key=lambda each: -each.score)[: beams.count]
        on = np.flatnonzero(~ends)[: beams.count]
        if not len(on) or _is_over(ended, beams, float(total_x[best[on[0]]]), tokens, max_new_tokens):
            break
        scores_R = total_x[best[on]]
        rows = [[*rows[origin], int(token)] for origin, token in zip(origins[on], chosen[on], strict=True)]
        cache = model.reordered(step.cache, origins[on])
        step = advance(model, step._replace(cache=cache), chosen[on], len(rows[0]), partial(left_pad, rows))
    return ended[0].tokens


def _is_over(
    ended: Sequence[Ended], beams: Beams, log_probability: float, tokens: int, max_new_tokens: int
) -> bool:
    """Return whether a search is to end whose best text that runs has a log-probability."""
    if len(ended) < beams.count:
        return False
    if beams.early_stopping is True:
        return True
    longest = beams.early_stopping == "never" and beams.length_penalty > 0
    return beams.score(log_probability, max_new_tokens if longest else tokens) <= ended[-1].score


def _largest(values_x: Scores, count: int) -> NDArray[np.int64]:
    """Return the places of the largest values, the largest first; of equal ones the first."""
    if count < len(values_x):
        edge = np.partition(values_x, -count)[-count]
        places = np.flatnonzero(values_x >= edge)
    else:
        places = np.arange(len(values_x))
    found: NDArray[np.int64] = places[np.argsort(-values_x[places], kind="stable")][:count]
    return found
