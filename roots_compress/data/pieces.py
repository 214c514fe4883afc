"""Where a long text may be cut so that its parts have the tokens of the whole."""

from __future__ import annotations

PIECE_CHARACTERS = 1 << 17
"""Longer texts are tokenised in pieces of about this length."""
CONTEXT_CHARACTERS = 64
"""Read on both sides of a cut at the least, so that the tokens next to it are those of the whole text."""
LONGEST_CONTEXT = 4096


def cut_places(text: str) -> list[int]:
    """Return where to cut a text: 0, its length, and about every `PIECE_CHARACTERS` a place between.

    A cut is made before a line that follows another without a blank one, or else before a single space
    between two words. Pre-tokenizers cut there anyway; those who keep spaces in runs keep these apart.
    Where there is no such place, as in one word of a million letters, a piece is longer.
    """
    places = [0]
    while len(text) - places[-1] > PIECE_CHARACTERS:
        target = places[-1] + PIECE_CHARACTERS
        place = _last_place(text, target - PIECE_CHARACTERS // 2, target) or _next_place(text, target)
        if place is None:
            break
        places.append(place)
    return [*places, len(text)]


def context_before(text: str, place: int) -> int:
    """Return where to begin reading for the tokens from a place on: where a cut could be, or nearly."""
    near = max(0, place - CONTEXT_CHARACTERS)
    return _last_place(text, max(0, near - LONGEST_CONTEXT), near) or near


def context_after(text: str, place: int) -> int:
    """Return where to end reading for the tokens up to a place."""
    near = min(len(text), place + CONTEXT_CHARACTERS)
    return _next_place(text, near, near + LONGEST_CONTEXT) or near


def _last_place(text: str, low: int, high: int) -> int | None:
    """Return the last place to cut within some characters; None where there is none."""
    for mark, beyond in (("\n", 1), (" ", 0)):
        at = text.rfind(mark, low, high)
        while at != -1:
            if _is_alone(text, at):
                return at + beyond
            at = text.rfind(mark, low, at)
    return None


def _next_place(text: str, low: int, high: int | None = None) -> int | None:
    """Return the first place to cut within some characters; None where there is none."""
    found = []
    for mark, beyond in (("\n", 1), (" ", 0)):
        at = text.find(mark, low, high)
        while at != -1 and not _is_alone(text, at):
            at = text.find(mark, at + 1, high)
        if at != -1:
            found.append(at + beyond)
            high = at
    return min(found, default=None)


def _is_alone(text: str, at: int) -> bool:
    """Return whether a space or line end is between two characters that are none."""
    return 0 < at < len(text) - 1 and not text[at - 1].isspace() and not text[at + 1].isspace()
