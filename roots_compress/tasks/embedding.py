"""Sentence embeddings: one vector for each text, compared with the original model's.

Shape legend: N texts, W width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from roots_compress.errors import InputError
from roots_compress.tasks.base import Axes, Outputs
from roots_compress.tasks.encoder import BY_TOKEN, LikenessTask
from roots_compress.tasks.figures.figures import Metric, counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.data.documents import Document
    from roots_compress.data.windows import EvaluationWindows, PackedWindows
    from roots_compress.models.spec import ModelSpec
    from roots_compress.results import Protocol
    from roots_compress.training.objective import Objective


class SentenceEmbedding(LikenessTask):
    """One vector for each text: its similarity to the original model's, and the speed of reading a text."""

    name = "sentence_embedding"
    heads: ClassVar[tuple[str, ...]] = ("ForEmbedding", "BertModel", "RobertaModel")
    head_kind = "embedding"
    optimum_name = "feature-extraction"
    output = "sentence_embedding"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("cosine", "cosine", "higher", digits=4, relative=False, to_first=True),
    )
    given = "sentence embeddings"

    def outputs(self, spec: ModelSpec) -> Axes:
        return {"last_hidden_state": BY_TOKEN, **super().outputs(spec)}

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        """Return evenly spaced paragraphs of held-out text with the tokenizer's special tokens.

        `windows` is their number, and `block_size` the most tokens of each; the rest of a longer one is left
        out.

        Raises:
            InputError: there is no text, or no room for one.
        """
        from roots_compress.data.texts import evaluation_texts

        return evaluation_texts(documents, tokenizer, longest=config.block_size, limit=config.windows)

    def likeness(
        self,
        given_NW: Outputs,
        original_NW: Outputs,
        examples: EvaluationWindows,
        spec: Callable[[], ModelSpec],
    ) -> tuple[dict[str, float], NDArray[np.float64]]:
        left_NW, right_NW = given_NW.astype(np.float64), original_NW.astype(np.float64)
        lengths_N = np.linalg.norm(left_NW, axis=1) * np.linalg.norm(right_NW, axis=1)
        cosines_N: NDArray[np.float64] = (left_NW * right_NW).sum(axis=1) / np.maximum(lengths_N, 1e-12)
        return {"cosine": float(cosines_N.mean())}, cosines_N

    def training_windows(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        from roots_compress.data.packing import pack_texts

        return pack_texts(documents, tokenizer, block_size, seed=seed, limit=limit)

    def objective(self) -> Objective:
        """Refuse: text alone gives no target vectors."""
        raise InputError(
            "sentence embeddings have no labels in plain text to train with",
            remedy="Use distill, or prune with recovery: they learn from a teacher's vectors.",
        )

    def caption(self, protocol: Protocol) -> str:
        """Describe the texts for similarity and speed."""
        return (
            f"Cosine: mean, to the baseline's embeddings, through the ONNX graph, of "
            f"{counted(protocol.windows, 'paragraph')} of at most {protocol.block_size} tokens of "
            f"{protocol.text}. "
            f"{self.speed_caption(protocol)}"
        )
