"""Held-out text is cut once for each tokenizer of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.sources.readers import read_documents
from roots_compress.data.windows import EvaluationWindows
from roots_compress.pipeline.held_out import HeldOut
from roots_compress.tasks.causal_lm import CausalLM
from tests.chains import TRAIN, recipe
from tests.tiny import tiny_tokenizer


class Counting(CausalLM):
    """Counts how often text is cut."""

    cuts = 0

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        self.cuts += 1
        return super().examples(documents, tokenizer, config)


def test_stages_that_share_a_tokenizer_share_what_is_cut(text_file: Path) -> None:
    task, documents = Counting(), tuple(read_documents(next(text_file.glob("*.txt"))))
    held_out = HeldOut(recipe(text_file, TRAIN), TextSplit((), documents, "a text"), task)
    first = held_out.examples(tiny_tokenizer())
    assert held_out.examples(tiny_tokenizer()) is first
    assert task.cuts == 1
    other = tiny_tokenizer()
    other.add_tokens(["<more>"])
    assert held_out.examples(other) is not first
