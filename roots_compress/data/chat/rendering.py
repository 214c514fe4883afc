"""Conversations rendered as the text that a model reads, in the run's format or by the model's template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from roots_compress.data.chat.formats import CHATML, ChatFormat
from roots_compress.data.documents import SYSTEM, USER, Document, Span
from roots_compress.errors import InputError, Text, recipe_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OTHER_ANSWER = "\ue000"
"""Text that no answer begins with: a character for private use."""
REMEDY = Text(
    "Give the format in plain fields in ", recipe_key("data", "chat"), ", or repair the model's template."
)


def rendered(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast | None = None
) -> Iterator[Document]:
    """Yield the documents as plain text, conversations in their format with only their answers scored.

    A conversation is one text, or one text for each answer if the template changes earlier turns when others
    follow.

    Args:
        tokenizer: its chat template is used if a conversation has no format; ChatML if there is no template.

    Raises:
        InputError: the template is malformed, uses something that the sandbox forbids, or refuses a
            conversation.
    """
    for document in documents:
        if not document.is_chat:
            yield document
        elif tokenizer is None:
            yield (document.format or CHATML).rendered(document)
        elif (own := own_format(document, tokenizer)) is not None:
            yield own.rendered(document)
        else:
            yield from _Rendering(tokenizer).samples(document)


def prompt_of(document: Document, turns: int, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the text of a conversation's first turns and the beginning of an answer.

    Raises:
        InputError: as `rendered` raises it.
    """
    own = own_format(document, tokenizer)
    if own is not None:
        return own.prompt(document.spans[:turns])
    return _Rendering(tokenizer).text(document.spans[:turns], document.where, opens_answer=True)


