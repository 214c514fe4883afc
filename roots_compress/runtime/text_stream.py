"""The text of tokens that come one by one: what is given out never has to be taken back.

A decoder of the tokenizers library turns tokens into text all at once, and a token may change the text of
those before it: the bytes of a character may come one by one, a run of byte tokens is text only if all of it
is, a cleanup takes the space before a full stop. So only that much text is given out that no further token
can change. All pieces together are the decoded whole, character for character.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.tokenizer import quiet_transformers

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CLEANED = frozenset(" .?!,'ntmsver")
"""The characters of what transformers' `clean_up_tokenization` replaces. It leaves any other as it is, and
nothing that it replaces reaches over one."""
LONGEST_WINDOW = 64
"""Tokens that are decoded again with each new one, where the decoder lets a text be cut between tokens."""
FUSING = frozenset({"Fuse", "ByteLevel"})
"""Decoders that make one string of all tokens, so that what follows them in a sequence sees the whole."""


class TextStream:
    """The text that tokens add to a prompt's.

    The prompt's tokens are decoded with them, since a decoder treats the first token of a text otherwise than
    the others; what the prompt alone gives is left out. Special tokens are no text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        # Not `all_special_ids`, which holds only those that have a role, such as EOS.
        added = tokenizer.added_tokens_decoder.items()
        self._no_text = {number for number, token in added if token.special}
        self._tokens = [token for token in prompt if self._is_text(token)]
        self._first = 0
        """The token from which on the text is decoded again."""
        self._offset = 0
        """Characters of the text of all tokens before the text of those from `_first` on, once the latter
        has come to what was certain when `_first` was chosen."""
        self._longest = LONGEST_WINDOW
        with quiet_transformers():  # It says once that it cleans up no BPE's text, whatever the setting.
            self._given = len(self._decoded(0, len(self._tokens)))
        steps = list(_decoders(tokenizer))
        kinds = [step["type"] for step in steps]
        self._has_byte_tokens = "ByteFallback" in kinds
        self._rewrites_whole = any(
            kind in FUSING and any(map(_looks_around, steps[index + 1 :])) for index, kind in enumerate(kinds)
        )

    def push(self, token: int) -> str:
        """Take the next token; return the text that is certain now and was not before."""
        if not self._is_text(token):
            return ""
        self._tokens.append(token)
        if self._rewrites_whole:
            return ""
        end = len(self._tokens) - (self._open_run() if self._has_byte_tokens else 0)
        text = self._decoded(self._first, end)
        certain = self._certain(text)
        new = certain[max(self._given - self._offset, 0) :]
        self._given = max(self._given, self._offset + len(certain))
        if end - self._first > self._longest:
            self._move_window(end, text, certain)
        return new

    def end(self) -> str:
        """Return the text that only a further token could have changed."""
        return self._decoded(0, len(self._tokens))[self._given :]

    def _decoded(self, first: int, end: int) -> str:
        return str(self._tokenizer.decode(self._tokens[first:end], skip_special_tokens=True))

    def _certain(self, text: str) -> str:
        """Return as much of a text as every continuation of its tokens begins with."""
        if self._tokenizer.clean_up_tokenization_spaces:
            while text and text[-1] in CLEANED:
                text = text[:-1]
        # A character whose last bytes are to come. It may be the text's own, which the next token shows.
        return text[:-1] if text.endswith(REPLACEMENT) else text

    def _move_window(self, end: int, text: str, certain: str) -> None:
        """Begin the window later, so that decoding a token does not take longer the more there are.

        What a token adds depends on the tokens before it only by whether there are any that are text, by the
        token just before, by the bytes of a character or of a run of byte tokens, and in a cleanup by what
        follows the last character that it leaves alone. So the tokens of a window say all of it if their text
        is certain up to some character of its own, and is what the text of more tokens ends with.
        """
        back = max(1, LONGEST_WINDOW // 8)
        while (first := end - back) > self._first:
            back *= 2
            while self._has_byte_tokens and first > self._first and self._is_byte(self._tokens[first]):
                first -= 1
            if first == self._first:
                break
            shorter = self._decoded(first, end)
            kept = self._certain(shorter)
            same_end = certain.endswith(kept) and text[len(certain) :] == shorter[len(kept) :]
            if kept and kept[-1] != REPLACEMENT and same_end:
                self._first, self._offset = first, self._offset + len(certain) - len(kept)
                break
        # Where no token will do, the next attempt waits until its cost is small beside the tokens'.
        self._longest = max(LONGEST_WINDOW, 2 * (end - self._first))

    def _is_text(self, token: int) -> bool:
        """Return whether a decoder gets to see a token: the others are taken out before it."""
        return token not in self._no_text and self._tokenizer.backend_tokenizer.id_to_token(token) is not None

    def _is_byte(self, token: int) -> bool:
        """Return whether a token is one of a byte, such as `<0x0A>`."""
        spelt = str(self._tokenizer.backend_tokenizer.id_to_token(token))
        return len(spelt) == 6 and spelt[:3] == "<0x" and spelt[5] == ">" and spelt[3:5].isalnum()

    def _open_run(self) -> int:
        """Return how many tokens at the end are bytes.

        A run of byte tokens becomes the characters that it spells or, if it is no UTF-8, a replacement
        character for each byte, those of whole characters too.
        """
        return next(
            (back for back, token in enumerate(reversed(self._tokens)) if not self._is_byte(token)),
            len(self._tokens),
        )


def _decoders(tokenizer: PreTrainedTokenizerFast) -> Iterator[dict[str, Any]]:
    """Yield the settings of the tokenizer's decoders in the order in which they are applied."""
    decoder = tokenizer.backend_tokenizer.decoder
    waiting = [] if decoder is None else [json.loads(decoder.__getstate__())]
    while waiting:
        first = waiting.pop(0)
        if first["type"] == "Sequence":
            waiting[:0] = first["decoders"]
        else:
            yield first


def _looks_around(decoder: dict[str, Any]) -> bool:
    """Whether what a decoder makes of a character may depend on characters after it."""
    if decoder["type"] == "Replace":
        return len(decoder["pattern"].get("String", "")) != 1
    return decoder["type"] not in {"Fuse", "Strip"}
