"""Two checks made of held-out text: the last word of a passage, and the true continuation among others.

`cloze` is in the manner of LAMBADA (Paperno et al. 2016, arXiv:1606.06031), `choice` in that of HellaSwag
(Zellers et al. 2019, arXiv:1905.07830). Theirs are chosen so that only the whole passage tells the answer;
these are whatever the held-out text holds, so they compare stages of one run, not models with publications.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from roots_compress.data.documents import SOURCE, TARGET, Document
from roots_compress.errors import InputError, recipe_key
from roots_compress.evaluation.skills.names import OWN, WHERE
from roots_compress.evaluation.skills.subject import Subject
from roots_compress.progress import Progress

ITEMS = 200
"""The most items of a check."""
CONTEXT_WORDS, CONTINUATION_WORDS, CHOICES = 32, 12, 4
WORD = re.compile(r"\S+")
LAST = re.compile(r"([^\W\d_]{3,})[.!?][\"'\u2019\u201d)]*$")
"""The end of a passage: a word of letters before the end of a sentence; the word is left out."""


Drawn = TypeVar("Drawn")


class Item(NamedTuple):
    """A context, and candidate continuations; the first is the true one."""

    context: str
    continuations: tuple[str, ...]


class Share(NamedTuple):
    """The share of right items of a check."""

    accuracy: float
    standard_error: float
    """Standard error of the accuracy, for independent items."""
    items: int

    @classmethod
    def of(cls, right: Sequence[bool]) -> Share:
        """Return the share of items that are right."""
        count, accuracy = len(right), sum(right) / len(right)
        return cls(accuracy, (accuracy * (1 - accuracy) / max(1, count - 1)) ** 0.5, count)


def cloze_items(documents: Sequence[Document], *, seed: int) -> list[Item]:
    """Return passages of at most `CONTEXT_WORDS` words, each with the word after it."""
    items = []
    for document in documents:
        words = [] if document.is_pair else list(WORD.finditer(document.text))
        after = 0
        for index, word in enumerate(words):
            # Passages have at least half of their words, and do not overlap.
            if index - after < CONTEXT_WORDS // 2 or not (letters := LAST.match(word.group())):
                continue
            begin = words[max(after, index - CONTEXT_WORDS)].start()
            passage = document.text[begin : word.start()].rstrip()
            items.append(Item(passage, (" " + letters.group(1),)))
            after = index + 1
    return _drawn(items, seed)


def choice_items(documents: Sequence[Document], *, seed: int) -> list[Item]:
    """Return beginnings with their true continuation and `CHOICES - 1` equally long ones of other documents.

    With pairs, sources are the beginnings and targets the choices.
    """
    ends: list[tuple[int, str, str]] = []
    for number, document in enumerate(documents):
        if document.is_pair:
            ends.append((number, document.named(SOURCE), document.named(TARGET)))
            continue
        words = list(WORD.finditer(document.text))
        for start in range(0, len(words) - CONTEXT_WORDS - CONTINUATION_WORDS + 1, 2 * CONTEXT_WORDS):
            middle, last = words[start + CONTEXT_WORDS], words[start + CONTEXT_WORDS + CONTINUATION_WORDS - 1]
            context = document.text[words[start].start() : middle.start()].rstrip()
            ends.append((number, context, " " + document.text[middle.start() : last.end()]))
    chance, items = random.Random(seed), []
    for number, context, true in _drawn(ends, seed):
        others = [text for other, _, text in ends if other != number and text != true]
        if len(others) >= CHOICES - 1:
            items.append(Item(context, (true, *chance.sample(others, CHOICES - 1))))
    return items


def cloze(subject: Subject, documents: Sequence[Document], *, seed: int, progress: Progress | None) -> Share:
    """Return the share of passages whose next word is the model's likeliest, token by token.

    Raises:
        InputError: there is too little text, or the model does not continue texts.
    """
    if not subject.engine.continues:
        raise InputError(
            "cloze is for models that continue a text, and this one answers a source",
            where=WHERE,
            remedy="Name choice, or a task of lm-eval.",
        )
    items = _required(cloze_items(documents, seed=seed), "cloze")
    asked = [subject.asked(item.context, item.continuations[0]) for item in items]
    return Share.of([found.is_greedy for found in subject.likelihoods(asked, progress=progress)])


def choice(subject: Subject, documents: Sequence[Document], *, seed: int, progress: Progress | None) -> Share:
    """Return the share of beginnings whose true continuation is the likeliest per byte.

    Raises:
        InputError: there is too little text.
    """
    items = _required(choice_items(documents, seed=seed), "choice")
    texts = [(item.context, text) for item in items for text in item.continuations]
    found = iter(subject.likelihoods([subject.asked(*each) for each in texts], progress=progress))
    right = []
    for item in items:
        rates = [next(found).log_probability / len(text.encode()) for text in item.continuations]
        right.append(max(rates) == rates[0] > max(rates[1:]))
    return Share.of(right)


CHECKS: dict[str, Callable[..., Share]] = dict(zip(OWN, (cloze, choice), strict=True))


def _drawn(items: list[Drawn], seed: int) -> list[Drawn]:
    """Return at most `ITEMS` of the items, sampled by a seed, in their order."""
    if len(items) <= ITEMS:
        return items
    return [items[index] for index in sorted(random.Random(seed).sample(range(len(items)), ITEMS))]


def _required(items: list[Item], name: str) -> list[Item]:
    if not items:
        raise InputError(
            f"the held-out text is too short for {name}: it takes {CONTEXT_WORDS + CONTINUATION_WORDS} words"
            f" in each of {CHOICES} documents",
            where=recipe_key("data", "eval"),
            remedy="Give more held-out text.",
        )
    return items
