"""Chat formats in plain fields: what stands before and after each turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from roots_compress.data.documents import ROLES, Document, Span


@dataclass(frozen=True)
class Turn:
    """What stands around a turn."""

    prefix: str
    suffix: str


@dataclass(frozen=True)
class ChatFormat:
    """A conversation as text: each turn between its prefix and its suffix, with a separator between turns."""

    turns: Mapping[str, Turn]
    """By role."""
    separator: str = ""

    def rendered(self, document: Document) -> Document:
        """Return a conversation as plain text. Of a scored turn what is said and its suffix are scored."""
        spans: list[Span] = []
        for text, scored, role in document.spans:
            turn = self.turns[role]
            separator = self.separator if spans else ""
            spans.append(Span(separator + turn.prefix, False))
            spans.append(Span(text + turn.suffix, scored))
        return Document(tuple(spans))


CHATML = ChatFormat({role: Turn(f"<|im_start|>{role}\n", "<|im_end|>") for role in ROLES}, "\n")
"""ChatML, which Qwen and SmolLM2 among others are trained on."""
