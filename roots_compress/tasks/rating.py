"""Rating: models that give scores, evaluated by the numbers in the data.

Shape legend: N texts or pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from roots_compress.errors import InputError, Text, recipe_key
from roots_compress.tasks.base import Outputs
from roots_compress.tasks.figures.figures import Metric, counted, share
from roots_compress.tasks.scoring import Scoring, ranks, standardised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roots_compress.configs.data import RecordKind
    from roots_compress.data.windows import EvaluationWindows
    from roots_compress.models.spec import ModelSpec
    from roots_compress.results import Protocol


class Rating(Scoring):
    """A score for each text or pair: its correlation with the number in the data.

    A setting or a stage chooses this task: no model is made only for it.
    """

    name = "rating"
    heads: ClassVar[tuple[str, ...]] = ()
    records: ClassVar[RecordKind] = "ratings"
    metrics: ClassVar[tuple[Metric, ...]] = (
        replace(share("label_spearman", "Spearman"), most=1.0),
        share("label_pearson", "Pearson"),
        share("auc", "AUC", optional=True),
    )
    compares = False
    # Nearly equal scores may change their order.
    agreement = (0.01, 0.1)

    def check_examples(self, examples: EvaluationWindows) -> None:
        """Check that the numbers in the data differ.

        Raises:
            InputError: they are all equal, so that there is no correlation.
        """
        from roots_compress.data.labelled import ScoredTexts

        assert isinstance(examples, ScoredTexts)
        if len(np.unique(examples.scores)) < 2:
            windows = recipe_key("evaluation", "windows")
            raise InputError(
                f"the {len(examples.scores)} held-out records that are measured all have the same number, "
                "which says nothing about scores",
                where=recipe_key("data", "eval"),
                remedy=Text("Hold out more records, or raise ", windows, "."),
            )

    def likeness(
        self,
        given_NW: Outputs,
        original_NW: Outputs,
        examples: EvaluationWindows,
        spec: Callable[[], ModelSpec],
    ) -> tuple[dict[str, float], NDArray[np.float64]]:
        """Return the correlations of scores with the data, and each text's part of Spearman's.

        The part is first-order in the ranks, as in `Scoring.likeness`: the product of the two, less its
        effect on their deviations.
        """
        from roots_compress.data.labelled import ScoredTexts
        from roots_compress.models.ops.heads import ScoreHead

        head = spec().head
        assert isinstance(examples, ScoredTexts)
        assert isinstance(head, ScoreHead)
        scores_N, right_N = given_NW[:, 0].astype(np.float64), examples.scores
        given_N, wanted_N = (standardised(ranks(each_N)) for each_N in (scores_N, right_N))
        correlation = float((given_N * wanted_N).mean())
        spreads_N = (given_N**2 + wanted_N**2) / 2 - (given_N.var() + wanted_N.var()) / 2
        # The learned probabilities; ranks use the scores, because the sigmoid makes large scores equal.
        learned_N = (1 + np.tanh(scores_N / 2)) / 2 if head.sigmoid else scores_N
        found = {
            "label_spearman": correlation,
            "label_pearson": float((standardised(learned_N) * standardised(right_N)).mean()),
        }
        if len(numbers := np.unique(right_N)) == 2:
            found["auc"] = auc(scores_N, right_N == numbers[1])
        return found, given_N * wanted_N - correlation * spreads_N

    def caption(self, protocol: Protocol) -> str:
        """Describe the figures and the data."""
        return (
            "Scores through the ONNX graph against the numbers in the data: Spearman's rank correlation and "
            "Pearson's correlation, and where there are two numbers the area under the ROC curve, of "
            f"{counted(protocol.windows, 'record')} of a text or a pair, with at most "
            f"{protocol.block_size} tokens each, of {protocol.text}. "
            f"{self.speed_caption(protocol)}"
        )


def auc(scores_N: NDArray[np.float64], positive_N: NDArray[np.bool_]) -> float:
    """Return the probability that a positive has a higher score than a negative; ties count half.

    Computed from the sum of the positives' ranks (Mann & Whitney 1947).
    """
    positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
    above = ranks(scores_N)[positive_N].sum() - positives * (positives - 1) / 2
    return float(above / (positives * negatives))
