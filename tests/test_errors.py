"""Text from files is made harmless before it is shown, and stays as it is otherwise."""

from __future__ import annotations

import unicodedata

from roots_compress.errors import printable

KEPT = [
    "no\u00a0break", "ideographic\u3000space", "\U0001f469\u200d\U0001f527", "می\u200cرود", "so\u00adft",
    "thin\u2009space", "zero\u200bwidth", "\ufeffmark", "line\u2028and\u2029paragraph",
    "private\ue000\U000f0000",
    "שלום\u200f", "\u2066embedded\u2069", "flag \U0001f3f4\U000e0067\U000e007f", "กำ", "e\u0301",
    "two\nlines\tand tab",
    "\ufffd", "unassigned \u0378", "\ufdd0",
]  # fmt: skip


def test_what_is_no_control_stays() -> None:
    for text in KEPT:
        assert printable(text) == text


def test_every_control_but_line_feed_and_tab_is_replaced() -> None:
    for number in range(0x110000):
        char = chr(number)
        harmful = unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"
        assert printable(char) == ("\N{REPLACEMENT CHARACTER}" if harmful else char)
    assert printable("\x1b[2J\x9b31m\x07") == "\ufffd[2J\ufffd31m\ufffd"
