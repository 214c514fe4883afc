"""Documents: the units that text is split, packed and scored by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of a document, and whether its tokens are scored by the training loss."""

    text: str
    scored: bool


@dataclass(frozen=True)
class Document:
    """One document: plain text, or instruction data whose prompts are read but not scored."""

    spans: tuple[Span, ...]
    label: int | None = None
    """The number of its label, where texts have labels."""

    @classmethod
    def plain(cls, text: str) -> Document:
        """Return a document that is scored throughout."""
        return cls((Span(text, True),))

    @property
    def text(self) -> str:
        """The whole text, prompts included."""
        return "".join(span.text for span in self.spans)


@dataclass(frozen=True)
class TextSplit:
    """The text of a run: documents to train and calibrate on, and documents held out from every stage."""

    train: tuple[Document, ...]
    held_out: tuple[Document, ...]
    description: str
    """What the text is, in words for a report."""
