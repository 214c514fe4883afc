"""Masked language models: each token is predicted from all others of its text.

Shape legend: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from roots_compress.errors import InputError, Key
from roots_compress.runtime.encoder import Encoder
from roots_compress.tasks.encoder import ALONE, EncoderTask
from roots_compress.tasks.figures.figures import Metric, Workload, counted
from roots_compress.tasks.figures.perplexity import LOGITS_BYTES, exponential
from roots_compress.tasks.figures.predictions import Predictions, Scored

if TYPE_CHECKING:
    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.configs.train import ObjectiveConfig
    from roots_compress.data.documents import Document
    from roots_compress.data.windows import EvaluationWindows, PackedWindows
    from roots_compress.models.spec import ModelSpec
    from roots_compress.results import Protocol
    from roots_compress.training.objective import Objective

HIDDEN = 8
"""Most tokens of a text that are masked in turn: each needs its own pass."""


class MaskedLM(EncoderTask):
    """Prediction of masked tokens: pseudo-perplexity, and the speed of reading a text."""

    name = "masked_lm"
    heads: ClassVar[tuple[str, ...]] = ("ForMaskedLM",)
    head_kind = "masked_lm"
    optimum_name = "fill-mask"
    by_token = True
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("pseudo_perplexity", "pseudo-perplexity", "lower"),)
    # Otherwise the logits would dominate the memory figure.
    workloads: ClassVar[tuple[Workload, ...]] = (ALONE,)
    # Nats a token.
    agreement = (1e-3, 0.1)

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        """Return paragraphs of held-out text, and which of their tokens are masked in turn.

        `windows` is the number of paragraphs, and `block_size` the most tokens of each.

        Raises:
            InputError: there is no text, or no room for one, or the tokenizer has no mask token.
        """
        from roots_compress.data.texts import evaluation_texts, masked_texts

        texts = evaluation_texts(documents, tokenizer, longest=config.block_size, limit=config.windows)
        return masked_texts(texts, tokenizer, most=HIDDEN)

    def predictions(self, engine: Encoder, examples: EvaluationWindows) -> Iterator[Predictions]:
        """Yield a model's prediction for each masked token, given all others of its text.

        A text of more than `HIDDEN` tokens is represented by that many, evenly spaced: a pass for each token
        would take time quadratic in the length.
        """
        from roots_compress.data.texts import MaskedTexts

        assert isinstance(examples, MaskedTexts)
        rows = max(1, LOGITS_BYTES // (4 * engine.vocab_size * examples.input_ids.shape[1]))
        for start in range(0, len(examples.hidden), rows):
            text_B, place_B = examples.hidden[start : start + rows].T
            tokens = int(examples.mask[text_B].sum(axis=1).max())
            read_BT = examples.input_ids[text_B, :tokens]
            every_B = np.arange(len(text_B))
            targets_B = read_BT[every_B, place_B]
            read_BT[every_B, place_B] = examples.mask_id
            logits_BTV = engine.encode(read_BT, examples.mask[text_B, :tokens])
            yield Predictions(logits_BTV[every_B, place_B], targets_B, text_B)

    def figures(self, scored: Scored, examples: EvaluationWindows) -> dict[str, float]:
        """Return the pseudo-perplexity (Salazar et al. 2020, Masked Language Model Scoring).

        It is the exponential of the mean negative log-probability of a masked token.
        """
        return {"pseudo_perplexity": exponential(scored.total / examples.scored_tokens)}

    def training_windows(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        from roots_compress.data.masking import pack_masked

        return pack_masked(documents, tokenizer, block_size, seed=seed, limit=limit)

    pretrains = True

    def pretraining(
        self,
        config: ObjectiveConfig,
        spec: ModelSpec,
        documents: Sequence[Document],
        tokenizer: Any,
        block_size: int,
        *,
        seed: int,
        limit: int | None,
    ) -> tuple[PackedWindows, Objective]:
        """Return windows with masked tokens (of pairs, if set) and the weighted losses.

        Raises:
            InputError: the text is too short, or the model has one token type, and pairs need two.
        """
        from roots_compress.data.masking import MaskedWindows, pack_masked
        from roots_compress.data.sentence_pairs import pack_sentence_pairs
        from roots_compress.training.batches import scored_windows
        from roots_compress.training.pretraining import Pretraining

        if config.nsp and (spec.embeddings.token_types or 0) < 2:
            raise InputError(
                "pairs of text need two token types, and the model has fewer",
                where=Key("objective", "nsp"),
                remedy="Leave it out.",
            )
        pack = pack_sentence_pairs if config.nsp else pack_masked
        windows = scored_windows(pack(documents, tokenizer, block_size, seed=seed, limit=limit))
        assert isinstance(windows, MaskedWindows)
        return windows, Pretraining(config, windows, spec, seed=seed)

    def caption(self, protocol: Protocol) -> str:
        """Describe the text for pseudo-perplexity and speed."""
        return (
            "Pseudo-perplexity through the ONNX graph: of "
            f"{counted(protocol.windows, 'paragraph')} of at most "
            f"{protocol.block_size} tokens of {protocol.text}. At most {HIDDEN} tokens of each are scored, "
            f"hidden one at a time. {self.speed_caption(protocol)}"
        )
