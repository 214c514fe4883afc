"""Scoring: a number for each text or pair of texts, as in rerankers and regression.

Quality is the similarity of the scores to those of the run's first model, and to the numbers in the data, if
any. `rating.py` uses the numbers only.

Shape legend: N texts or pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from roots_compress.tasks.base import Outputs
from roots_compress.tasks.encoder import LikenessTask
from roots_compress.tasks.figures.figures import Metric, counted, share

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roots_compress.configs.data import RecordKind
    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.data.documents import Document
    from roots_compress.data.windows import EvaluationWindows, PackedWindows
    from roots_compress.models.spec import ModelSpec
    from roots_compress.results import Protocol
    from roots_compress.tasks.base import Task
    from roots_compress.training.objective import Objective


class Scoring(LikenessTask):
    """A score for each text or pair: its similarity to the original model's, and the speed of reading one."""

    name = "scoring"
    heads: ClassVar[tuple[str, ...]] = ("ForScore",)
    head_kind = "score"
    optimum_name = "text-classification"
    records: ClassVar[RecordKind] = "scores"
    tuned_on = "ratings"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("score_r2", "score R2", "higher", digits=4, relative=False, to_first=True, most=1.0),
        Metric("score_mse", "score MSE", "lower", digits=5, relative=False, to_first=True),
        Metric("spearman", "Spearman", "higher", digits=4, relative=False, to_first=True),
        share("label_spearman", "Spearman to data", optional=True),
    )
    given = "scores"

    def for_records(self, kind: RecordKind) -> Task[Any]:
        """Return this task, or `Rating` if records are ratings."""
        if kind != self.tuned_on:
            return super().for_records(kind)
        from roots_compress.tasks.rating import Rating

        return Rating()

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        """Return evenly spaced texts or pairs, joined by the tokenizer; see `scored_texts`.

        They are as many as fill `windows` windows of `block_size` tokens, at 4 bytes of text a token whatever
        the tokenizer.

        Raises:
            InputError: there is no room for a pair.
        """
        from roots_compress.data.labelled import scored_texts

        tokens = config.windows * config.block_size
        return scored_texts(documents, tokenizer, longest=config.block_size, tokens=tokens)

    def likeness(
        self,
        given_NW: Outputs,
        original_NW: Outputs,
        examples: EvaluationWindows,
        spec: Callable[[], ModelSpec],
    ) -> tuple[dict[str, float], NDArray[np.float64]]:
        """Return the similarity of scores to the original model's and the data's, and each text's part of R2.

        To first order, the mean of the parts over a sample of texts is its R2 (Hampel 1974, influence curve).
        """
        from roots_compress.data.labelled import ScoredTexts

        assert isinstance(examples, ScoredTexts)
        scores_N, original_N = (each[:, 0].astype(np.float64) for each in (given_NW, original_NW))
        found = figures(scores_N, original_N, examples.scores)
        # The mean of these is R2, the coefficient of determination.
        explained_N = 1 - (scores_N - original_N) ** 2 / (original_N.var() or 1.0)
        # A sample also changes the variance, so a text's distance from the mean counts.
        return found, explained_N + (1 - found["score_r2"]) * (standardised(original_N) ** 2 - 1)

    def training_windows(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        from roots_compress.data.labelled import pack_scored

        return pack_scored(documents, tokenizer, block_size, seed=seed, limit=limit)

    def objective(self) -> Objective:
        from roots_compress.training.objective import ScoreLoss

        return ScoreLoss()

    def caption(self, protocol: Protocol) -> str:
        """Say what likeness and speed were measured on."""
        return (
            "Likeness of scores to the baseline's through the ONNX graph: R2 (the share of their variance "
            "that is explained), mean squared difference and Spearman's rank correlation, of "
            f"{counted(protocol.windows, 'record')} of a text or a pair, with at most "
            f"{protocol.block_size} tokens each, of {protocol.text}. "
            f"{self.speed_caption(protocol)}"
        )


def figures(
    scores_N: NDArray[np.float64], original_N: NDArray[np.float64], right_N: NDArray[np.float64]
) -> dict[str, float]:
    """Return the metrics of scores.

    Args:
        right_N: the numbers in the data; NaN if missing.
    """
    mse = float(((scores_N - original_N) ** 2).mean())
    found = {
        "score_r2": 1 - mse / float(original_N.var() or 1.0),
        "score_mse": mse,
        "spearman": spearman(scores_N, original_N),
    }
    known_N = np.isfinite(right_N)
    if known_N.sum() > 1:
        found["label_spearman"] = spearman(scores_N[known_N], right_N[known_N])
    return found


def standardised(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values less their mean, over their deviation; 0 if all are equal."""
    centred_N = values_N - values_N.mean()
    found: NDArray[np.float64] = centred_N / (values_N.std() or 1.0)
    return found


def spearman(left_N: NDArray[np.float64], right_N: NDArray[np.float64]) -> float:
    """Return the rank correlation (Spearman 1904); ties have the mean of their ranks.

    It is 1 if both are the same, otherwise 0 if one of them has only a single value.
    """
    if np.array_equal(left_N, right_N):
        return 1.0
    left, right = (each - each.mean() for each in (ranks(left_N), ranks(right_N)))
    spread = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / spread if spread > 0 else 0.0


def ranks(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each value's rank, from 0; equal values have the mean of theirs."""
    _, places_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    found: NDArray[np.float64] = (np.cumsum(counts) - (counts + 1) / 2)[places_N]
    return found
