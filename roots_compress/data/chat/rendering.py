"""Conversations rendered as the text that a model reads."""

from __future__ import annotations

from collections.abc import Iterable

from roots_compress.data.chat.formats import CHATML
from roots_compress.data.documents import Document


def rendered(documents: Iterable[Document]) -> list[Document]:
    """Return the documents as plain text, conversations in their format; of these the answers are scored."""
    return [CHATML.rendered(document) if document.is_chat else document for document in documents]
