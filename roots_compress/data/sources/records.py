"""Records to documents: a row of a table or a line of JSON, as text or as instruction data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from roots_compress.data.documents import Document, Span
from roots_compress.errors import InputError

INSTRUCTION, CHAT = ("prompt", "response"), ("messages",)
REPEATED: Final = object()
"""The value of a key that a JSON object gives twice."""

# ChatML, which Qwen and SmolLM2 among others are trained on. A tokenizer's own chat template is never
# rendered: it is a program, and comes with a checkpoint that nobody may have read.
OPEN_TURN, END_TURN = "<|im_start|>", "<|im_end|>"


class RecordError(ValueError):
    """A record that cannot become a document; the reader adds where it is.

    Args:
        message: what is wrong with it.
        remedy: what to do; without it the reader says how to name the column of the text.
    """

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


def candidates(text_column: str) -> tuple[str, ...]:
    """Return the columns that a record's text may be in."""
    return (text_column, *INSTRUCTION, *CHAT)


def refuse_repeated(columns: Sequence[str], read: Collection[str], where: str) -> None:
    """Refuse a table in which a column that is read has the name of another.

    Raises:
        InputError: there is one.
    """
    for name, count in Counter(columns).items():
        if count > 1 and name in read:
            raise InputError(
                f"{count} columns are named '{name}'",
                where=where,
                remedy="Rename all but the one that is meant.",
            )


def record_document(record: Mapping[str, Any], text_column: str) -> Document | None:
    """Return the document a record holds, or None where its text is blank.

    The record holds `text_column`, or a `prompt` and the `response` to it, or `messages`, a list of
    `{"role", "content"}`. The first of these that is there and not blank is read: tables that mix them have a
    column for each. Of the latter two the response alone, or what the assistant says, is scored.

    Raises:
        RecordError: it holds none of these, or not as text.
    """
    forms = [columns for columns in ((text_column,), INSTRUCTION, CHAT) if set(columns) <= set(record)]
    if not forms:
        names = ", ".join(map(repr, record)) or "none"
        raise RecordError(
            f"no column '{text_column}', no 'prompt' with 'response', and no 'messages'; "
            f"the columns are {names}"
        )
    for columns in forms:
        if any(_is_blank(record[column]) for column in columns if column != "prompt"):
            continue
        if columns == INSTRUCTION:
            return _answered(*(record_text(record, column) for column in columns))
        if columns == CHAT:
            return _chat(record["messages"])
        return Document.plain(record_text(record, text_column))
    return None


def _is_blank(value: object) -> bool:
    """Return whether a value holds nothing: null, or text of nothing but space."""
    return value is None or (isinstance(value, str) and not value.strip())


def _answered(prompt: str, response: str) -> Document:
    """Return a prompt and its response as they are, a line end between them where no space is."""
    parted = not prompt or prompt[-1].isspace() or response[:1].isspace()
    return Document((Span(prompt if parted else prompt + "\n", False), Span(response, True)))


def _chat(messages: object) -> Document | None:
    """Return a conversation in ChatML; of each assistant turn its content and its end are scored."""
    if messages is REPEATED:
        raise RecordError("'messages' is given twice")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RecordError("'messages' is not a list of messages")
    spans: list[Span] = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise RecordError("a message is not an object with 'role' and 'content'")
        role, content = record_text(message, "role"), record_text(message, "content")
        separator = "\n" if spans else ""
        spans.append(Span(f"{separator}{OPEN_TURN}{role}\n", False))
        spans.append(Span(f"{content}{END_TURN}", role == "assistant"))
    if not any(span.scored for span in spans):
        raise RecordError("'messages' has no turn of the role 'assistant', so nothing of it could be scored")
    return Document(tuple(spans))


def record_text(record: Mapping[str, Any], key: str) -> str:
    """Return a value that must be text; an absent or null one is blank.

    Raises:
        RecordError: it is something else.
    """
    value = record.get(key)
    if value is None:
        return ""
    if value is REPEATED:
        raise RecordError(f"'{key}' is given twice")
    if not isinstance(value, str):
        raise RecordError(f"'{key}' is {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"'{key}' holds half a surrogate pair, which is no character") from error
    return value
