"""Documents: the units that text is split, packed and scored by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from roots_compress.configs.data import RecordKind
    from roots_compress.data.chat.formats import ChatFormat

SOURCE, TARGET = "source", "target"
FIRST, SECOND = "first", "second"
SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")


class Span(NamedTuple):
    """A stretch of a document, and whether its tokens are scored by the training loss."""

    text: str
    scored: bool
    name: str = ""
    """Its name in the record: `source` and `target`, `first` and `second`, or the role of a turn; '' for
    plain text."""


class Tags(NamedTuple):
    """Labels of the words of a text."""

    numbers: tuple[int, ...]
    """The number of each word's label."""
    names: tuple[str, ...]
    """The names of all labels, by number."""


@dataclass(frozen=True)
class Document:
    """One document: plain text, a pair of texts, or a conversation whose turns a chat format will join."""

    spans: tuple[Span, ...]
    label: int | None = None
    """The number of its label, if texts have labels."""
    score: float | None = None
    """Its right number, if texts have scores."""
    tags: Tags | None = None
    """The labels of its words (its scored spans), if words have labels."""
    format: ChatFormat | None = None
    """Of a conversation: the run's chat format; None to use the model's."""
    where: str = field(default="", compare=False)
    """Of a conversation: the file and line of its record."""

    @classmethod
    def plain(cls, text: str) -> Document:
        """Return a completely scored document."""
        return cls((Span(text, True),))

    @property
    def is_pair(self) -> bool:
        """Whether it is a source and its target."""
        return self.spans[0].name == SOURCE

    @property
    def is_chat(self) -> bool:
        """Whether its spans are turns of a conversation, which become text only in a chat format."""
        return self.spans[0].name in ROLES

    @property
    def text(self) -> str:
        """The whole text, prompts included; texts with names of their own are on lines of their own."""
        return ("\n" if self.spans[0].name else "").join(span.text for span in self.spans)

    def named(self, name: str) -> str:
        """Return the text of that name.

        Raises:
            KeyError: there is none.
        """
        for span in self.spans:
            if span.name == name:
                return span.text
        raise KeyError(name)


@dataclass(frozen=True)
class TextSplit:
    """The text of a run: documents to train and calibrate on, and documents held out from every stage."""

    train: Sequence[Document]
    held_out: Sequence[Document]
    description: str
    """What the text is, in words for a report."""
    kind: RecordKind = "text"
    """The kind of the records."""
