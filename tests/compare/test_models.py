"""Logits, perplexity and greedy text of every family equal transformers', from folders and GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tests.compare.checks import CONTEXT, assert_like_transformers
from tests.compare.ggufs import write_gguf
from tests.compare.kinds import KINDS, reference
from tests.compare.vocabularies import VOCABULARIES
from tests.families.sources import DECODERS, SHAPES, source_model

FOLDERS = [
    ("llama", "llama2"),
    ("llama", "llama3"),
    ("llama", "smollm"),
    ("llama", "unigram"),
    ("mistral", "metaspace"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen2"),
    ("qwen3", "added tokens"),
    ("gemma", "gemma"),
    ("gemma2", "gemma"),
    ("gemma3_text", "gemma"),
    ("phi3", "llama2"),
    ("qwen3_moe", "qwen2"),
    ("smollm3", "llama3"),
    ("granite", "smollm"),
    ("olmo2", "qwen2"),
    ("olmo3", "qwen2"),
    ("gpt2", "gpt2"),
    ("gpt2", "leading space"),
    ("gpt2", "wordpiece"),
]
LATER = [
    ("granitemoehybrid", "smollm"),
    ("ministral", "llama3"),
    ("ministral3", "llama3"),
    ("hunyuan_v1_dense", "qwen2"),
    ("exaone4", "smollm"),
    ("arcee", "llama3"),
    ("nemotron", "unigram"),
    ("starcoder2", "gpt2"),
    ("glm", "qwen2"),
    ("glm4", "qwen2"),
    ("ernie4_5", "llama2"),
    ("helium", "unigram"),
    ("gpt_neox", "gpt2"),
    ("phi", "gpt2"),
    ("stablelm", "qwen2"),
    ("cohere2", "smollm"),
    ("cohere", "smollm"),
    ("gptj", "gpt2"),
    ("gpt_neo", "gpt2"),
    ("gpt_bigcode", "gpt2"),
    ("opt", "gpt2"),
    ("olmoe", "qwen2"),
    ("mixtral", "llama2"),
    ("granitemoe", "smollm"),
    ("lfm2", "llama3"),
    ("gpt_oss", "llama3"),
    ("qwen3_5_text", "qwen2"),
    ("lfm2_moe", "llama3"),
    ("gemma4_text", "gemma"),
    ("falcon", "gpt2"),
    ("qwen3_5_moe_text", "qwen2"),
    ("qwen3_next", "qwen2"),
    ("qwen2_moe", "qwen2"),
    ("falcon_h1", "llama3"),
    ("granite_swa", "smollm"),
    ("glm4_moe", "qwen2"),
    ("deepseek_v2", "qwen2"),
    ("deepseek_v3", "qwen2"),
    ("glm4_moe_lite", "qwen2"),
    ("minicpm3", "llama2"),
    ("dots1", "qwen2"),
    ("ernie4_5_moe", "llama2"),
    ("hunyuan_v1_moe", "qwen2"),
    ("granitemoeshared", "smollm"),
]
"""Families whose parts are in others above, or in the exporter's tests."""
GGUFS = [
    ("llama", "llama"),
    ("llama", "llama-bpe"),
    ("llama", "smollm"),
    ("mistral", "llama, without a space"),
    ("qwen2", "qwen2"),
    ("qwen3", "user-defined"),
    ("gpt2", "gpt-2"),
    ("gpt2", "gpt-2, with BOS"),
]


def test_every_family_is_compared() -> None:
    assert {family for family, _ in FOLDERS + LATER} == set(DECODERS)
    assert {kind for _, kind in FOLDERS} == set(KINDS) - {"wordlevel"}  # Its text loses its spaces.


@pytest.mark.parametrize(
    ("family", "kind"), [*FOLDERS, *(pytest.param(*each, marks=pytest.mark.slow) for each in LATER)]
)
def test_a_folder(family: str, kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    KINDS[kind].write(source)
    tokenizer = reference(source)
    theirs = source_model(family, **lengths(family), **ids_of(tokenizer))
    theirs.save_pretrained(source)

    bos = opening(tokenizer)

    def ids(text: str) -> list[int]:
        opened = [] if bos is None else [bos]
        return [*opened, *tokenizer(text, add_special_tokens=False).input_ids]

    assert_like_transformers(source, theirs, tokenizer, ids, bos, tmp_path)


@pytest.mark.parametrize(("family", "kind"), GGUFS)
def test_a_gguf(family: str, kind: str, tmp_path: Path) -> None:
    vocabulary = VOCABULARIES[kind]()
    tokenizer = vocabulary.reference()
    theirs = source_model(family, **lengths(family), **ids_of(tokenizer))
    source = write_gguf(tmp_path / "model.gguf", theirs, vocabulary)
    bos = vocabulary.bos if vocabulary.opens_with_bos else None
    assert_like_transformers(source, theirs, tokenizer, vocabulary.ids, bos, tmp_path)


def lengths(family: str) -> dict[str, Any]:
    """Return the settings that give a model the context of these tests."""
    return (
        {"n_positions": CONTEXT}
        if "n_positions" in SHAPES.get(family, {})
        else {"max_position_embeddings": CONTEXT}
    )


def ids_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the settings that a tokenizer decides, as its model's config.json carries them."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }


def opening(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return BOS where the tokenizer puts it before a text, or says nothing of what it puts there."""
    ids = tokenizer("x").input_ids
    # transformers 5 gives a tokenizer without a post-processor an empty template.
    silent = isinstance(tokenizer.backend_tokenizer.post_processor, processors.TemplateProcessing)
    return tokenizer.bos_token_id if silent or ids[0] == tokenizer.bos_token_id else None
