"""Token classification: each word of a text gets one of the labels that the model knows.

Shape legend: N words of all texts, L labels.
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
    from roots_compress.data.tagged import TaggedTexts
    from roots_compress.data.windows import EvaluationWindows, PackedWindows
    from roots_compress.results import Protocol
    from roots_compress.runtime.encoder import Encoder

OUTSIDE = "O"
"""The label of words in no entity."""
IGNORED = -100
"""The target of unscored positions."""


class TokenClassification(LabelTask):
    """A label for each word: the share that is right, the entities found, and the speed of reading a text."""

    name = "token_classification"
    heads: ClassVar[tuple[str, ...]] = ("ForTokenClassification",)
    head_kind = "token_classification"
    optimum_name = "token-classification"
    by_token = True
    records = "tags"
    tuned_on = "tags"
    metrics: ClassVar[tuple[Metric, ...]] = (
        share("word_accuracy", "word accuracy"),
        share("entity_f1", "entity F1", optional=True),
    )

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        """Return evenly spaced texts with labelled words; see `tagged_texts`.

        They are as many as fill `windows` windows of `block_size` tokens, at 4 bytes of text a token whatever
        the tokenizer.

        Raises:
            InputError: there is no room for a word.
        """
        from roots_compress.data.tagged import tagged_texts

        tokens = config.windows * config.block_size
        return tagged_texts(documents, tokenizer, longest=config.block_size, tokens=tokens)

    def predictions(self, engine: Encoder, examples: EvaluationWindows) -> Iterator[Predictions]:
        """Yield a model's prediction at the first token of each word."""
        texts, start = _tagged(examples), 0
        for logits_BTL in encoded(engine, texts):
            batch, tokens, _ = logits_BTL.shape
            labels_BT = texts.labels[start : start + batch, :tokens]
            rows_n, places_n = np.nonzero(labels_BT != IGNORED)
            if len(rows_n):
                yield Predictions(logits_BTL[rows_n, places_n], labels_BT[rows_n, places_n], rows_n + start)
            start += batch

    def figures(self, scored: Scored, examples: EvaluationWindows) -> dict[str, float]:
        """Return the share of correctly labelled words, and the F1 of entities if labels name any."""
        given_N, right_N, names = scored.given, scored.targets, _tagged(examples).names
        warn_of_numbering(given_N, right_N)
        found = {"word_accuracy": float((given_N == right_N).mean())}
        if any(name[:2] in ("B-", "I-") for name in names):
            found["entity_f1"] = entity_f1(given_N, right_N, scored.examples, names)
        return found

    def training_windows(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        from roots_compress.data.tagged import pack_tagged

        return pack_tagged(documents, tokenizer, block_size, seed=seed, limit=limit)

    def caption(self, protocol: Protocol) -> str:
        """Describe the texts for the figures and speed."""
        return (
            "Share of words with the right label, and F1 of entities found whole, through the ONNX graph: "
            f"{counted(protocol.windows, 'text')} of at most {protocol.block_size} tokens, of "
            f"{protocol.text}. "
            f"{self.speed_caption(protocol)}"
        )


Entity = tuple[int, int, str]
"""The first word, the one after the last, and the kind."""


def entity_f1(
    given_N: NDArray[np.int64], right_N: NDArray[np.int64], texts_N: NDArray[np.int64], names: Sequence[str]
) -> float:
    """Return the F1 of entities: 2 hits / (given + right). A hit has the words and the kind of a right one.

    It is 1 if there are none and none are given.
    """
    given, right = (
        set(entities([names[each] for each in labels_N], texts_N)) for labels_N in (given_N, right_N)
    )
    count = len(given) + len(right)
    return 2 * len(given & right) / count if count else 1.0


def entities(labels: Sequence[str], texts_N: NDArray[np.int64]) -> Iterator[Entity]:
    """Yield the entities in labels, by the rules of CoNLL-2000's evaluation.

    `B-` begins one. `I-` continues one of its kind, or begins one. `E-` and `L-` end
    one. `S-` and `U-` are one-word entities (Tjong Kim Sang and Buchholz 2000, arXiv:cs/0009008).
    """
    start, kind = 0, OUTSIDE
    closed = True
    for index, label in enumerate([*labels, OUTSIDE]):
        prefix, found = (label[0], label[2:]) if label[1:2] == "-" else ("I", label)
        moved = index == len(labels) or index == 0 or texts_N[index] != texts_N[index - 1]
        begins = moved or closed or prefix in "BSU" or found != kind
        if begins and index and kind != OUTSIDE:
            yield start, index, kind
        if begins:
            start, kind = index, found
        closed = prefix in "ELSU"


def _tagged(examples: EvaluationWindows) -> TaggedTexts:
    from roots_compress.data.tagged import TaggedTexts

    assert isinstance(examples, TaggedTexts)
    return examples
