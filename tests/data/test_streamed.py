"""A prepared corpus, read from its shards as it is asked for: the same documents, from any of them on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.kept_back import keep_back
from roots_compress.data.packing import shuffled
from roots_compress.data.prepare.prepare import prepare
from roots_compress.data.streamed import StreamedDocuments, streamed
from roots_compress.events import Events
from tests.data.prepare.texts import jsonl, prose


@pytest.fixture(scope="module", params=["parquet", "jsonl"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StreamedDocuments:
    folder = tmp_path_factory.mktemp("corpus")
    jsonl(folder / "a.jsonl", [prose(seed) for seed in range(30)])
    sources = [{"path": str(folder / "a.jsonl")}]
    settings = {"sources": sources, "format": request.param, "shard_bytes": 8192, "processes": 1}
    prepare(PrepareConfig.model_validate(settings), folder / "out", Events())
    found = streamed([folder / "out"])
    assert found is not None
    assert len(found[1]["shards"]) > 1
    return found[0]


def test_all_documents_are_there_from_any_on(corpus: StreamedDocuments) -> None:
    texts = [document.text for document in corpus]
    assert sorted(texts) == sorted(prose(seed) for seed in range(30))
    later = corpus.beginning_at(13)
    assert [document.text for document in later] == [*texts[13:], *texts[:13]]
    assert [document.text for document in corpus[3:6]] == texts[3:6]
    assert corpus[-1].text == texts[-1]
    for outside in (30, -31):
        with pytest.raises(IndexError):
            corpus[outside]


def test_where_training_begins_is_drawn_and_is_not_another_text(corpus: StreamedDocuments) -> None:
    texts = [document.text for document in corpus]
    drawn = [shuffled(corpus, np.random.default_rng(seed)) for seed in range(4)]
    starts = {texts.index(documents[0].text) for documents in drawn}
    assert len(starts) > 1
    assert {text_sha256(documents) for documents in drawn} == {text_sha256(corpus)}
    fewer = corpus.first(20, 1000)
    assert len(list(fewer)) == 20
    assert text_sha256(fewer) != text_sha256(corpus)


def test_the_last_documents_are_kept_back_from_a_training(corpus: StreamedDocuments) -> None:
    texts = [document.text for document in corpus]
    parts = keep_back(corpus, 0.1, characters=10**6, seed=0)
    assert parts is not None
    learnt, held = parts
    assert isinstance(learnt, StreamedDocuments)
    assert [document.text for document in held] == texts[:26:-1]
    assert [document.text for document in learnt] == texts[:27]
    assert learnt.text_bytes == sum(len(text.encode()) for text in texts[:27])


def test_a_folder_that_is_no_prepared_corpus_is_not_streamed(tmp_path: Path) -> None:
    assert streamed([tmp_path]) is None
    for text in ("[1]", '{"format": "another"}'):
        (tmp_path / "datasheet.json").write_text(text)
        assert streamed([tmp_path]) is None
