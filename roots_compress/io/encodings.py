"""Encodings of text other than UTF-8, told by the byte order mark that a file begins with."""

from __future__ import annotations

import codecs

MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""UTF-32 first: one of its marks begins with one of UTF-16."""


def encoding_of(raw: bytes) -> str | None:
    """Return the name of the encoding that a file's first bytes are marked by; None where it may be UTF-8."""
    return next((name for mark, name in MARKS.items() if raw.startswith(mark)), None)
