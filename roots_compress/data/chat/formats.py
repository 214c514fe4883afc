"""Chat formats in plain fields: the text before and after each turn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from roots_compress.data.documents import ASSISTANT, ROLES, Document, Span


class Turn(NamedTuple):
    """The text around a turn."""

    prefix: str
    suffix: str


@dataclass(frozen=True)
class ChatFormat:
    """A conversation as text: each turn between its prefix and its suffix, with a separator between turns."""

    turns: Mapping[str, Turn]
    """By role."""
    separator: str = ""

    def ending(self, end: str | None) -> ChatFormat:
        """Return the format with an end-of-text token after each answer, unless it has one already."""
        prefix, suffix = self.turns[ASSISTANT]
        if not end or end in suffix:
            return self
        return replace(self, turns={**self.turns, ASSISTANT: Turn(prefix, suffix + end)})

    def prompt(self, turns: Iterable[Span]) -> str:
        """Return the text of turns and the beginning of an answer."""
        texts = [self.turns[turn.name].prefix + turn.text + self.turns[turn.name].suffix for turn in turns]
        return self.separator.join([*texts, self.opening])

    @property
    def opening(self) -> str:
        """The text before an answer, without final spaces: tokenizers join these with the first word."""
        return self.turns[ASSISTANT].prefix.rstrip(" ")

    @property
    def template(self) -> str:
        """The format as a Jinja template, which a checkpoint keeps."""
        parts = "".join(
            f"{{% {'elif' if number else 'if'} message['role'] == {json.dumps(role)} %}}"
            f"{{{{ {json.dumps(turn.prefix, ensure_ascii=False)} + message['content'] + "
            f"{json.dumps(turn.suffix, ensure_ascii=False)} }}}}"
            for number, (role, turn) in enumerate(self.turns.items())
        )
        between, opening = (json.dumps(text, ensure_ascii=False) for text in (self.separator, self.opening))
        return (
            f"{{% for message in messages %}}{{% if not loop.first %}}{{{{ {between} }}}}{{% endif %}}"
            f"{parts}{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{{{{ {between} + {opening} }}}}{{% endif %}}"
        )

    def rendered(self, document: Document) -> Document:
        """Return a conversation as plain text. The content and the suffix of a scored turn are scored."""
        spans: list[Span] = []
        for text, scored, role in document.spans:
            turn = self.turns[role]
            separator = self.separator if spans else ""
            opening = turn.prefix.rstrip(" ") if scored else turn.prefix
            text = turn.prefix[len(opening) :] + text
            # Space after an end of turn is not scored, unless the end is only space.
            told = text + (turn.suffix.rstrip() if scored and turn.suffix.strip() else turn.suffix)
            spans.append(Span(separator + opening, False))
            spans.append(Span(told, scored))
            spans.append(Span((text + turn.suffix)[len(told) :], False))
        return Document(tuple(span for span in spans if span.text))


def chatml(roles: Iterable[str]) -> ChatFormat:
    """Return ChatML for turns of any roles."""
    return ChatFormat({role: Turn(f"<|im_start|>{role}\n", "<|im_end|>") for role in roles}, "\n")


CHATML = chatml(ROLES)
"""ChatML, which Qwen and SmolLM2 among others are trained on."""
