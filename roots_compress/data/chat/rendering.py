"""Conversations rendered as the text that a model reads, in the run's format or by the model's template."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from roots_compress.data.chat.formats import CHATML, ChatFormat
from roots_compress.data.documents import USER, Document, Span
from roots_compress.errors import InputError, Text, recipe_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REMEDY = Text(
    "Give the format in plain fields in ", recipe_key("data", "chat"), ", or repair the model's template."
)


def rendered(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast | None = None
) -> list[Document]:
    """Return the documents as plain text, conversations in their format; of these the answers are scored.

    Args:
        documents: of any kind.
        tokenizer: its chat template serves where a conversation has no format of its own. Without a template
            it is ChatML.

    Raises:
        InputError: the template is malformed, asks for what the sandbox forbids, or refuses a conversation.
    """
    return [_rendered(document, tokenizer) if document.is_chat else document for document in documents]


def prompt_of(document: Document, turns: int, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the text of a conversation's first turns and the beginning of an answer.

    Raises:
        InputError: as `rendered` raises it.
    """
    own = own_format(document, tokenizer)
    if own is not None:
        return own.prompt(document.spans[:turns])
    return _Rendering(tokenizer).text(document.spans[:turns], opens_answer=True)


def question(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the prompt by which a user asks a model something, in the tokenizer's template.

    Raises:
        InputError: it has none, or as `rendered` raises it.
    """
    if template_of(tokenizer) is None:
        raise InputError(
            "the tokenizer has no chat template",
            where=tokenizer.name_or_path or None,
            remedy="Leave the chat out, or name a model that was tuned to answer.",
        )
    return prompt_of(Document((Span(text, False, USER),)), 1, tokenizer)


def own_format(document: Document, tokenizer: PreTrainedTokenizerFast) -> ChatFormat | None:
    """Return the format of a conversation in plain fields; None where the tokenizer's template serves."""
    if document.format is None and template_of(tokenizer) is not None:
        return None
    end = tokenizer.eos_token
    return (document.format or CHATML).ending(None if end is None else str(end))


def template_of(tokenizer: PreTrainedTokenizerFast | None) -> str | None:
    """Return a tokenizer's chat template; of several the one for no special purpose."""
    template: Any = getattr(tokenizer, "chat_template", None)
    return template.get("default") if isinstance(template, dict) else template


def _rendered(document: Document, tokenizer: PreTrainedTokenizerFast | None) -> Document:
    if tokenizer is None:
        return (document.format or CHATML).rendered(document)
    own = own_format(document, tokenizer)
    return _Rendering(tokenizer).document(document) if own is None else own.rendered(document)


class _Rendering:
    """A model's template with what it may know of the tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        source = template_of(tokenizer)
        assert source is not None
        self._source, self._where = source, tokenizer.name_or_path or None
        self._tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}

    def text(self, spans: Iterable[Span], *, opens_answer: bool) -> str:
        """Return the text of some turns.

        Raises:
            InputError: the template asks for what the sandbox forbids, or refuses the conversation.
        """
        from jinja2 import TemplateError

        from roots_compress.data.chat.sandbox import ForbiddenError, RefusedError, compiled

        messages = [{"role": span.name, "content": span.text} for span in spans]
        try:
            return compiled(self._source).render(messages, self._tokens, opens_answer=opens_answer)
        except ForbiddenError as error:
            message = f"the chat template asks for {error.message}, which the sandbox forbids"
        except RefusedError as error:
            message = f"the chat template refuses a conversation: {error.message}"
        except TemplateError as error:
            message = f"the chat template cannot be rendered: {error.message}"
        raise InputError(message, where=self._where, remedy=REMEDY)

    def document(self, document: Document) -> Document:
        """Return a conversation as text, in which the answers are told from all else.

        An answer is what the template adds to the turns before it and the beginning of an answer. Space after
        the end of a turn that it marks by more than space is not scored.

        Raises:
            InputError: as `text` does; or the text of the first turns changes with those that follow.
        """
        turns = document.spans
        whole = self.text(turns, opens_answer=False)
        spans: list[Span] = []
        done = 0
        for number, turn in enumerate(turns):
            if not turn.scored:
                continue
            start, end = self._place(whole, turns[: number + 1], opens=number > 0)
            spans += [Span(whole[done:start], False), Span(whole[start:end], True)]
            done = end
        spans.append(Span(whole[done:], False))
        return Document(tuple(span for span in spans if span.text))

    def _place(self, whole: str, turns: tuple[Span, ...], *, opens: bool) -> tuple[int, int]:
        """Return where the last of some turns, an answer, begins and ends in the text of all."""
        text = self.text(turns, opens_answer=False)
        said = turns[-1].text.strip()
        start = -1
        if opens and text.startswith(opening := self.text(turns[:-1], opens_answer=True)):
            start = len(opening)
        # Some templates open an answer in a way that they leave out once it is there.
        at = text.rfind(said)
        if not whole.startswith(text) or at < max(start, 0):
            raise InputError(
                "the chat template writes turns otherwise once others follow, so that answers cannot be told "
                "from the rest",
                where=self._where,
                remedy=REMEDY,
            )
        # Spaces at the end of the opening are the answer's: tokenizers join them with its first word.
        start = len(text[: at if start < 0 else start].rstrip(" "))
        mark = text[at + len(said) :]
        return start, len(text.rstrip()) if mark.strip() else len(text)
