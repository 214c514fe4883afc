"""One artifact by itself: the perplexity of a checkpoint or of a graph, on any text."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from roots_compress.data.config import DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.evaluate.artifact import protocol_of
from roots_compress.evaluate.config import EvaluationConfig
from roots_compress.evaluate.perplexity import Perplexity, perplexity
from roots_compress.evaluate.progress import Progress
from roots_compress.evaluate.threads import default_threads
from roots_compress.model.checkpoint import load_checkpoint
from roots_compress.results import Protocol
from roots_compress.runtime.onnx_engine import OnnxEngine
from roots_compress.runtime.protocol import LanguageModel
from roots_compress.runtime.text import load_tokenizer
from roots_compress.runtime.torch_engine import TorchEngine


def evaluate_artifact(
    path: Path,
    data: DataConfig,
    evaluation: EvaluationConfig,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Perplexity, Protocol]:
    """Return the perplexity of a checkpoint or a graph on held-out text, and the protocol it was measured by.

    Args:
        path: a folder with an ONNX graph, a stage of a run (its graph is taken), or a checkpoint.
        data: where the held-out text comes from.
        evaluation: windows and threads.
        seed: of the split, where no held-out text is named.
        progress: called with the windows scored and their number.

    Raises:
        InputError: the path is neither, or the text is missing or too short.
    """
    threads = evaluation.threads or default_threads()
    model, tokenizer = _open(path, threads)
    text = load_text(data, seed=seed)
    windows = evaluation_windows(
        text.held_out, tokenizer, block_size=evaluation.block_size, limit=evaluation.windows
    )
    protocol = protocol_of(
        evaluation, windows, max_context=model.max_context, threads=threads, text=text.description
    )
    return perplexity(model, windows, progress=progress), protocol


def _open(path: Path, threads: int) -> tuple[LanguageModel, PreTrainedTokenizerFast]:
    if (path / "model.onnx").exists() or (path / "onnx" / "model.onnx").exists():
        return OnnxEngine.load(path, threads=threads), load_tokenizer(path)
    checkpoint = load_checkpoint(path)
    return TorchEngine(checkpoint.model), checkpoint.tokenizer
