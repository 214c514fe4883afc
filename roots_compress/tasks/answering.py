"""Answering instructions: models that write text, evaluated on answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from roots_compress.tasks.causal_lm import CausalLM
from roots_compress.tasks.figures.figures import Metric, counted
from roots_compress.tasks.figures.perplexity import paid, response_predictions
from roots_compress.tasks.figures.predictions import Predictions, Scored

if TYPE_CHECKING:
    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.data.documents import Document
    from roots_compress.data.windows import EvaluationWindows
    from roots_compress.results import Protocol
    from roots_compress.runtime.protocol import LanguageModel


class Answering(CausalLM):
    """Next-token prediction in conversations: the perplexity of the answers, and a decoder's speeds.

    A setting or a stage chooses this task: no model is made only for it.
    """

    name = "answering"
    heads: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("response_perplexity", "response perplexity", "lower", logarithm="response_bits_per_byte"),
        Metric("response_bits_per_byte", "response bits/byte", "lower", digits=4, across_tokenizers=True),
    )
    records = "instructions"

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        from roots_compress.data.conversations import responses

        tokens = config.windows * config.block_size
        return responses(documents, tokenizer, longest=config.block_size, tokens=tokens)

    def predictions(self, engine: LanguageModel, examples: EvaluationWindows) -> Iterator[Predictions]:
        from roots_compress.data.conversations import Responses

        assert isinstance(examples, Responses)
        return response_predictions(engine, examples)

    def figures(self, scored: Scored, examples: EvaluationWindows) -> dict[str, float]:
        answers = paid(scored.total, examples)
        return {"response_perplexity": answers.perplexity, "response_bits_per_byte": answers.bits_per_byte}

    def quality_caption(self, protocol: Protocol) -> str:
        """Describe the text for the perplexity of answers."""
        return (
            f"Perplexity of the answers through the ONNX graph: {protocol.tokens:,} tokens of "
            f"{counted(protocol.windows, 'conversation')} of at most {protocol.block_size} tokens, of "
            f"{protocol.text}."
        )
