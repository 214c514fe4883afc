"""Greedy continuations of held-out prompts, for people to read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.logit_settings import LogitSettings
from roots_compress.data.chat.rendering import prompt_of
from roots_compress.data.documents import ASSISTANT, SOURCE, Document
from roots_compress.data.texts import evenly
from roots_compress.errors import InputError
from roots_compress.results import Sample
from roots_compress.runtime.protocol import Writer
from roots_compress.runtime.text import stream_text

PROMPTS = 4
PROMPT_TOKENS, NEW_TOKENS = 24, 24
LONGEST_BEGINNING = 1000
"""Characters of a document that are tokenised for its first tokens."""
TOO_LONG = "(the prompt does not fit the model's context)"


class Prompt(NamedTuple):
    """The beginning of a held-out document."""

    shown: str
    """The text for people."""
    read: str
    """The text for the model: a conversation in its chat format."""


def held_out_prompts(documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast) -> list[Prompt]:
    """Return `PROMPTS` prompts of held-out documents at even distances.

    A conversation gives everything before its first answer, a pair its source, other text the first
    `PROMPT_TOKENS` tokens.
    """
    prompts = (_prompt(document, tokenizer) for document in evenly(documents, PROMPTS))
    return [prompt for prompt in prompts if prompt is not None]


def _prompt(document: Document, tokenizer: PreTrainedTokenizerFast) -> Prompt | None:
    if document.is_pair:
        source = document.named(SOURCE)
        return Prompt(source, source) if source.strip() else None
    if document.is_chat:
        roles = [span.name for span in document.spans]
        turn = roles.index(ASSISTANT) if ASSISTANT in roles else 0
        return Prompt(document.spans[turn - 1].text, prompt_of(document, turn, tokenizer)) if turn else None
    beginning = document.text.lstrip()[:LONGEST_BEGINNING]
    ids = tokenizer.encode(beginning, add_special_tokens=False)[:PROMPT_TOKENS]
    # The last token may be part of a character.
    text = str(tokenizer.decode(ids)).rstrip("\ufffd")
    return Prompt(text, text) if text.strip() else None


def written(
    writer: Writer,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    *,
    stop_tokens: Collection[int],
    settings: LogitSettings,
) -> tuple[Sample, ...]:
    """Return a model's greedy continuation of each prompt, at most `NEW_TOKENS` tokens.

    Args:
        settings: changes of the logits before a token is chosen.
    """

    def text_after(prompt: Prompt) -> str:
        try:
            pieces = stream_text(
                writer,
                tokenizer,
                prompt.read,
                max_new_tokens=NEW_TOKENS,
                stop_tokens=stop_tokens,
                settings=settings,
            )
            return "".join(pieces)
        except InputError:
            return TOO_LONG

    return tuple(Sample(prompt.shown, text_after(prompt)) for prompt in prompts)
