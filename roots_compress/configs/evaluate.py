"""Settings of the figures every stage is judged by."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field

from roots_compress.configs.base import BlockSize, PositiveInt, Settings, Threads


class EvaluationConfig(Settings):
    """How quality and speed are measured, the same for every stage of a run."""

    recipe_only: ClassVar[str] = "contexts decode_tokens repeats"
    windows: PositiveInt = 24
    """Windows of held-out text that quality is measured on. Encoders read as many paragraphs, classifiers
    as many texts as fill the windows."""
    block_size: BlockSize = 512
    """Tokens in each window of held-out text, or the most of a text; at most the model's context. The
    default is lowered to a shorter context."""
    contexts: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (128, 512)
    """Lengths, in tokens, at which speed is measured: of the context, or of an encoder's text."""
    decode_tokens: PositiveInt = 16
    """Tokens decoded in each timing, where the model decodes."""
    repeats: PositiveInt = 5
    """Timings of each figure, interleaved between the stages compared."""
    threads: Threads | None = None
    """Threads that stages compute with and graphs are timed with; without it, as many as there are physical
    cores to use."""

    def fitted(self, context: int) -> Self:
        """Return the settings with windows that fit into a context, unless their length was given."""
        if self.block_size <= context or "block_size" in self.model_fields_set:
            return self
        return self.model_copy(update={"block_size": context})
