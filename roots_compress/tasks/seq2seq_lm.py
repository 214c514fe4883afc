"""Sequence to sequence: a target is predicted token by token from its source.

Shape legend: B batch, S tokens of a source, T tokens of a target, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from roots_compress.runtime.protocol import Seq2SeqModel, Tokens
from roots_compress.tasks.figures.figures import Metric, counted
from roots_compress.tasks.figures.perplexity import LOGITS_BYTES, bits_per_byte, exponential
from roots_compress.tasks.figures.predictions import Predictions, Scored
from roots_compress.tasks.figures.references import METRICS, reference_figures
from roots_compress.tasks.seq2seq import Seq2SeqTask

if TYPE_CHECKING:
    from roots_compress.configs.data import RecordKind
    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.data.documents import Document
    from roots_compress.data.pairs import EvaluationPairs
    from roots_compress.data.windows import EvaluationWindows, PackedWindows
    from roots_compress.results import Protocol

WRITTEN_AT_ONCE = 16
"""Targets that are written together."""


class Seq2SeqLM(Seq2SeqTask):
    """A target for each source: its perplexity, and the model's own text against the reference."""

    name = "seq2seq_lm"
    records: ClassVar[RecordKind] = "pairs"
    tuned_on = "pairs"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("target_perplexity", "target perplexity", "lower", logarithm="bits_per_byte"),
        Metric("bits_per_byte", "bits/byte", "lower", digits=4, across_tokenizers=True),
        *METRICS,
    )
    # Nats a token.
    agreement = (1e-3, 0.1)

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        from roots_compress.data.pairs import evaluation_pairs

        return evaluation_pairs(documents, tokenizer, longest=config.block_size, limit=config.windows)

    def predictions(self, engine: Seq2SeqModel, examples: EvaluationWindows) -> Iterator[Predictions]:
        """Yield a model's predictions for the targets' tokens and their end."""
        pairs = _pairs(examples)
        rows = max(1, LOGITS_BYTES // (4 * engine.vocab_size * pairs.targets.shape[1]))
        for start in range(0, len(pairs.targets), rows):
            chosen = slice(start, start + rows)
            scored_BT = pairs.scored[chosen]
            tokens = int(scored_BT.sum(axis=1).max())
            sources, mask = _sources(pairs, chosen)
            logits_BTV = engine.read(sources, mask).logits(
                pairs.decoder_tokens(engine.start)[chosen, :tokens]
            )
            scored_BT, targets_BT = scored_BT[:, :tokens], pairs.targets[chosen, :tokens]
            numbers_n = start + np.nonzero(scored_BT)[0]
            yield Predictions(logits_BTV[scored_BT], targets_BT[scored_BT], numbers_n)

    def figures(self, scored: Scored, examples: EvaluationWindows) -> dict[str, float]:
        return {
            "target_perplexity": exponential(scored.total / examples.scored_tokens),
            "bits_per_byte": bits_per_byte(scored.total, examples.text_bytes),
        }

    def written_quality(self, engine: Seq2SeqModel, examples: EvaluationWindows) -> dict[str, float]:
        """Return the figures of the model's greedy texts against the references."""
        from roots_compress.runtime.generate import generate

        pairs = _pairs(examples)
        longest = min(pairs.targets.shape[1] + 1, engine.max_context - len(pairs.opening))
        stops = [] if pairs.tokenizer.eos_token_id is None else [pairs.tokenizer.eos_token_id]
        written: list[str] = []
        for start in range(0, len(pairs.targets), WRITTEN_AT_ONCE):
            sources, mask = _sources(pairs, slice(start, start + WRITTEN_AT_ONCE))
            targets = engine.read(sources, mask)
            prompts = [[engine.start, *pairs.opening]] * len(sources)
            steps = generate(targets, prompts, max_new_tokens=longest, stop_tokens=stops)
            rows = zip(*steps, strict=True)
            written += [_decoded(pairs.tokenizer, row) for row in rows]
        return reference_figures(written, pairs.references)

    def training_windows(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        from roots_compress.data.pair_packing import pack_pairs

        return pack_pairs(documents, tokenizer, block_size, seed=seed, limit=limit)

    def caption(self, protocol: Protocol) -> str:
        """Describe the figures and their data."""
        return (
            "Target perplexity through the ONNX graphs: "
            f"{counted(protocol.windows, 'pair')} with {protocol.tokens:,} "
            f"tokens of targets, of {protocol.text}. Exact match, chrF, BLEU and ROUGE-L: of the targets "
            f"that the model writes for them, the likeliest token each time. {self.speed_caption(protocol)}"
        )


def _pairs(examples: EvaluationWindows) -> EvaluationPairs:
    from roots_compress.data.pairs import EvaluationPairs

    assert isinstance(examples, EvaluationPairs)
    return examples


def _sources(pairs: EvaluationPairs, chosen: slice) -> tuple[Tokens, Tokens]:
    """Return some sources and their mask, cut to the longest."""
    mask_BS = pairs.mask[chosen]
    longest = int(mask_BS.sum(axis=1).max())
    return pairs.input_ids[chosen, :longest], mask_BS[:, :longest]


def _decoded(tokenizer: Any, row: Sequence[int | None]) -> str:
    ids = np.array([token for token in row if token is not None], dtype=np.int64)
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text
