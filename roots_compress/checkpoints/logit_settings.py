"""The changes of logits in generation_config.json, before a token is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from roots_compress.errors import InputError

TokenId = Annotated[int, Field(ge=0)]
Sequence = Annotated[list[TokenId], Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
MOST_PENALTY = 10.0
"""Of beams for the length of texts, either way: their number of tokens to this power fits into float32."""


class LogitSettings(BaseModel):
    """Settings by which transformers' `generate` changes logits, sampling or not; None changes nothing."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True
    )

    sequence_bias: list[Annotated[tuple[Sequence, float], Strict(False)]] | None = None
    """Sequences of tokens, and the bias on the last one's logit if the others precede it."""
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """Divides the logit of each token in prompt or answer; a negative logit is multiplied instead."""
    no_repeat_ngram_size: Count | None = None
    """No sequence of this many tokens is repeated; 0: no limit."""
    bad_words_ids: list[Sequence] | None = None
    """Forbidden sequences of tokens."""
    min_length: Count | None = None
    """The fewest tokens, with the prompt, before the text may end."""
    min_new_tokens: Count | None = None
    """The fewest new tokens before the text may end."""
    forced_bos_token_id: TokenId | None = None
    """The forced second token."""
    forced_eos_token_id: TokenId | list[TokenId] | None = None
    """The forced last token, at the maximum length."""
    exponential_decay_length_penalty: Annotated[tuple[Count, float], Strict(False)] | None = None
    """After this many new tokens, the factor by which the likelihood of an end grows with each."""
    suppress_tokens: list[int] | None = None
    """Forbidden tokens."""
    begin_suppress_tokens: list[int] | None = None
    """Tokens forbidden at the beginning."""
    renormalize_logits: bool | None = None
    """Whether the logits are normalised again at the end: beams are compared by log-probabilities."""

    @classmethod
    def read(cls, document: Mapping[str, Any], where: Path) -> Self:
        """Return the settings that a generation_config.json names.

        Raises:
            InputError: one of them is of another type, or out of bounds.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            key = str(error.errors()[0]["loc"][0])
            raise InputError(
                f"{key} is {document[key]!r:.100}, which is not a valid value for it",
                where=where,
                remedy="Correct it, or copy the file again.",
            ) from None

    def require_vocabulary(self, vocab_size: int, where: Path) -> None:
        """Check that each forced or biased token is one of the model's.

        Raises:
            InputError: one is not.
        """
        for key, token in self._tokens():
            if token >= vocab_size:
                raise InputError(
                    f"{key} names token {token}, outside the model's vocabulary of {vocab_size}",
                    where=where,
                    remedy="Correct it, or copy the file of this model.",
                )

    def _tokens(self) -> Iterator[tuple[str, int]]:
        ends = self.forced_eos_token_id
        for key, sequences in (
            ("sequence_bias", [sequence for sequence, _ in self.sequence_bias or ()]),
            ("bad_words_ids", self.bad_words_ids or ()),
            ("forced_bos_token_id", [] if self.forced_bos_token_id is None else [[self.forced_bos_token_id]]),
            ("forced_eos_token_id", [ends if isinstance(ends, list) else [] if ends is None else [ends]]),
        ):
            for sequence in sequences:
                yield from ((key, token) for token in sequence)
