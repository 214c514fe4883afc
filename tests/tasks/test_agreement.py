"""How near two models are at each scored token, and how sure a figure is, against direct computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from roots_compress.evaluation.intervals import interval, paired_interval, stored
from roots_compress.results import Metrics
from roots_compress.tasks.figures.predictions import Scores
from roots_compress.tasks.registry import CAUSAL_LM
from tests.evaluation.models import BigramModel, random_windows
from tests.report import figures

RANDOM = np.random.default_rng(0)
ONE, OTHER = (BigramModel(RANDOM.normal(0, 2, (7, 7)).astype(np.float32)) for _ in range(2))


def test_agreement_is_that_of_every_scored_token(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = random_windows(count=5, tokens=12)
    read = windows.input_ids[:, :-1].reshape(-1)
    log_p, log_q = (
        F.log_softmax(torch.from_numpy(model.table_VV).double()[read], -1) for model in (OTHER, ONE)
    )
    expected = (log_p.exp() * (log_p - log_q)).sum(-1).numpy()
    same = (log_p.argmax(-1) == log_q.argmax(-1)).double().mean()
    # Two windows at a time, and three rows of them widened.
    monkeypatch.setattr("roots_compress.tasks.figures.perplexity.LOGITS_BYTES", 2 * 4 * 7 * 11)
    monkeypatch.setattr("roots_compress.tasks.figures.predictions.WIDENED_BYTES", 3 * 8 * 7)
    measured = CAUSAL_LM.measure(ONE, windows, original=OTHER)
    assert {name: measured.figures[name] for name in ("kl_mean", "kl_median", "kl_p99", "same_top")} == (
        pytest.approx(
            {
                "kl_mean": expected.mean(),
                "kl_median": np.median(expected),
                "kl_p99": np.percentile(expected, 99),
                "same_top": float(same),
            },
            rel=1e-12,
        )
    )
    assert measured.divergence is not None
    np.testing.assert_allclose(measured.divergence.sums, expected.reshape(5, 11).sum(axis=1))
    assert measured.figures["perplexity"] == CAUSAL_LM.quality(ONE, windows)["perplexity"]
    assert measured.other["perplexity"] == CAUSAL_LM.quality(OTHER, windows)["perplexity"]
    itself = CAUSAL_LM.measure(ONE, windows, original=ONE).figures
    assert (itself["kl_p99"], itself["same_top"]) == (0, 1)


def test_examples_without_a_scored_place_are_none() -> None:
    """Else a resample of such examples alone would have a mean over nothing."""
    scores = Scores.by_example(np.array([1.0, 2.0, 4.0]), np.array([1, 1, 3]))
    assert (scores.sums.tolist(), scores.counts.tolist()) == ([3.0, 4.0], [2, 1])
    assert np.isfinite(interval(scores) or np.nan).all()


def row(nats: np.ndarray[tuple[int], np.dtype[np.float64]], tokens: int = 100) -> Metrics:
    counts = np.full(len(nats), tokens)
    return replace(figures.stage().metrics, scores=stored(Scores(nats * tokens, counts)))


def test_an_interval_holds_the_true_value_as_often_as_it_says() -> None:
    kept = 0
    for _ in range(200):
        low, high = interval(Scores(RANDOM.normal(3, 0.2, 12), np.ones(12, np.int64))) or (0.0, 0.0)
        kept += low < 3 < high
    assert 182 <= kept <= 198
    assert interval(Scores(np.ones(1), np.ones(1, np.int64))) is None


def test_rows_measured_on_the_same_examples_are_told_apart_in_pairs() -> None:
    nats = RANDOM.normal(3, 0.5, 24)
    worse = RANDOM.normal(0.02, 0.01, 24)
    before, after = row(nats), row(nats + worse)
    low, high = paired_interval(CAUSAL_LM, before, after) or (0.0, 0.0)
    assert 1.01 < low < np.exp(worse.mean()) < high < 1.03
    assert paired_interval(CAUSAL_LM, before, before) == (1, 1)
    assert paired_interval(CAUSAL_LM, before, row(nats, tokens=99)) is None
    assert paired_interval(CAUSAL_LM, figures.stage().metrics, after) is None
