"""A model whose skills are measured: probabilities of continuations, and its own text.

Shape legend: B texts read together, T tokens of a continuation, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from roots_compress.data.documents import TARGET
from roots_compress.data.languages import target_tokenizer
from roots_compress.data.pairs import Frame
from roots_compress.errors import InputError
from roots_compress.progress import Progress
from roots_compress.runtime.generate import generate
from roots_compress.runtime.text import prompt_ids
from roots_compress.runtime.text_stream import TextStream
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.perplexity import LOGITS_BYTES
from roots_compress.tasks.figures.predictions import negative_log_likelihood


class Likelihood(NamedTuple):
    """The likelihood of a continuation."""

    log_probability: float
    """Log-probability of all its tokens, in nats."""
    is_greedy: bool
    """Whether each of them is the model's likeliest."""


class Asked(NamedTuple):
    """Tokens whose probability after others is requested."""

    context: list[int]
    """At least one."""
    continuation: list[int]
    given: int = 0
    """Number of the continuation's tokens that are fixed and do not count."""


class Subject:
    """A model that writes, with its tokenizer.

    Args:
        engine: its graph or its checkpoint's own model.
    """

    def __init__(
        self, task: Task[Any], engine: Any, tokenizer: PreTrainedTokenizerFast, stop_tokens: Collection[int]
    ) -> None:
        self.task, self.engine, self.tokenizer, self.stop_tokens = task, engine, tokenizer, stop_tokens

    @property
    def opening(self) -> int:
        """The token for an empty context: BOS, or else EOS.

        Raises:
            InputError: the tokenizer has neither.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise InputError(
            "the tokenizer has neither BOS nor EOS, and a text without a context cannot be scored",
            remedy="Name one of them in the model's tokenizer_config.json.",
        )

    def asked(self, context: str, continuation: str) -> Asked:
        """Return the tokens of a continuation after a context.

        Space between them belongs to the continuation. A decoder reads both as one text; the tokens are
        separated by number, as in lm-eval.
        """
        text = context.rstrip()
        continuation = context[len(text) :] + continuation
        if not self.engine.continues:
            ids = target_tokenizer(self.tokenizer).encode(continuation, add_special_tokens=False)
            return Asked(self.prompt(text), [*self._begun, *ids], len(self._begun))
        if not text:
            ids = self.tokenizer.encode(continuation, add_special_tokens=False)
            return Asked(ids[:1], ids[1:]) if ids[:1] == [self.opening] else Asked([self.opening], ids)
        context_ids, ids = self.prompt(text), self.prompt(text + continuation)
        return Asked(context_ids, ids[len(context_ids) :])

    @cached_property
    def _begun(self) -> list[int]:
        """The first tokens of every target, such as BART's BOS or the token of a language."""
        return Frame.of(self.tokenizer, TARGET).opening

    def prompt(self, text: str) -> list[int]:
        """Return a text's tokens as the model's prompt."""
        return prompt_ids(text, self.tokenizer, continues=self.engine.continues)

    def likelihoods(self, asked: Sequence[Asked], *, progress: Progress | None = None) -> list[Likelihood]:
        """Return the likelihood of each continuation; contexts that do not fit lose their beginning.

        Args:
            asked: any number of texts; those of similar length are read together.
            progress: called with the texts read and their number.

        Raises:
            InputError: a token is outside the vocabulary, or a continuation longer than the model's context.
            StageError: a logit is not finite.
        """
        found: dict[int, Likelihood] = {}
        lengths = [len(each.context) + len(each.continuation) for each in asked]
        order = sorted(range(len(asked)), key=lambda index: -lengths[index])
        while order:
            longest = lengths[order[0]]
            rows = max(1, LOGITS_BYTES // (4 * self.engine.vocab_size * longest))
            if getattr(self.engine, "renewed_after", None) is not None:
                rows = 1  # Otherwise the longest text's length would choose the rotary factors for all.
            batch, order = order[:rows], order[rows:]
            read = [asked[index] for index in batch]
            for index, each, logits_TV in zip(batch, read, self._logits(read), strict=True):
                targets_T = np.array(each.continuation[each.given :], dtype=np.int64)
                logits_TV = logits_TV[each.given :]
                greedy = bool((logits_TV.argmax(axis=1) == targets_T).all())
                found[index] = Likelihood(-negative_log_likelihood(logits_TV, targets_T), greedy)
            if progress is not None:
                progress(len(found), len(asked))
        return [found[index] for index in range(len(asked))]

    def _logits(self, asked: Sequence[Asked]) -> Iterator[Any]:
        contexts, continuations = zip(*((each.context, each.continuation) for each in asked), strict=True)
        return self.task.continued(self.engine, contexts, continuations)

    def written(self, context: str, *, stops: Sequence[str], max_new_tokens: int, **choice: Any) -> str:
        """Return the model's text after a context, up to the first stop text, which is left out.

        Args:
            context: loses its beginning if it does not fit.
            stops: texts that end it.
            choice: how tokens are chosen, as `generate` takes it; without any, the likeliest each time.

        Raises:
            InputError: an option is out of range.
        """
        ids = self.prompt(context) or [self.opening]
        if self.engine.continues:
            max_new_tokens = min(max_new_tokens, self.engine.max_context - 1)
            ids = ids[-(self.engine.max_context - max_new_tokens) :]
        else:
            max_new_tokens = min(max_new_tokens, self.engine.max_context - len(self._begun))
            ids = ids[-self.engine.max_context :]
        model, tokens = self.engine.begin(ids)
        if not self.engine.continues:
            tokens = [*tokens, *self._begun]
        steps = generate(
            model, [tokens], max_new_tokens=max_new_tokens, stop_tokens=self.stop_tokens, **choice
        )
        stream, text = TextStream(self.tokenizer, tokens), ""
        for (token,) in steps:
            if token is None or token in self.stop_tokens:
                break
            text += stream.push(token)
            if any(stop in text for stop in stops):
                break
        text += stream.end()
        ends = [text.find(stop) for stop in stops if stop in text]
        return text[: min(ends)] if ends else text
