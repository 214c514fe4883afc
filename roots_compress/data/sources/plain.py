"""Records of text, or of instruction data that is read as text."""

from __future__ import annotations

from dataclasses import dataclass, replace

from roots_compress.data.chat.formats import chatml
from roots_compress.data.documents import ROLES, SYSTEM, Document, Span
from roots_compress.data.sources.messages import BESIDE, MESSAGES, conversation, refuse_beside
from roots_compress.data.sources.records import Record, RecordError, Records, is_blank, listed, text_of
from roots_compress.errors import Text, recipe_key

INSTRUCTION, CHAT = ("prompt", "response"), (MESSAGES,)


@dataclass(frozen=True)
class PlainTexts(Records):
    """A text in the column of that name, or a `prompt` and the `response` to it, or `messages`.

    The first of these that is there and not blank is read: tables that mix them have a column for each. Of
    the latter two the response alone, or what the assistant says, is scored. Messages may have any role.
    """

    column: str = "text"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a record's text may be in, and those that are refused."""
        return (self.column, *INSTRUCTION, *CHAT, *BESIDE)

    @property
    def needed(self) -> str:
        """The column of the text."""
        return f"the column '{self.column}'"

    def recognised(self, record: Record) -> bool:
        """Return whether a record holds text in one of the forms."""
        try:
            self.document(record, "")
        except RecordError:
            return False
        return True

    def document(self, record: Record, where: str) -> Document | None:
        """Return the text, or the prompt and its response, or the conversation."""
        forms = [columns for columns in ((self.column,), INSTRUCTION, CHAT) if set(columns) <= set(record)]
        remedy = Text(
            "Set ", recipe_key("data", "text_column"), " to the name of the column that holds the text."
        )
        if not forms:
            raise RecordError(
                f"no column '{self.column}', no 'prompt' with 'response', and no 'messages'; "
                f"the columns are {listed(record)}",
                remedy,
            )
        for columns in forms:
            if any(is_blank(record[column]) for column in columns if column != "prompt"):
                continue
            if columns == CHAT:
                refuse_beside(record)
                return _as_text(replace(conversation(record[MESSAGES], MESSAGES, free=True), where=where))
            texts = [text_of(record[column], column, remedy) for column in columns]
            return _answered(*texts) if columns == INSTRUCTION else Document.plain(*texts)
        return None


def _as_text(found: Document) -> Document:
    """Return a conversation; one that no chat format takes, as with what a tool says, in ChatML."""
    roles = [turn.name for turn in found.spans]
    said = all(turn.text.strip() for turn in found.spans if turn.scored)
    if said and SYSTEM not in roles[1:] and {*roles} <= {*ROLES}:
        return found
    return chatml({*roles}).rendered(found)


def _answered(prompt: str, response: str) -> Document:
    """Return a prompt and its response as they are, a line end between them where no space is."""
    parted = not prompt or prompt[-1].isspace() or response[:1].isspace()
    return Document((Span(prompt if parted else prompt + "\n", False), Span(response, True)))
