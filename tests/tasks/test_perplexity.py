"""Perplexity is what the closed form says, each token counted once, however it is computed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from roots_compress.errors import InputError, StageError
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.tasks.figures import perplexity as module
from roots_compress.tasks.figures import predictions
from roots_compress.tasks.figures.perplexity import perplexity
from tests.evaluation.models import BigramModel, UniformModel, make_windows, random_windows
from tests.runtime.graphs import VOCAB_SIZE as GRAPH_VOCAB_SIZE
from tests.runtime.graphs import history_model, random_weights, write_graph
from tests.tasks.cached import cached_perplexity
from tests.tiny import tiny_model, tiny_tokens


@pytest.mark.parametrize("vocab_size", [2, 7, 4096, 50_257])
@pytest.mark.parametrize("level", [0.0, -3.5, 1e4])
def test_uniform_logits_score_exactly_the_vocabulary(vocab_size: int, level: float) -> None:
    model, windows = UniformModel(vocab_size, level), random_windows(vocab_size=vocab_size)
    assert perplexity(model, windows).perplexity == pytest.approx(vocab_size, rel=1e-13)
    assert cached_perplexity(model, windows).perplexity == pytest.approx(vocab_size, rel=1e-13)


def test_a_bigram_model_scores_its_closed_form() -> None:
    generator = np.random.default_rng(3)
    probabilities = generator.dirichlet(np.ones(7), size=7)
    windows = random_windows(text_bytes=41)
    ids = windows.input_ids
    expected = -np.log(probabilities[ids[:, :-1], ids[:, 1:]]).sum()
    result = perplexity(BigramModel(np.log(probabilities)), windows)
    assert result.nll_nats == pytest.approx(expected, rel=1e-6)
    assert result.perplexity == pytest.approx(math.exp(expected / (5 * 11)), rel=1e-6)
    assert result.bits_per_byte == pytest.approx(expected / math.log(2) / 41, rel=1e-6)


def test_positions_are_told_apart_by_where_they_stand_in_a_window() -> None:
    windows = random_windows(count=3, tokens=200)
    table = np.log(np.random.default_rng(0).dirichlet(np.ones(7), size=7))
    ids = windows.input_ids
    nats_NT = -table[ids[:, :-1], ids[:, 1:]]
    model = BigramModel(table)
    model.max_context = 200
    found = perplexity(model, windows).by_position
    for start, end in ((1, 64), (64, 128), (128, 200)):
        assert found[start] == pytest.approx(math.exp(nats_NT[:, start - 1 : end - 1].mean()), rel=1e-6)
    assert len(found) == 3


def test_precision_does_not_fade_over_many_tokens() -> None:
    table = np.log(np.random.default_rng(0).dirichlet(np.ones(7), size=7)).astype(np.float32)
    windows = random_windows(count=400, tokens=60)
    wide = table.astype(np.float64)
    wide = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    expected = -wide[windows.input_ids[:, :-1], windows.input_ids[:, 1:]].sum()
    assert perplexity(BigramModel(table), windows).nll_nats == pytest.approx(expected, rel=1e-13)


def test_how_it_is_batched_and_chunked_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BigramModel(np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32))
    windows = random_windows()
    once = perplexity(model, windows, batch_size=5).nll_nats
    assert perplexity(model, windows, batch_size=2).nll_nats == pytest.approx(once, rel=1e-14)
    monkeypatch.setattr(predictions, "WIDENED_BYTES", 8 * 7 * 3)
    assert perplexity(model, windows, batch_size=5).nll_nats == pytest.approx(once, rel=1e-14)


def test_logits_held_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BigramModel(np.zeros((7, 7), dtype=np.float32))
    monkeypatch.setattr(module, "LOGITS_BYTES", 2 * 4 * 7 * 11)
    perplexity(model, random_windows())
    assert model.batch_sizes == [2, 2, 1]


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    model = BigramModel(np.zeros((7, 7), dtype=np.float32))
    parts = module.window_predictions(model, random_windows(), batch_size=2)
    predictions.score(parts, count=5, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_the_model_s_loss_is_the_same_figure() -> None:
    model = tiny_model()
    tokens = tiny_tokens(3, 20)
    with torch.no_grad():
        loss = model(tokens, labels=tokens).loss.item()
    result = perplexity(TorchEngine(model), make_windows(tokens.numpy()))
    assert result.nll_nats / (3 * 19) == pytest.approx(loss, rel=1e-5)


def test_the_cache_pays_what_prefill_pays(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, history_model(random_weights()))
    models = (
        (TorchEngine(tiny_model()), make_windows(tiny_tokens(3, 20).numpy())),
        (OnnxEngine.load(graph, provider="cpu", threads=1), random_windows(vocab_size=GRAPH_VOCAB_SIZE)),
    )
    for model, windows in models:
        expected = perplexity(model, windows).nll_nats
        assert cached_perplexity(model, windows, batch_size=2).nll_nats == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    table = np.zeros((7, 7), dtype=np.float32)
    table[3, 5] = bad
    with pytest.raises(StageError, match="not finite"):
        perplexity(BigramModel(table), random_windows())


def test_a_perplexity_beyond_a_double_is_an_error() -> None:
    table = np.where(np.eye(7) > 0, 1e5, 0).astype(np.float32)
    with pytest.raises(StageError, match="no finite perplexity"):
        perplexity(BigramModel(table), random_windows())


def test_windows_longer_than_the_context_are_refused() -> None:
    table = np.zeros((7, 7), dtype=np.float32)
    perplexity(BigramModel(table, max_context=11), random_windows())
    with pytest.raises(InputError, match="longer than the model's context of 10"):
        perplexity(BigramModel(table, max_context=10), random_windows())


def test_windows_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(InputError, match="outside the vocabulary of 7"):
        perplexity(BigramModel(np.zeros((7, 7), np.float32)), make_windows(np.asarray([[0, 7]])))


def test_windows_that_score_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="score no token"):
        perplexity(BigramModel(np.zeros((7, 7), np.float32)), make_windows(np.asarray([[0]])))