def question(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a user's prompt for a model, in the tokenizer's template.

    Raises:
        InputError: it has none, or as `rendered` raises it.
    """
    require_template(tokenizer)
    return prompt_of(Document((Span(text, False, USER),)), 1, tokenizer)


def prompt_of_messages(
    messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerFast, *, begun: bool = False
) -> str:
    """Return the text of messages, and the beginning of an answer, in the tokenizer's template.

    If a template refuses a system message, it is left out, as in lm-eval.

    Args:
        messages: each with a `role` and its `content`.
        tokenizer: it has a template.
        begun: whether the last message is the beginning of the answer.

    Raises:
        InputError: as `rendered` raises it.
    """
    turns = tuple(Span(message["content"], False, message["role"]) for message in messages)
    asked, answer = (turns[:-1], turns[-1].text) if begun else (turns, "")
    try:
        return prompt_of(Document(asked), len(asked), tokenizer) + answer
    except InputError:
        if turns[0].name != SYSTEM:
            raise
        return prompt_of_messages(messages[1:], tokenizer, begun=begun)


def require_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse a tokenizer without a chat template.

    Raises:
        InputError: it has none.
    """
    if template_of(tokenizer) is None:
        raise InputError(
            "the tokenizer has no chat template",
            where=tokenizer.name_or_path or None,
            remedy="Leave the chat out, or name a model that was tuned to answer.",
        )


def own_format(document: Document, tokenizer: PreTrainedTokenizerFast) -> ChatFormat | None:
    """Return the format of a conversation in plain fields; None if the tokenizer's template is used.

    Raises:
        InputError: the tokenizer has templates for special purposes alone.
    """
    named: Any = getattr(tokenizer, "chat_template", None)
    if document.format is None and template_of(tokenizer) is not None:
        return None
    if document.format is None and isinstance(named, dict) and named:
        raise InputError(
            f"the tokenizer has chat templates for {', '.join(map(repr, named)):.200}, and none by default",
            where=tokenizer.name_or_path or None,
            remedy=REMEDY,
        )
    end = tokenizer.eos_token
    return (document.format or CHATML).ending(None if end is None else str(end))


def template_of(tokenizer: PreTrainedTokenizerFast | None) -> str | None:
    """Return a tokenizer's chat template; of several the one for no special purpose."""
    template: Any = getattr(tokenizer, "chat_template", None)
    return template.get("default") if isinstance(template, dict) else template


class _Rendering:
    """A model's template, with the tokenizer's variables for it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        source = template_of(tokenizer)
        assert source is not None
        self._source, self._name = source, tokenizer.name_or_path
        self._tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}

    @property
    def _named(self) -> str:
        return f" of {self._name}" if self._name else ""

    def text(self, spans: Iterable[Span], where: str, *, opens_answer: bool) -> str:
        """Return the text of some turns.

        Args:
            where: the conversation's file and line, or '' where it has none.
            opens_answer: whether the beginning of an answer follows them.

        Raises:
            InputError: the template uses something that the sandbox forbids, or refuses the conversation.
        """
        from jinja2 import TemplateError

        from roots_compress.data.chat.budget import ForbiddenError
        from roots_compress.data.chat.sandbox import RefusedError, compiled

        messages = [{"role": span.name, "content": span.text} for span in spans]
        place: str | None = where or self._name
        try:
            return compiled(self._source).render(messages, self._tokens, opens_answer=opens_answer)
        except ForbiddenError as error:
            place = self._name
            message = f"the chat template asks for {error.message}, which the sandbox forbids"
        except RefusedError as error:
            message = f"the chat template{self._named} refuses a conversation: {error.message}"
        except TemplateError as error:
            message = f"the chat template{self._named} cannot be rendered: {error.message}"
        raise InputError(message, where=place or None, remedy=REMEDY)

    def samples(self, document: Document) -> Iterator[Document]:
        """Yield a conversation as text with its answers marked.

        An answer is what the template adds to the turns before it and the beginning of an answer. Space after
        an end of turn is not scored, unless the end is only space. If the template changes a turn when others
        follow, as Qwen3's does with reasoning, each answer is a separate text, after the turns before it.

        Raises:
            InputError: as `text` does; or the template changes an answer or the text before it.
        """
        turns, where = document.spans, document.where
        places = [self._place(turns[: number + 1], where) for number, turn in enumerate(turns) if turn.scored]
        whole = places[-1][0] if turns[-1].scored else self.text(turns, where, opens_answer=False)
        if not all(whole.startswith(text) for text, _, _ in places):
            for text, start, end in places:
                yield _marked(text[:end], [(start, end)])
        else:
            yield _marked(whole, [(start, end) for _, start, end in places])

    def _place(self, turns: tuple[Span, ...], where: str) -> tuple[str, int, int]:
        """Return the text of some turns, and the beginning and end of the last, an answer."""
        text = self.text(turns, where, opens_answer=False)
        *before, answer = turns
        said = answer.text.strip()
        if before and text.startswith(opening := self.text(before, where, opens_answer=True)):
            start = len(opening)
        else:
            # Some templates open an answer in a way that they leave out once it is there. What another answer
            # would leave as it is comes before it.
            other = self.text([*before, answer._replace(text=OTHER_ANSWER)], where, opens_answer=False)
            alike = (first == second for first, second in zip(text, other, strict=False))
            start = sum(1 for _ in takewhile(bool, alike))
            if before and not text.startswith(self.text(before, where, opens_answer=False)):
                start = len(text)  # It is before what it answers.
        at = text.find(said, start)
        if at < 0:
            raise InputError(
                f"the chat template{self._named} changes answers, or writes turns otherwise once an answer "
                "follows, so that answers cannot be told from the rest",
                where=where or self._name or None,
                remedy=REMEDY,
            )
        # Spaces at the end of the opening are the answer's: tokenizers join them with its first word.
        start = len(text[:start].rstrip(" "))
        mark = text[at + len(said) :]
        return text, start, len(text.rstrip()) if mark.strip() else len(text)


def _marked(text: str, places: Sequence[tuple[int, int]]) -> Document:
    """Return a text with some stretches, in order, scored."""
    spans: list[Span] = []
    done = 0
    for start, end in places:
        spans += [Span(text[done:start], False), Span(text[start:end], True)]
        done = end
    spans.append(Span(text[done:], False))
    return Document(tuple(span for span in spans if span.text))
