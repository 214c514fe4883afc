"""Conversations as records hold them: lists of messages, each with who says it and what."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from roots_compress.data.documents import ASSISTANT, ROLES, SYSTEM, USER, Document, Span
from roots_compress.data.sources.records import REPEATED, Record, RecordError, text_of

MESSAGES = "messages"
ROLE_OF: Final = {
    **{role: role for role in ROLES},
    "human": USER,
    "gpt": ASSISTANT,
    "model": ASSISTANT,
}
"""The role that each name means, ShareGPT's and Gemma's among them."""
KEYS = (("role", "content"), ("from", "value"))
"""What messages call a role and what is said: as OpenAI does, and as ShareGPT does."""
UNREAD: Final = ("tool_calls", "function_call", "reasoning_content", "thinking")
"""Keys of what a message says besides its content, which no chat format here writes."""
BESIDE: Final = ("tools", "functions", "chat_template_kwargs")
"""Columns beside messages that templates write into the text elsewhere, and no chat format here does."""
FORM = "Write a message as {'role': 'user', 'content': 'What is said.'}."


def conversation(messages: object, name: str, *, free: bool = False) -> Document:
    """Return a conversation, of which the assistant's turns are scored, but for those of weight 0.

    Args:
        messages: a list of objects with `role` and `content`, or with `from` and `value`.
        name: of the column, for messages.
        free: whether any role may speak, the system at any time, and the assistant may say nothing.

    Raises:
        RecordError: it is no such list, a role is unknown, or the assistant says nothing.
    """
    if messages is REPEATED:
        raise RecordError(f"'{name}' is given twice", "Take one of them out.")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RecordError(f"'{name}' is not a list of messages", FORM)
    spans = tuple(_turn(message, number, free=free) for number, message in enumerate(messages, start=1))
    for number, span in enumerate(spans, start=1):
        if span.name == SYSTEM and number > 1 and not free:
            raise RecordError(
                f"message {number} has the role 'system'", "Put what the system says before all turns."
            )
    if not any(span.scored for span in spans):
        raise RecordError(
            f"'{name}' has no turn of the role 'assistant' that counts, so nothing of it could be scored",
            "Give the conversation an answer, or take it out.",
        )
    return Document(spans)


def refuse_beside(record: Record, read: Collection[str] = ()) -> None:
    """Refuse a record that gives its conversation tools, or settings of a template.

    Args:
        record: values by their columns.
        read: columns that hold a text.

    Raises:
        RecordError: it does.
    """
    for column in BESIDE:
        if column not in read and not _says_nothing(record.get(column)):
            raise RecordError(
                f"'{column}' says something, which is not read beside a conversation",
                "Write it into a message, or take the column out.",
            )


def _says_nothing(value: object) -> bool:
    """Return whether a value is null, false, blank, or a list or object of nothing else, also as JSON."""
    if isinstance(value, Mapping):
        return all(map(_says_nothing, value.values()))
    if isinstance(value, str):
        return value.strip() in ("", "[]", "{}", "null")
    return value is None or value is False or value == []


def _turn(message: Any, number: int, *, free: bool) -> Span:
    """Return a message as a turn of its role."""
    if not isinstance(message, Mapping):
        raise RecordError("a message is not an object with 'role' and 'content'", FORM)
    for key in UNREAD:
        if not _says_nothing(message.get(key)):
            raise RecordError(
                f"message {number} says something in '{key}', which is not read",
                "Write it in the content, or take the record out.",
            )
    role_key, content_key = next((keys for keys in KEYS if set(keys) <= set(message)), KEYS[0])
    said = text_of(message.get(role_key), role_key, FORM)
    content = text_of(message.get(content_key), content_key, FORM)
    role = ROLE_OF.get(said.lower(), said if free else None)
    if role is None:
        raise RecordError(
            f"message {number} has the role '{said:.40}', which is unknown",
            f"Write one of: {', '.join(ROLE_OF)}.",
        )
    if role == ASSISTANT and not content.strip() and not free:
        raise RecordError(
            f"message {number}, the assistant's, is blank", "Give it an answer, or take the record out."
        )
    return Span(content, role == ASSISTANT and _counts(message.get("weight"), number), role)


def _counts(weight: Any, number: int) -> bool:
    """Whether an answer is to be learned, as OpenAI's files say it: 0 or 1; 1 where nothing is said."""
    if weight not in (None, 0, 1):
        raise RecordError(f"message {number} has the weight {weight!r:.40}", "Give it the weight 0 or 1.")
    return bool(weight != 0)
