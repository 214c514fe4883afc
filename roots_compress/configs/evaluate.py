"""Settings of the figures measured for every stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field

from roots_compress.configs.base import BlockSize, PositiveInt, Settings, Threads


class EvaluationConfig(Settings):
    """How quality and speed are measured, the same for every stage of a run."""

    recipe_only: ClassVar[str] = "contexts decode_tokens repeats"
    windows: PositiveInt = 24
    """Windows of held-out text on which quality is measured. Encoders read as many paragraphs; classifiers
    read texts that fill the windows."""
    block_size: BlockSize = 512
    """Tokens in each window of held-out text, or the longest text; at most the model's context. If the
    context is shorter, the default is lowered to it."""
    contexts: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (128, 512)
    """Lengths in tokens at which speed is measured: of the context, or of an encoder's text."""
    decode_tokens: PositiveInt = 16
    """Tokens decoded in each timing, if the model decodes."""
    repeats: PositiveInt = 5
    """Timings of each figure. The compared stages take turns."""
    threads: Threads | None = None
    """Threads for the stages and for the timing of graphs. Default: the number of usable physical cores."""

    def fitted(self, context: int) -> Self:
        """Return the settings with windows no longer than a context, unless their length was given."""
        if self.block_size <= context or "block_size" in self.model_fields_set:
            return self
        return self.model_copy(update={"block_size": context})
