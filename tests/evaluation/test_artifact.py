"""A whole artifact: an exported graph beside its checkpoint, and the protocol of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.export import ExportConfig
from roots_compress.evaluation.artifact import measure_quality, protocol_of
from roots_compress.evaluation.size import graph_bytes
from roots_compress.export.exporter import export_checkpoint
from roots_compress.tasks.registry import CAUSAL_LM
from tests.evaluation.models import random_windows
from tests.tiny import VOCAB_SIZE, tiny_checkpoint, tiny_layer

CONFIG = EvaluationConfig(windows=3, block_size=16, contexts=(4, 8), decode_tokens=2, repeats=3)
WINDOWS = random_windows(count=3, tokens=16, vocab_size=VOCAB_SIZE)


def test_graph_and_checkpoint_are_measured_alike(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(
        layers=[tiny_layer(), tiny_layer(num_attention_heads=2, num_key_value_heads=1)]
    )
    folder = tmp_path / "onnx"
    export_checkpoint(checkpoint, folder, ExportConfig())
    steps: list[tuple[int, int]] = []
    metrics, _ = measure_quality(
        CAUSAL_LM,
        tmp_path,
        lambda: checkpoint.model,
        WINDOWS,
        CONFIG,
        threads=1,
        progress=lambda done, total: steps.append((done, total)),
    )
    agreement = ["kl_mean", "kl_median", "kl_p99", "same_top"]
    assert list(metrics.quality) == ["perplexity", "bits_per_byte", *agreement, "torch_perplexity"]
    assert metrics.quality["kl_p99"] < 1e-6  # a graph and its own checkpoint
    assert metrics.quality["same_top"] == 1
    assert metrics.quality["perplexity"] == pytest.approx(metrics.quality["torch_perplexity"], rel=1e-4)
    assert metrics.parameters == sum(each.numel() for each in checkpoint.model.parameters())
    assert metrics.bytes == graph_bytes(folder) == sum(metrics.bytes_by_group.values())
    assert list(metrics.bytes_by_group) == ["embeddings", "attention", "MLP", "norms", "other"]
    assert metrics.bytes_by_group["embeddings"] == 4 * VOCAB_SIZE * 32
    low, high = metrics.intervals["perplexity"]
    assert low < metrics.quality["perplexity"] < high
    assert metrics.peak_rss_bytes > metrics.bytes
    assert steps[-1] == (3, 6)
    assert metrics.timings == {"prefill_tokens_per_second": (), "decode_tokens_per_second": ()}


def test_the_protocol_says_what_was_done() -> None:
    protocol = protocol_of(CAUSAL_LM, CONFIG, WINDOWS, max_context=8, threads=2, text="a text")
    assert (protocol.block_size, protocol.windows, protocol.tokens) == (16, 3, 45)
    # Eight tokens of context leave six for a prompt before two decoded ones.
    assert protocol.contexts == (4, 6)
    assert (protocol.threads, protocol.text, protocol.text_sha256) == (2, "a text", "text")
