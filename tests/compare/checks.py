"""What is compared: ids, logits, perplexity, and the text that the likeliest tokens spell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.data.documents import Document
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.special_tokens import stop_ids
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.generate import generate
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.text import load_tokenizer, stream_text
from roots_compress.tasks.figures.perplexity import perplexity
from tests.compare.texts import TEXTS

CONTEXT, BLOCK, NEW_TOKENS = 256, 32, 24
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
    for number, prompt in enumerate(PROMPTS):
        given = ids(prompt)
        ends = stop_ids(None, None, tokenizer.eos_token_id)
        steps = generate(engine, [given], max_new_tokens=NEW_TOKENS, stop_tokens=ends)
        ours = [*given, *(token for (token,) in steps if token is not None)]
        assert ours == (greedy if number == 0 else likeliest)(theirs, ours, len(given)), prompt
        written = "".join(stream_text(engine, tokenizer, prompt, max_new_tokens=NEW_TOKENS))
        assert written == text_of(ours, len(given), reference, ends), prompt


def own_perplexity(model: PreTrainedModel, ids: Sequence[int], bos: int | None) -> float:
    """Return the perplexity of docs/how/evaluation.md's windows, by code that shares nothing with it."""
    stream = list(ids[1:]) if bos is not None else list(ids)
    nats: list[float] = []
    for start in range(0 if bos is not None else 1, len(stream) - BLOCK + 2, BLOCK - 1):
        scored = stream[start : start + BLOCK - 1]
        opening = bos if bos is not None else stream[start - 1]
        with torch.no_grad():
            logits = model(torch.tensor([[opening, *scored]])).logits[0, :-1].double()
        nats += torch.nn.functional.cross_entropy(logits, torch.tensor(scored), reduction="none").tolist()
    return float(np.exp(np.mean(nats)))


def greedy(model: PreTrainedModel, tokens: list[int], prompt: int) -> list[int]:
    """Return the first tokens, with what transformers' own loop makes of them."""
    given = torch.tensor([tokens[:prompt]])
    loop: Any = model.generate
    made = loop(given, attention_mask=torch.ones_like(given), max_new_tokens=NEW_TOKENS, do_sample=False)
    written: list[int] = made[0].tolist()
    return written


def likeliest(model: PreTrainedModel, tokens: list[int], prompt: int) -> list[int]:
    """Return the first tokens, then the likeliest after each beginning: the loop's, if all are the same."""
    with torch.no_grad():
        best = model(torch.tensor([tokens[:-1]])).logits[0].argmax(dim=-1).tolist()
    end = model.generation_config.eos_token_id
    assert len(tokens) == prompt + NEW_TOKENS or tokens[-1] in (end if isinstance(end, list) else [end])
    return [*tokens[:prompt], *best[prompt - 1 :]]


def text_of(tokens: list[int], prompt: int, tokenizer: PreTrainedTokenizerFast, ends: Collection[int]) -> str:
    """Return what follows the prompt, without what ends it."""
    written = tokens[:-1] if tokens[-1] in ends else tokens
    before = str(tokenizer.decode(tokens[:prompt], skip_special_tokens=True))
    after = str(tokenizer.decode(written, skip_special_tokens=True))
    assert after.startswith(before)
    return after[len(before) :]
