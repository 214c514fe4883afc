"""Sequence classification: each text gets one of the labels that the model knows.

Shape legend: N texts, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from roots_compress.tasks.encoder import LabelTask, encoded
from roots_compress.tasks.figures.figures import Metric, counted, share
from roots_compress.tasks.figures.numbering import warn_of_numbering
from roots_compress.tasks.figures.predictions import Predictions, Scored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.data.documents import Document
    from roots_compress.data.labelled import LabelledTexts
    from roots_compress.data.windows import EvaluationWindows, PackedWindows
    from roots_compress.results import Protocol
    from roots_compress.runtime.encoder import Encoder


class Classification(LabelTask):
    """A label for each text: how many are right, and the speed of reading a text."""

    name = "classification"
    heads: ClassVar[tuple[str, ...]] = ("ForSequenceClassification",)
    head_kind = "classification"
    optimum_name = "text-classification"
    records = "labels"
    tuned_on = "labels"
    metrics: ClassVar[tuple[Metric, ...]] = (
        share("accuracy", "accuracy"),
        share("macro_f1", "macro F1"),
        share("mcc", "MCC", optional=True),
    )

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        """Return evenly spaced labelled texts with the tokenizer's special tokens.

        They are as many as fill `windows` windows of `block_size` tokens, at 4 bytes of text a token whatever
        the tokenizer. A text has at most `block_size` tokens; the rest of a longer one is left out.

        Raises:
            InputError: there is no room for a text.
        """
        from roots_compress.data.labelled import labelled_texts

        tokens = config.windows * config.block_size
        return labelled_texts(documents, tokenizer, longest=config.block_size, tokens=tokens)

    def predictions(self, engine: Encoder, examples: EvaluationWindows) -> Iterator[Predictions]:
        """Yield a model's prediction for each text."""
        texts, start = _labelled(examples), 0
        for logits_BL in encoded(engine, texts):
            numbers_B = np.arange(start, start + len(logits_BL))
            yield Predictions(logits_BL, texts.labels[numbers_B], numbers_B)
            start += len(logits_BL)

    def figures(self, scored: Scored, examples: EvaluationWindows) -> dict[str, float]:
        """Return the share of correctly labelled texts, the labels' mean F1, and their correlation."""
        given_N, right_N = scored.given, scored.targets
        warn_of_numbering(given_N, right_N)
        return {
            "accuracy": float((given_N == right_N).mean()),
            "macro_f1": macro_f1(given_N, right_N),
            "mcc": matthews(given_N, right_N),
        }

    def training_windows(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        from roots_compress.data.labelled import pack_labelled

        return pack_labelled(documents, tokenizer, block_size, seed=seed, limit=limit)

    def caption(self, protocol: Protocol) -> str:
        """Describe the texts for accuracy and speed."""
        return (
            "Accuracy, macro F1 and Matthews correlation through the ONNX graph: "
            f"{counted(protocol.windows, 'text')} "
            f"of at most {protocol.block_size} tokens, of {protocol.text}. {self.speed_caption(protocol)}"
        )


def macro_f1(given_N: NDArray[np.int64], right_N: NDArray[np.int64]) -> float:
    """Return the mean F1 of the labels that are given or right: 2 hits / (times given + times right)."""
    count = int(max(given_N.max(), right_N.max())) + 1
    hits_L = np.bincount(right_N[given_N == right_N], minlength=count)
    times_L = np.bincount(given_N, minlength=count) + np.bincount(right_N, minlength=count)
    return float((2 * hits_L[times_L > 0] / times_L[times_L > 0]).mean())


def matthews(given_N: NDArray[np.int64], right_N: NDArray[np.int64]) -> float:
    """Return the correlation of given and right labels (Matthews 1975; Gorodkin 2004 for several labels).

    It is 1 if all are right, 0 for guesses, and 0 if either has only a single label.
    """
    count = int(max(given_N.max(), right_N.max())) + 1
    given_L, right_L = (np.bincount(each, minlength=count).astype(np.float64) for each in (given_N, right_N))
    texts, hits = float(len(right_N)), float((given_N == right_N).sum())
    covariance = hits * texts - float(given_L @ right_L)
    spread = (texts**2 - float(given_L @ given_L)) * (texts**2 - float(right_L @ right_L))
    return covariance / spread**0.5 if spread > 0 else 0.0


def _labelled(examples: EvaluationWindows) -> LabelledTexts:
    from roots_compress.data.labelled import LabelledTexts

    assert isinstance(examples, LabelledTexts)
    return examples
