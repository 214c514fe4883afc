"""What is compared: ids, logits, perplexity, and the text that the likeliest tokens spell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.data.documents import Document
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.onnx_engine import OnnxEngine
from roots_compress.runtime.text import load_tokenizer, stream_text
from roots_compress.tasks.perplexity import perplexity
from tests.compare.texts import TEXTS

CONTEXT, BLOCK, NEW_TOKENS = 256, 32, 64
PROMPTS = ("The lighthouse", " hello", "1. one\n2.", "他们在 the", "\U0001f600 fine")
"""Each ends in a whole character, and not in a byte that the model's next byte could make another of."""


def assert_like_transformers(
    source: Path,
    theirs: PreTrainedModel,
    reference: PreTrainedTokenizerFast,
    ids: Callable[[str], list[int]],
    bos: int | None,
    folder: Path,
) -> None:
    """Compare a source, imported and exported, with a model of transformers and the ids of its tokenizer.

    Args:
        source: what a user has.
        theirs: the model, in float32.
        reference: turns ids into text.
        ids: of a text, as its own library gives them, BOS in front where that library puts it.
        bos: the BOS id, if that library puts it before a text.
        folder: an empty folder, for the graph.
    """
    checkpoint = load_checkpoint(source)
    tokens = torch.tensor([ids(TEXTS["code"])])
    with torch.no_grad():
        logits, expected = checkpoint.model(tokens).logits, theirs(tokens).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)

    export_checkpoint(checkpoint, folder / "graph", ExportConfig())
    engine = OnnxEngine.load(folder / "graph", threads=1, provider="cpu")
    text = "\n\n".join(TEXTS.values())
    windows = evaluation_windows([Document.plain(text)], checkpoint.tokenizer, block_size=BLOCK, limit=1000)
    measured = perplexity(engine, windows).perplexity
    np.testing.assert_allclose(measured, own_perplexity(theirs, ids(text), bos), rtol=1e-4)

    tokenizer = load_tokenizer(folder / "graph")
    for prompt in PROMPTS:
        written = "".join(stream_text(engine, tokenizer, prompt, max_new_tokens=NEW_TOKENS))
        assert written == greedy_text(theirs, reference, ids(prompt)), prompt


def own_perplexity(model: PreTrainedModel, ids: Sequence[int], bos: int | None) -> float:
    """Return the perplexity of docs/evaluation.md's windows, by a computation that shares no code with it."""
    stream = list(ids[1:]) if bos is not None else list(ids)
    nats: list[float] = []
    for start in range(0 if bos is not None else 1, len(stream) - BLOCK + 2, BLOCK - 1):
        scored = stream[start : start + BLOCK - 1]
        opening = bos if bos is not None else stream[start - 1]
        with torch.no_grad():
            logits = model(torch.tensor([[opening, *scored]])).logits[0, :-1].double()
        nats += torch.nn.functional.cross_entropy(logits, torch.tensor(scored), reduction="none").tolist()
    return float(np.exp(np.mean(nats)))


def greedy_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: list[int]) -> str:
    """Return what transformers writes on from a prompt, without what ends it."""
    given = torch.tensor([prompt])
    greedy: Any = model.generate
    written = greedy(
        given, attention_mask=torch.ones_like(given), max_new_tokens=NEW_TOKENS, do_sample=False
    )[0].tolist()
    end = model.generation_config.eos_token_id
    ends = end if isinstance(end, list) else [end]
    if written[-1] in ends:
        written.pop()
    before = str(tokenizer.decode(prompt, skip_special_tokens=True))
    after = str(tokenizer.decode(written, skip_special_tokens=True))
    assert after.startswith(before)
    return after[len(before) :]
