"""Records of instructions and what is to be answered, in the forms of public sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from roots_compress.data.documents import ASSISTANT, SYSTEM, USER, Document, Span
from roots_compress.data.sources.messages import BESIDE, MESSAGES, conversation, refuse_beside
from roots_compress.data.sources.records import FieldRecords, Record, RecordError, is_blank, value_of

PROMPT, RESPONSE, CONTEXT = "prompt", "response", "context"
KNOWN = {
    MESSAGES: ("messages", "conversations", "conversation"),
    SYSTEM: ("system", "system_prompt"),
    PROMPT: ("prompt", "instruction", "question", "query", "problem", "input"),
    CONTEXT: ("context", "input"),
    RESPONSE: ("response", "output", "answer", "completion", "solution"),
}
"""Alpaca: instruction, input, output. Dolly: instruction, context, response. ShareGPT: conversations."""


@dataclass(frozen=True)
class Instructions(FieldRecords):
    """A conversation in `messages`, or a `prompt` and its `response`, with what `context` and `system` add.

    Prompt and response may be lists of messages as well.
    """

    texts_of_files: ClassVar[str | None] = "holds no instructions with their responses"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that may hold any part of a record, and those that are refused."""
        return (*self.fields.columns, *BESIDE)

    @property
    def needed(self) -> str:
        """Either form."""
        return "a 'prompt' and a 'response', or 'messages'"

    def recognised(self, record: Record) -> bool:
        """Return whether a record may be one of these: a list of tools alone is not."""
        return any(column in record for column in self.fields.columns)

    def document(self, record: Record, where: str) -> Document:
        """Return the conversation, of which the assistant's turns are scored."""
        refuse_beside(record, self.fields.given.values())
        turns = self._turns(record)
        column = self.fields.find(record, SYSTEM)
        if column is not None and not is_blank(value_of(record, column)):
            system = Span(self.fields.text(record, SYSTEM, column), False, SYSTEM)
            if turns[0] == system:
                return Document(turns, where=where)
            if turns[0].name == SYSTEM:
                raise RecordError(
                    f"the messages begin with the role 'system', and '{column}' says something else",
                    "Take one of them out.",
                )
            turns = (system, *turns)
        return Document(turns, where=where)

    def _turns(self, record: Record) -> tuple[Span, ...]:
        """Return all but what `system` adds."""
        fields = self.fields
        messages = fields.find(record, MESSAGES)
        if messages is not None and not is_blank(value_of(record, messages)):
            return conversation(value_of(record, messages), messages).spans
        prompt = fields.require(record, PROMPT)
        response = fields.require(record, RESPONSE, (prompt,))
        asked, answered = value_of(record, prompt), value_of(record, response)
        if _is_list(asked) and _is_list(answered):
            return conversation([*asked, *answered], response).spans
        text = fields.text(record, PROMPT, prompt)
        answer = Span(fields.text(record, RESPONSE, response), True, ASSISTANT)
        context = fields.find(record, CONTEXT, (prompt, response))
        if context is not None and not is_blank(value_of(record, context)):
            text = f"{text}\n\n{fields.text(record, CONTEXT, context)}"
        return Span(text, False, USER), answer


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
