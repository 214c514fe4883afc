"""Ids and decoded text of every kind of tokenizer equal those of the library that its source is made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import load_tokenizer
from roots_compress.data.special_tokens import opened
from tests.compare.ggufs import write_gguf
from tests.compare.kinds import KINDS, reference
from tests.compare.texts import TEXTS
from tests.compare.vocabularies import VOCABULARIES
from tests.families.sources import source_model


@pytest.mark.parametrize("kind", KINDS)
def test_a_folders_tokenizer_gives_the_ids_of_transformers(kind: str, tmp_path: Path) -> None:
    KINDS[kind].write(tmp_path)
    source_model("llama").save_pretrained(tmp_path)
    theirs = reference(tmp_path)
    ours = load_tokenizer(inspect_source(tmp_path))
    for name, text in {**TEXTS, **spelt_special_tokens(theirs.all_special_tokens)}.items():
        ids = theirs(text).input_ids
        assert ours(text).input_ids == ids, name
        assert ours.decode(ids) == theirs.decode(ids), name
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_a_ggufs_tokenizer_gives_the_ids_of_llama_cpp(kind: str, tmp_path: Path) -> None:
    vocabulary = VOCABULARIES[kind]()
    model = source_model("llama", vocab_size=len(vocabulary.tokens), bos_token_id=vocabulary.bos)
    ours = load_tokenizer(inspect_source(write_gguf(tmp_path / "model.gguf", model, vocabulary)))
    special = [vocabulary.tokens[vocabulary.bos], vocabulary.tokens[vocabulary.eos]]
    for name, text in {**TEXTS, **spelt_special_tokens(special)}.items():
        ids = ours(text, add_special_tokens=False).input_ids
        assert opened(ids, ours) == vocabulary.ids(text), name
    assert (ours.bos_token_id, ours.eos_token_id, len(ours)) == (
        vocabulary.bos,
        vocabulary.eos,
        len(vocabulary.tokens),
    )


def spelt_special_tokens(tokens: list[str]) -> dict[str, str]:
    """Return texts that spell each special token, at the start, inside a word and between spaces."""
    return {token: f"{token}at the start, in{token}side, and {token} alone" for token in tokens}
