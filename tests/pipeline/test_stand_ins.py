"""Models of few layers and few tokens that take the place of a run's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import load_tokenizer
from roots_compress.configs.data import TokenizerConfig
from roots_compress.data.documents import Document
from roots_compress.data.special_tokens import closing_ids, opening_ids
from roots_compress.data.tokenizers import train_tokenizer
from roots_compress.pipeline.forecast import stand_ins
from roots_compress.pipeline.forecast.stand_ins import StandIns, stand_in, with_few_tokens
from tests.specs import gemma

WORDS = ["".join(chr(97 + int(digit)) for digit in str(number * number)) for number in range(400)]
TEXTS = [Document.plain(f"Line {word} says that {word[::-1]} differs from {word}.") for word in WORDS]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_ins, "VOCABULARY", 300)


@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("kind", ["byte_bpe", "wordpiece", "unigram", "word"])
def test_a_tokenizer_of_few_tokens_keeps_its_special_ones(kind: str, *, encoder: bool) -> None:
    config = TokenizerConfig.model_validate({"kind": kind, "vocab_size": 400, "special_tokens": ["<|turn|>"]})
    own = train_tokenizer(TEXTS, config, encoder=encoder)
    small = with_few_tokens(own, TEXTS)
    assert len(small) < len(own), "it could be made anew"
    for ids in (opening_ids, closing_ids):
        assert small.convert_ids_to_tokens(ids(small)) == own.convert_ids_to_tokens(ids(own))
    assert small.mask_token == own.mask_token
    assert small.pad_token == own.pad_token
    ids = small.encode("<|turn|>Line 3 of 9 says<|turn|>", add_special_tokens=False)
    assert small.convert_ids_to_tokens(ids).count("<|turn|>") == 2
    assert max(ids) < len(small)


def test_models_of_one_vocabulary_stay_so_and_a_shape_takes_the_teachers(tmp_path: Path) -> None:
    own = train_tokenizer(TEXTS, TokenizerConfig(vocab_size=400))
    spec = gemma().with_embeddings(vocabulary=len(own) + 8)  # Some tables have rows for no token.
    save_checkpoint(stand_in(spec, own), tmp_path / "model")
    made = StandIns(TEXTS)
    first, again = (made.write(tmp_path / "model", tmp_path / name, layers=1) for name in ("a", "b"))
    infos = inspect_source(first), inspect_source(again)
    assert [load_tokenizer(each).get_vocab() for each in infos] == [load_tokenizer(infos[0]).get_vocab()] * 2
    assert [len(each.spec.layers) for each in infos] == [1, 1]
    assert infos[0].vocab_size == infos[1].vocab_size <= 300
    shape = made.write(tmp_path / "model" / "config.json", tmp_path / "c", layers=1)
    assert "vocabulary" not in json.loads(shape.read_text())["embeddings"]
