"""Perplexity through the cache, token by token, which a cache that loses or misplaces anything changes."""

from __future__ import annotations

from roots_compress.data.windows import EvaluationWindows
from roots_compress.runtime.prompts import advance
from roots_compress.runtime.protocol import LanguageModel, Tokens
from roots_compress.tasks.figures.perplexity import Perplexity, paid
from roots_compress.tasks.figures.predictions import negative_log_likelihood


def cached_perplexity(model: LanguageModel, windows: EvaluationWindows, *, batch_size: int = 8) -> Perplexity:
    """Score windows; the result is that of `perplexity` up to rounding."""
    total = 0.0
    for start in range(0, len(windows.input_ids), batch_size):
        batch_BT = windows.input_ids[start : start + batch_size]
        step = model.prefill(batch_BT[:, :1])
        for position in range(1, batch_BT.shape[1]):
            total += negative_log_likelihood(step.logits, batch_BT[:, position])
            read_BT = batch_BT[:, : position + 1]

            def read(given_BT: Tokens = read_BT) -> tuple[Tokens, None]:
                return given_BT, None

            if position + 1 < batch_BT.shape[1]:
                step = advance(model, step, read_BT[:, -1], position + 1, read)
    return paid(total, windows)
