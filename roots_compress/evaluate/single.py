"""One artifact by itself: the perplexity of a checkpoint or of a graph, on any text."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.tokenizer import check_vocabulary
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.documents import TextSplit
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.errors import InputError
from roots_compress.evaluate.artifact import protocol_of
from roots_compress.evaluate.perplexity import Perplexity, perplexity
from roots_compress.progress import Progress
from roots_compress.results import Protocol
from roots_compress.runtime.graph_folder import holds_graph
from roots_compress.runtime.onnx_engine import OnnxEngine
from roots_compress.runtime.protocol import LanguageModel
from roots_compress.runtime.text import load_tokenizer
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.system.threads import default_threads


def evaluate_artifact(
    path: Path,
    text: TextSplit,
    evaluation: EvaluationConfig,
    *,
    progress: Progress | None = None,
) -> tuple[Perplexity, Protocol]:
    """Return the perplexity of a checkpoint or a graph on held-out text, and the protocol it was measured by.

    Args:
        path: a folder with an ONNX graph, a stage of a run (its graph is taken), or a checkpoint.
        text: its held-out part is scored.
        evaluation: windows and threads.
        progress: called with the windows scored and their number.

    Raises:
        InputError: the path is neither, or the text is too short.
    """
    threads = evaluation.threads or default_threads()
    model, tokenizer = _open(path, threads)
    # A window's last token is only scored, never read.
    if evaluation.block_size - 1 > model.max_context:
        raise InputError(
            f"windows of {evaluation.block_size} tokens do not fit its context of {model.max_context}",
            where=path,
            remedy="Lower --block-size.",
        )
    windows = evaluation_windows(
        text.held_out, tokenizer, block_size=evaluation.block_size, limit=evaluation.windows
    )
    protocol = protocol_of(
        evaluation, windows, max_context=model.max_context, threads=threads, text=text.description
    )
    return perplexity(model, windows, progress=progress), protocol


def _open(path: Path, threads: int) -> tuple[LanguageModel, PreTrainedTokenizerFast]:
    if holds_graph(path):
        engine, tokenizer = OnnxEngine.load(path, threads=threads), load_tokenizer(path)
        check_vocabulary(tokenizer, engine.vocab_size, path)
        return engine, tokenizer
    torch.set_num_threads(threads)
    checkpoint = load_checkpoint(path)
    return TorchEngine(checkpoint.model), checkpoint.tokenizer
