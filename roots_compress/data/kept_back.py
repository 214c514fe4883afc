"""Text that is kept back from what learns, so that it can tell whether the learning did good."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from roots_compress.data.documents import Document
from roots_compress.data.streamed import StreamedDocuments

BREAKS = (r"\n[ \t]*\n\s*", r"\n\s*", r"\s+")
"""Places where a document may be cut: after a paragraph, or else a line, or a word."""


def keep_back(
    documents: Sequence[Document], fraction: float, *, characters: int, seed: int
) -> tuple[Sequence[Document], Sequence[Document]] | None:
    """Keep a fraction of the documents back; of a few texts, the end of the longest.

    Args:
        documents: the text. Of streamed ones, which are in random order, the last are kept back.
        fraction: the most to keep back.
        characters: the most characters of documents to keep back.

    Returns:
        the remaining training text, and the text kept back; None if there is too little.
    """
    most = int(len(documents) * fraction)
    if most == 0:
        return _end_kept_back(documents, fraction)
    streamed = isinstance(documents, StreamedDocuments)
    order = (
        np.arange(len(documents))[::-1]
        if streamed
        else np.random.default_rng(seed).permutation(len(documents))
    )
    chosen: dict[int, Document] = {}
    held = 0
    for index in order[:most].tolist():
        chosen[index] = documents[index]
        held += len(chosen[index].text)
        if held >= characters:
            break
    kept = tuple(chosen.values())
    if isinstance(documents, StreamedDocuments):
        left = documents.text_bytes - sum(len(each.text.encode()) for each in kept)
        return documents.first(len(documents) - len(kept), left), kept
    return tuple(each for index, each in enumerate(documents) if index not in chosen), kept


def _end_kept_back(
    documents: Sequence[Document], fraction: float
) -> tuple[tuple[Document, ...], tuple[Document, ...]] | None:
    lengths = [len(each.text) for each in documents]
    index = lengths.index(max(lengths))
    longest = documents[index]
    if longest != Document.plain(longest.text):
        return None  # Its parts would not be records.
    parts = cut_in_two(longest, min(0.5, fraction * sum(lengths) / max(1, lengths[index])))
    return parts and ((*documents[:index], parts[0], *documents[index + 1 :]), (parts[1],))


def cut_in_two(document: Document, fraction: float) -> tuple[Document, Document] | None:
    """Cut a plain text near a fraction of it; None if there is no good place."""
    if len(document.spans) != 1:
        return None
    text = document.text.strip()
    target, slack = len(text) * (1 - fraction), len(text) * fraction / 2
    first = max(0, int(target - slack) - 1)
    while first > 0 and text[first - 1].isspace():  # A break begins where its space does.
        first -= 1
    for pattern in BREAKS:
        found = takewhile(
            lambda match: match.end() <= target + slack, re.compile(pattern).finditer(text, first)
        )
        cuts = [match for match in found if match.end() >= target - slack]
        if cuts:
            cut = min(cuts, key=lambda match: abs(match.end() - target))
            return Document.plain(text[: cut.start()]), Document.plain(text[cut.end() :])
    return None
