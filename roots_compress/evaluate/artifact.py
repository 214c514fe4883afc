"""All figures of one artifact but its speed, and the protocol they were measured by.

Speed is no property of one artifact: `measure_speed` times all of a run's together, when they are all there.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.data.windows import EvaluationWindows
from roots_compress.errors import StageError
from roots_compress.evaluate.memory import peak_rss_bytes
from roots_compress.evaluate.perplexity import perplexity
from roots_compress.evaluate.size import count_parameters, graph_bytes
from roots_compress.evaluate.speed import fit_contexts
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.progress import Progress
from roots_compress.results import Metrics, Protocol
from roots_compress.runtime.onnx_engine import OnnxEngine
from roots_compress.runtime.torch_engine import TorchEngine

EXACT_AGREEMENT = 1e-3
ROUNDED_AGREEMENT = 0.1
"""Nats a token by which graph and checkpoint may differ: in float32, and where each side rounds on its own,
which averages out over a text, but not over a few tokens."""


def measure_quality(
    folder: Path,
    model: RootsForCausalLM,
    windows: EvaluationWindows,
    config: EvaluationConfig,
    *,
    threads: int,
    progress: Progress | None = None,
) -> Metrics:
    """Measure a graph and the checkpoint it came from; speeds are left for later.

    Args:
        folder: the graph.
        model: the checkpoint's model.
        windows: what perplexity is scored on.
        config: contexts and decoded tokens of the memory measurement; it takes the longest context that fits.
        threads: threads within an operator of the graph.
        progress: called with the windows scored, through graph and checkpoint, and twice their number.

    Raises:
        InputError: the folder is not a whole graph, or the windows do not fit the model.
        StageError: the model gives logits that are not finite, graph and checkpoint do not pay the same for
            the text, or a measuring process failed.
    """
    count = len(windows.input_ids)

    def report(before: int) -> Progress:
        return lambda done, _total: progress(before + done, 2 * count) if progress is not None else None

    engine = OnnxEngine.load(folder, threads=threads, provider="cpu")
    through_graph = perplexity(engine, windows, progress=report(0))
    longest = fit_contexts(
        config.contexts, decode_tokens=config.decode_tokens, max_context=engine.max_context
    )[-1]
    # The weights held here are not needed while the checkpoint and the child hold theirs.
    del engine
    through_torch = perplexity(TorchEngine(model), windows, progress=report(count))
    _require_agreement(through_graph.perplexity, through_torch.perplexity, model, folder)
    return Metrics(
        parameters=count_parameters(model),
        bytes=graph_bytes(folder),
        perplexity=through_graph.perplexity,
        bits_per_byte=through_graph.bits_per_byte,
        torch_perplexity=through_torch.perplexity,
        prefill_tokens_per_second=(),
        decode_tokens_per_second=(),
        peak_rss_bytes=peak_rss_bytes(
            folder, context=longest, decode_tokens=config.decode_tokens, threads=threads
        ),
    )


def _require_agreement(
    through_graph: float, through_torch: float, model: RootsForCausalLM, folder: Path
) -> None:
    """Refuse figures that are not of one model.

    Raises:
        StageError: they differ by more than rounding explains.
    """
    plain = not model.config.quantization and model.dtype == torch.float32
    allowed = EXACT_AGREEMENT if plain else ROUNDED_AGREEMENT
    if not abs(math.log(through_graph / through_torch)) <= allowed:
        raise StageError(
            f"perplexity is {through_graph:.3f} through the graph and {through_torch:.3f} through the "
            "checkpoint: they are not one model",
            where=folder,
            remedy="Nothing was committed. This is a fault of the program; please report it.",
        )


def protocol_of(
    config: EvaluationConfig, windows: EvaluationWindows, *, max_context: int, threads: int, text: str
) -> Protocol:
    """Return what the figures depend on beside the models.

    Args:
        config: how the figures are measured.
        windows: what perplexity is scored on.
        max_context: the shortest context of the models timed together.
        threads: threads of the timings, resolved.
        text: what the held-out text is, in words.

    Raises:
        InputError: the models' context has no room for the decoded tokens.
    """
    count, block_size = windows.input_ids.shape
    return Protocol(
        block_size=block_size,
        windows=count,
        tokens=windows.scored_tokens,
        text_bytes=windows.text_bytes,
        bos=windows.bos,
        text_sha256=windows.text_sha256,
        tokenizer_sha256=windows.tokenizer_sha256,
        contexts=tuple(
            fit_contexts(config.contexts, decode_tokens=config.decode_tokens, max_context=max_context)
        ),
        decode_tokens=config.decode_tokens,
        repeats=config.repeats,
        threads=threads,
        text=text,
    )
