"""Held-out texts of two kinds, and what a checkpoint's graph makes of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.data import DataConfig
from roots_compress.configs.export import ExportConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.sources.plain import PlainTexts
from roots_compress.data.sources.readers import read_documents
from roots_compress.evaluation.size import count_parameters
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.tasks.figures.perplexity import perplexity

Texts = Mapping[str, Sequence[Document]]


def read_texts(
    train: Sequence[Path], held_out: Sequence[Path], other: Sequence[Path], seed: int
) -> tuple[TextSplit, Texts]:
    """Return the text that stages read, and by kind the texts that none of them does."""
    data = DataConfig(train=tuple(train), eval=tuple(held_out))
    split = load_text(data, seed=seed)
    texts: dict[str, Sequence[Document]] = {"held-out text": split.held_out}
    if other:
        texts["other text"] = [
            document for path in other for document in read_documents(path, PlainTexts(data.text_column))
        ]
    return split, texts


class Judge:
    """Scores checkpoints through their graphs, all on the same windows."""

    def __init__(self, texts: Texts, tokenizer: PreTrainedTokenizerFast, block_size: int, limit: int) -> None:
        self._windows = {
            name: evaluation_windows(documents, tokenizer, block_size=block_size, limit=limit)
            for name, documents in texts.items()
        }

    def described(self) -> dict[str, Any]:
        """Return how much text is scored, by kind."""
        return {
            name: {"tokens": each.scored_tokens, "sha256": each.text_sha256}
            for name, each in self._windows.items()
        }

    def score(self, checkpoint: Checkpoint, folder: Path, *, keep: bool) -> dict[str, Any]:
        """Export a checkpoint and return its graph's figures; the graph stays only where it is to be kept."""
        report = export_checkpoint(checkpoint, folder, ExportConfig())
        engine = OnnxEngine.open(folder / "model.onnx", provider="cpu")
        scores = {name: perplexity(engine, each).perplexity for name, each in self._windows.items()}
        del engine
        if not keep:
            shutil.rmtree(folder)
        return {
            "parameters": count_parameters(checkpoint.model),
            "bytes": report.graph_bytes,
            "perplexity": scores,
        }

    def header(self) -> str:
        """Return the head of a Markdown table of figures."""
        kinds = [cell for name in self._windows for cell in (name, "ratio")]
        return f"| | parameters | MB | {' | '.join(kinds)} | seconds |\n" + "|---" * (4 + len(kinds)) + "|"

    def row(self, name: str, figures: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
        """Return a row's figures, and their ratios to a reference's."""
        cells = [
            f"{score:.3f} | {score / reference['perplexity'][kind]:.4f}"
            for kind, score in figures["perplexity"].items()
        ]
        size = f"{figures['parameters'] / 1e6:.1f}M | {figures['bytes'] / 1e6:.1f}"
        seconds = f"{figures['seconds']:.0f}" if "seconds" in figures else ""
        return f"| {name} | {size} | {' | '.join(cells)} | {seconds} |"
