"""Targets that the teacher writes for given sources, in the place of those that were given.

Sequence-level distillation (Kim & Rush 2016, arXiv:1606.07947): the student learns what its teacher would
say, the likeliest text that a search with beams finds, and not one of the many ways to say it.

    work/teacher-targets.json    the texts, what they depend on, and a hash of both

They are written once, before training, and kept there: an interrupted training goes on with the same texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.data.documents import SOURCE, TARGET, Document, Span
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.packing import BLOCK_SIZE
from roots_compress.data.pair_packing import documents_packed
from roots_compress.data.pairs import sides
from roots_compress.data.windows import padded
from roots_compress.errors import StageError
from roots_compress.events import Events
from roots_compress.io.atomic import disk_errors, read_regular, write_text
from roots_compress.models.seq2seq import RootsForSeq2SeqLM
from roots_compress.progress import Display
from roots_compress.results import Json
from roots_compress.run.keys import checked_content, with_sha256
from roots_compress.training.context import TrainingContext
from roots_compress.training.state import fingerprint_of

FILE = "teacher-targets.json"
BEAMS = 5
AT_ONCE = 16
"""Targets that are written side by side."""
_MAX_BYTES = 1 << 30


def with_teacher_targets(
    documents: Sequence[Document],
    teacher: Checkpoint,
    ratio: float,
    context: TrainingContext,
    *,
    block_size: int,
    limit: int,
) -> tuple[Document, ...]:
    """Return pairs, the targets of some written by the teacher.

    Args:
        teacher: float weights; if it writes, it is afterwards on the CPU and in eval mode.
        context: its seed decides which; its folder keeps the targets.
        block_size: most tokens of a source, and of a target.
        limit: windows that training reads.

    Raises:
        StageError: the disk failed.
    """
    read = documents_packed(documents, teacher.tokenizer, block_size, seed=context.seed, limit=limit)
    chosen = np.random.default_rng(context.seed).permutation(read)[: round(ratio * len(read))].tolist()
    model = teacher.model
    assert isinstance(model, RootsForSeq2SeqLM), "only such a model writes targets"
    identity: dict[str, Json] = {
        "teacher": fingerprint_of(model.config.to_dict(), model.named_tensors()),
        "text": text_sha256([documents[index] for index in chosen]),
        "tokens": block_size,
        "beams": BEAMS,
    }
    path = context.work / FILE
    texts = _read(path, identity, len(chosen))
    if texts is None:
        nn.Module.to(model, context.device).eval()
        try:
            texts = _written(
                teacher, [documents[index].named(SOURCE) for index in chosen], block_size, context.events
            )
        finally:
            nn.Module.to(model, "cpu")
        content: dict[str, Json] = {"identity": identity, "targets": list[Json](texts)}
        with disk_errors(path, StageError):
            write_text(path, json.dumps(with_sha256(content)) + "\n")
    changed = list(documents)
    for index, text in zip(chosen, texts, strict=True):
        if text.strip():
            source = documents[index].named(SOURCE)
            changed[index] = Document((Span(source, False, SOURCE), Span(text, True, TARGET)))
    return tuple(changed)


@torch.no_grad()
def _written(teacher: Checkpoint, sources: Sequence[str], longest: int, events: Events) -> list[str]:
    """Return what the teacher writes for each source: the sources in batches of like length."""
    # transformers' types know only its own models, and no text of one row.
    tokenizer, model, writer = teacher.tokenizer, teacher.model, cast(Any, teacher.model)
    assert isinstance(model, RootsForSeq2SeqLM)
    rows = [each.ids for each in sides(sources, tokenizer, longest, name=SOURCE, key=BLOCK_SIZE)]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    pad = tokenizer.pad_token_id or 0
    settings = GenerationConfig(
        num_beams=BEAMS,
        do_sample=False,
        max_new_tokens=longest,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        decoder_start_token_id=model.head.start,
    )
    texts = [""] * len(rows)
    with Display(events, "writing targets") as display:
        for start in range(0, len(order), AT_ONCE):
            batch = order[start : start + AT_ONCE]
            ids_BS = torch.from_numpy(padded([rows[index] for index in batch], pad)).to(model.device)
            mask_BS = torch.from_numpy(padded([[1] * len(rows[index]) for index in batch], 0)).to(
                model.device
            )
            found_BT = writer.generate(input_ids=ids_BS, attention_mask=mask_BS, generation_config=settings)
            for index, row in zip(batch, found_BT.tolist(), strict=True):
                texts[index] = str(tokenizer.decode(row[1:], skip_special_tokens=True))
            display.update(start + len(batch), len(order))
    return texts


def _read(path: Path, identity: dict[str, Json], count: int) -> list[str] | None:
    """Return the kept texts; None where there are none of this teacher and text, or they are damaged."""
    try:
        content = checked_content(read_regular(path, _MAX_BYTES))
        texts = content["targets"]
        whole = isinstance(texts, list) and len(texts) == count and content["identity"] == identity
        return [str(each) for each in texts] if whole and isinstance(texts, list) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
