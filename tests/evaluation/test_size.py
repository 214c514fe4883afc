"""Sizes count every file a graph needs, and every weight once."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from roots_compress.evaluation.size import count_parameters, graph_bytes
from roots_compress.models.quantized import FORMATS, Format, QuantizedEmbedding, QuantizedLinear
from tests.runtime.graphs import history_model, random_weights, write_graph
from tests.tiny import tiny_model


@pytest.mark.parametrize("external", [False, True])
def test_bytes_are_those_of_graph_and_data_alone(tmp_path: Path, external: bool) -> None:
    folder = write_graph(tmp_path, history_model(random_weights()), external=external)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "orphan.data").write_bytes(b"0" * 1000)
    needed = {path for path in folder.iterdir() if path.name.startswith("model.onnx")}
    assert len(needed) == 1 + external
    assert graph_bytes(folder) == sum(path.stat().st_size for path in needed)


def test_tied_weights_count_once() -> None:
    tied, untied = (count_parameters(tiny_model(tie_word_embeddings=tie)) for tie in (True, False))
    assert untied - tied == 300 * 32
    assert tied == sum(parameter.numel() for parameter in tiny_model().parameters())


@pytest.mark.parametrize("weight_format", FORMATS)
def test_quantized_weights_count_as_weights_whatever_holds_them(weight_format: Format) -> None:
    # 33 is no multiple of the group of 16: padding must not count.
    model = nn.Sequential(
        QuantizedEmbedding(11, 33, weight_format, 16, tied=True),
        QuantizedLinear(33, 5, True, weight_format, 16),
    )
    assert count_parameters(model) == 11 * 33 + 33 * 5 + 5
