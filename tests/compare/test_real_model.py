"""SmolLM2's GGUF: its ids by llama.cpp's rules, and its perplexity where a wrong cut of digits shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, TokenType
from transformers import AutoModelForCausalLM

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint
from roots_compress.data.documents import Document
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.tasks.figures.perplexity import perplexity
from tests.compare.checks import BLOCK, own_perplexity
from tests.compare.ggufs import Vocabulary
from tests.compare.texts import TEXTS

pytestmark = [pytest.mark.real_model, pytest.mark.slow]
LIST = "".join(
    f"{i}. entry number {i} costs {i * 37} and weighs {i * i % 91}.{i % 10} kg\n\n" for i in range(1, 60)
)


@pytest.fixture(scope="module")
def source() -> Path:
    path = os.environ.get("ROOTS_SMOLLM2")
    if not path:
        pytest.skip("ROOTS_SMOLLM2 does not name the GGUF file")
    return Path(path)


@pytest.fixture(scope="module")
def checkpoint(source: Path) -> Checkpoint:
    return load_checkpoint(source)


@pytest.fixture(scope="module")
def vocabulary(source: Path) -> Vocabulary:
    """What the file says of its tokenizer, read by the public reader."""
    fields = GGUFReader(source).fields

    def value(key: str) -> Any:
        return fields[f"tokenizer.ggml.{key}"].contents()

    flag = fields.get("tokenizer.ggml.add_bos_token")
    return Vocabulary(
        model=value("model"),
        pre=value("pre"),
        tokens=tuple(value("tokens")),
        types=tuple(TokenType(kind) for kind in value("token_type")),
        bos=value("bos_token_id"),
        eos=value("eos_token_id"),
        merges=tuple(value("merges")),
        add_bos=None if flag is None else bool(flag.contents()),
    )


@pytest.mark.parametrize("name", [*TEXTS, "long list"])
def test_ids(name: str, checkpoint: Checkpoint, vocabulary: Vocabulary) -> None:
    text = LIST if name == "long list" else TEXTS[name]
    assert checkpoint.tokenizer(text).input_ids == vocabulary.ids(text)


def test_perplexity_of_a_numbered_list(source: Path, checkpoint: Checkpoint, vocabulary: Vocabulary) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, local_files_only=True
    ).eval()
    windows = evaluation_windows([Document.plain(LIST)], checkpoint.tokenizer, block_size=BLOCK, limit=1000)
    assert isinstance(checkpoint.model, RootsForCausalLM)
    measured = perplexity(TorchEngine(checkpoint.model), windows).perplexity
    bos = vocabulary.bos if vocabulary.opens_with_bos else None
    np.testing.assert_allclose(measured, own_perplexity(theirs, vocabulary.ids(LIST), bos), rtol=1e-4)
