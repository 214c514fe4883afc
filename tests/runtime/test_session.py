"""Opening ONNX Runtime sessions: what the environment decides and keeps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.errors import InputError
from roots_compress.export.exporter import export_checkpoint
from roots_compress.models.quantized import Format
from roots_compress.runtime.onnx.session import (
    CPU,
    CUDA,
    NO_FLASH_ATTENTION,
    open_session,
    session_settings,
    settings_of,
)
from roots_compress.stages.quantize.rounding import within_pairs
from tests.export.quantized import tiny_quantized
from tests.runtime.graphs import history_model, random_weights, write_graph
from tests.tiny import tiny_tokenizer


def seen_while_opening(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Open a graph, and return what ONNX Runtime finds in the environment as it does."""
    found = []
    real = ort.InferenceSession

    def opening(*arguments: object, **options: object) -> object:
        found.append(os.environ.get(NO_FLASH_ATTENTION))
        return real(*arguments, **options)

    monkeypatch.setattr(ort, "InferenceSession", opening)
    open_session(folder / "model.onnx", threads=1, provider="cpu")
    return found[0]


def test_flash_attention_is_off_only_while_a_session_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NO_FLASH_ATTENTION, raising=False)
    assert seen_while_opening(write_graph(tmp_path, history_model(random_weights())), monkeypatch) == "1"
    assert NO_FLASH_ATTENTION not in os.environ


def test_the_users_choice_of_attention_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_FLASH_ATTENTION, "0")
    assert seen_while_opening(write_graph(tmp_path, history_model(random_weights())), monkeypatch) == "0"
    assert os.environ[NO_FLASH_ATTENTION] == "0"


def integer_product(folder: Path, weight_KN: NDArray[np.int8]) -> Path:
    """Write the graph of a product of uint8 about 128 by a weight, of which nothing is said; return it."""
    constants = [
        numpy_helper.from_array(weight_KN, "weight"),
        numpy_helper.from_array(np.array(128, np.uint8), "zero"),
    ]
    width, rows = weight_KN.shape
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["levels", "weight", "zero"], ["sums"])],
        "sums",
        [helper.make_tensor_value_info("levels", TensorProto.UINT8, ["tokens", width])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, ["tokens", rows])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("tokens", [1, 40])
def test_sums_of_8_bit_products_do_not_saturate(tmp_path: Path, tokens: int) -> None:
    """On x86 without 8-bit dot products they would, in 16 bits, from the first pair on."""
    graph = integer_product(tmp_path, np.full((64, 32), 127, dtype=np.int8))
    session = open_session(graph, threads=1, provider="cpu")
    (sums,) = session.run(None, {"levels": np.full((tokens, 64), 255, dtype=np.uint8)})
    assert (sums == 64 * 127 * 127).all()


@pytest.mark.parametrize(("width", "rows"), [(64, 32), (63, 17)])
@pytest.mark.parametrize("tokens", [1, 2, 5, 40])
def test_sums_of_bounded_pairs_are_exact_by_any_kernel(
    tmp_path: Path, tokens: int, width: int, rows: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    levels_NK = torch.randint(-127, 128, (rows, width), generator=generator).float()
    levels_NK[:, ::3] = 127.0
    weight_KN = within_pairs(levels_NK).to(torch.int8).T.contiguous().numpy()
    session = ort.InferenceSession(integer_product(tmp_path, weight_KN), providers=[CPU])
    given = np.random.default_rng(0).choice(np.array([0, 1, 254, 255], np.uint8), (tokens, width))
    (sums,) = session.run(None, {"levels": given})
    assert (sums == (given.astype(np.int64) - 128) @ weight_KN).all()


@pytest.mark.parametrize("bounded", [True, False])
def test_a_graph_says_that_its_sums_are_exact_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounded: bool
) -> None:
    model = tiny_quantized("w8a8")
    if not bounded:
        levels = model.get_submodule("model.layers.0.mlp.up_proj").get_buffer("weight")
        levels[3, 4:6] = torch.tensor([65, 64])
    export_checkpoint(Checkpoint(model, tiny_tokenizer()), tmp_path / "graph", ExportConfig())
    monkeypatch.setattr("roots_compress.runtime.onnx.session.own_instruction_set", lambda: "x86_64+avx2")
    session = open_session(tmp_path / "graph" / "model.onnx", threads=1, provider="cpu")
    assert ("session.x64quantprecision" in settings_of(session)) is not bounded


@pytest.mark.parametrize(
    ("instructions", "exact"),
    [
        ("x86_64+avx2", True),
        ("x86_64+avx2+avx512f", True),
        ("x86_64+avx2+avx_vnni", False),
        ("x86_64+avx2+avx512f+avx512_vnni", False),
        ("x86_64+avx2+avx512f+avx512_vnni+amx_int8", False),
        ("aarch64+asimd+asimddp", False),
        ("arm64", False),
    ],
)
def test_sums_are_made_exact_only_where_they_would_saturate(instructions: str, exact: bool) -> None:
    """Elsewhere the setting would keep products from their fast kernels."""
    assert ("session.x64quantprecision" in session_settings(instructions)) is exact


@pytest.mark.parametrize("instructions", ["x86_64+avx2", "x86_64+avx2+avx512f+avx512_vnni"])
def test_a_session_opens_with_what_suits_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instructions: str
) -> None:
    monkeypatch.setattr("roots_compress.runtime.onnx.session.own_instruction_set", lambda: instructions)
    graph = write_graph(tmp_path, history_model(random_weights())) / "model.onnx"
    for spinning in (False, True):
        session = open_session(graph, threads=1, provider="cpu", spinning=spinning)
        settings = session_settings(instructions, spinning=spinning)
        assert settings_of(session) == settings
        assert ("session.force_spinning_stop" in settings) is not spinning


@pytest.mark.parametrize(
    ("weight_format", "portable", "suits_cuda"),
    [("w8a8", False, False), ("w8a8", True, True), ("w8", False, True)],
)
def test_a_graph_that_quantizes_blocks_stays_on_the_cpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weight_format: Format,
    portable: bool,
    suits_cuda: bool,
) -> None:
    config = ExportConfig(portable=portable)
    export_checkpoint(Checkpoint(tiny_quantized(weight_format), tiny_tokenizer()), tmp_path / "graph", config)
    asked: list[list[str]] = []
    real = ort.InferenceSession

    def opening(*arguments: object, providers: list[str]) -> object:
        asked.append(providers)
        return real(*arguments, providers=[CPU])

    monkeypatch.setattr(ort, "InferenceSession", opening)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    graph = tmp_path / "graph" / "model.onnx"
    open_session(graph, threads=1, provider="auto")
    assert asked == [[CUDA, CPU] if suits_cuda else [CPU]]
    with pytest.raises(InputError, match="no usable CUDA device" if suits_cuda else "on CPUs only"):
        open_session(graph, threads=1, provider="cuda")
