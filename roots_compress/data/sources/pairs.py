"""Records of a text and the text that it is to become: a translation, a summary, an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from roots_compress.data.documents import SOURCE, TARGET, Document, Span
from roots_compress.data.sources.records import FieldRecords, Record

KNOWN = {
    SOURCE: ("source", "src", "document", "article", "dialogue", "question", "prompt", "text", "input"),
    TARGET: ("target", "tgt", "summary", "highlights", "answer", "response", "output"),
}


@dataclass(frozen=True)
class Pairs(FieldRecords):
    """A `source` and a `target`; the target alone is scored."""

    texts_of_files: ClassVar[str | None] = "holds no pairs of source and target"

    @property
    def needed(self) -> str:
        """Both sides."""
        return "a 'source' and a 'target'"

    def document(self, record: Record, where: str) -> Document:
        """Return both sides, neither of them blank."""
        source = self.fields.require(record, SOURCE)
        target = self.fields.require(record, TARGET, (source,))
        return Document(
            (
                Span(self.fields.text(record, SOURCE, source), False, SOURCE),
                Span(self.fields.text(record, TARGET, target), True, TARGET),
            )
        )
