"""The examples for a run's quality: held-out text, cut once for each tokenizer."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedTokenizerFast

from roots_compress.configs.recipe.schema import Recipe
from roots_compress.data.chat.rendering import template_of
from roots_compress.data.documents import TextSplit
from roots_compress.data.special_tokens import closing_ids
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.data.windows import EvaluationWindows
from roots_compress.errors import InputError, Text, recipe_key
from roots_compress.tasks.base import Task


class HeldOut:
    """The examples of a run; its stages usually share one tokenizer."""

    def __init__(self, recipe: Recipe, text: TextSplit, task: Task[Any]) -> None:
        self._recipe, self._text, self._task = recipe, text, task
        self._cut: dict[Hashable, EvaluationWindows] = {}

    def examples(self, tokenizer: PreTrainedTokenizerFast) -> EvaluationWindows:
        """Return the task's examples for quality, in a tokenizer's tokens.

        Raises:
            InputError: the text is too short for it.
        """
        special = tokenizer.pad_token_id, tokenizer.mask_token_id
        key = tokenizer_sha256(tokenizer), *closing_ids(tokenizer), *special, template_of(tokenizer)
        if key not in self._cut:
            with self._told_where():
                self._cut[key] = self._task.examples(self._text.held_out, tokenizer, self._recipe.evaluation)
        return self._cut[key]

    def check(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Check that the task can measure quality on the result of `examples`.

        Raises:
            InputError: it cannot.
        """
        examples = self.examples(tokenizer)
        with self._told_where():
            self._task.check_examples(examples)

    @contextmanager
    def _told_where(self) -> Iterator[None]:
        """Let errors name the source of the held-out text."""
        try:
            yield
        except InputError as error:
            data = self._recipe.data
            if not data.eval and error.where == recipe_key("data", "eval"):
                error.where = recipe_key("data", "train")
                fraction = recipe_key("data", "eval_fraction")
                told = f" says how much of it is held out: {data.eval_fraction}."
                error.remedy = Text(error.remedy or "", " ", fraction, told)
            raise
