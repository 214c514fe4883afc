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
FUSING = frozenset({"Fuse", "ByteLevel"})
"""Decoders that make one string of all tokens, so that what follows them in a sequence sees the whole."""


class TextStream:
    """The text that tokens add to a prompt's.

    The prompt's tokens are decoded with them, since a decoder treats the first token of a text otherwise than
    the others; what the prompt alone gives is left out. Special tokens are no text.

    Args:
        tokenizer: what decodes.
        prompt: the tokens before the first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(prompt)
        with quiet_transformers():  # It says once that it cleans up no BPE's text, whatever the setting.
            self._given = len(self._decoded(self._tokens))
        # Not `all_special_ids`, which holds only those that have a role, such as EOS.
        added = tokenizer.added_tokens_decoder.items()
        self._no_text = {number for number, token in added if token.special}
        steps = list(_decoders(tokenizer))
        kinds = [step["type"] for step in steps]
        self._has_byte_tokens = "ByteFallback" in kinds
        self._rewrites_whole = any(
            kind in FUSING and any(map(_looks_around, steps[index + 1 :])) for index, kind in enumerate(kinds)
        )

    def push(self, token: int) -> str:
        """Take the next token; return the text that is certain now and was not before."""
        self._tokens.append(token)
        return self._new(self._certain())

    def end(self) -> str:
        """Return the text that only a further token could have changed."""
        return self._new(self._decoded(self._tokens))

    def _new(self, text: str) -> str:
        new = text[self._given :]
        self._given = max(self._given, len(text))
        return new

    def _decoded(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _certain(self) -> str:
        """Return as much of the text as every continuation of the tokens begins with."""
        if self._rewrites_whole:
            return ""
        tokens = self._tokens
        if self._has_byte_tokens:
            tokens = tokens[: len(tokens) - self._open_run()]
        text = self._decoded(tokens)
        if self._tokenizer.clean_up_tokenization_spaces:
            while text and text[-1] in CLEANED:
                text = text[:-1]
        # A character whose last bytes are to come. It may be the text's own, which the next token shows.
        return text[:-1] if text.endswith(REPLACEMENT) else text

    def _open_run(self) -> int:
        """Return how many tokens at the end are bytes, or are no text and stand between bytes.

        A run of byte tokens becomes the characters that it spells or, if it is no UTF-8, a replacement
        character for each byte, those of whole characters too.
        """
        count = 0
        for back, token in enumerate(reversed(self._tokens), start=1):
            spelt = self._tokenizer.backend_tokenizer.id_to_token(token)
            if spelt is not None and _is_byte(spelt):
                count = back
            elif spelt is not None and token not in self._no_text:
                break
        return count


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


def _is_byte(token: str) -> bool:
    """Whether a token is one of a byte, such as `<0x0A>`."""
    return len(token) == 6 and token[:3] == "<0x" and token[5] == ">" and token[3:5].isalnum()
