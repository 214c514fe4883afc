"""Opening ONNX Runtime sessions: what the environment decides and keeps."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime as ort
import pytest

from roots_compress.runtime.session import NO_FLASH_ATTENTION, open_session
from tests.runtime.graphs import history_model, random_weights, write_graph


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
