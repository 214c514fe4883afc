"""Held-out prompts or sources, and what models answer to them."""

from __future__ import annotations

from collections.abc import Sequence

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.data.chat.rendering import prompt_of
from roots_compress.data.documents import ASSISTANT, SOURCE, TARGET, Document
from roots_compress.data.special_tokens import stop_ids
from roots_compress.data.texts import evenly
from roots_compress.errors import InputError
from roots_compress.runtime.text import stream_text
from roots_compress.tasks.registry import task_of_model

TOO_LONG = "(the prompt does not fit the model's context)"


def chosen(documents: Sequence[Document], count: int) -> list[Document]:
    """Return at most so many pairs, or conversations that begin with a prompt, at even distances."""
    answered = (each for each in documents if each.is_pair or (each.is_chat and _first_answer(each)))
    return evenly(list(answered), count)


def expected(documents: Sequence[Document]) -> list[str]:
    """Return the target of each pair, and the first answer of each conversation."""
    return [document.named(TARGET if document.is_pair else ASSISTANT) for document in documents]


def answers_of(checkpoint: Checkpoint, documents: Sequence[Document], tokens: int) -> list[str]:
    """Return the likeliest answer of a model to the source of each pair, or a conversation's first prompt.

    Args:
        checkpoint: the model, on the CPU.
        documents: as `chosen` returns them.
        tokens: the most of an answer.
    """
    if not documents:
        return []
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    engine = task_of_model(model).serve_model(model.eval())
    named = None if model.generation_config is None else model.generation_config.eos_token_id
    stops = stop_ids(named, model.config.eos_token_id, tokenizer.eos_token_id)
    answers = []
    for document in documents:
        prompt = (
            document.named(SOURCE)
            if document.is_pair
            else prompt_of(document, _first_answer(document), tokenizer)
        )
        try:
            pieces = stream_text(engine, tokenizer, prompt, max_new_tokens=tokens, stop_tokens=stops)
            answers.append("".join(pieces).strip())
        except InputError:
            answers.append(TOO_LONG)
    return answers


def _first_answer(document: Document) -> int:
    """Return how many turns stand before the first answer."""
    return [span.name for span in document.spans].index(ASSISTANT)
