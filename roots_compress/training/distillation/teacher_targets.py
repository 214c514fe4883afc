"""Targets that the teacher writes for given sources, in place of the given targets.

Sequence-level distillation (Kim & Rush 2016, arXiv:1606.07947): the student learns the teacher's likeliest
text, found by beam search, instead of one of many possible texts.

They are written once, before training, and kept in `work/teacher-targets/`: an interrupted training goes on
with the same texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from roots_compress.events import Events
from roots_compress.models.seq2seq import RootsForSeq2SeqLM
from roots_compress.progress import Display
from roots_compress.results import Json
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.kept_parts import KeptParts
from roots_compress.training.state import fingerprint_of

FOLDER = "teacher-targets"
BEAMS = 5
AT_ONCE = 16
"""Targets that are written together."""


def with_teacher_targets(
    documents: Sequence[Document],
    teacher: Checkpoint,
    ratio: float,
    context: TrainingContext,
    *,
    block_size: int,
    limit: int,
) -> tuple[Document, ...]:
    """Return pairs; the teacher writes the targets of some.

    Args:
        teacher: float weights; if it writes, it is afterwards on the CPU and in eval mode.
        context: its seed chooses them; its folder keeps the targets.
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
    kept = KeptParts(context.work / FOLDER, identity)
    parts: list[Any] = [*kept.read()]
    if sum(map(len, parts)) < len(chosen):
        nn.Module.to(model, context.device).eval()
        sources = [documents[index].named(SOURCE) for index in chosen]
        try:
            for part in _written(teacher, sources, block_size, context.events, after=len(parts)):
                kept.add(part)
                parts.append(part)
        finally:
            nn.Module.to(model, "cpu")
    changed = list(documents)
    for index, text in ((chosen[number], text) for part in parts for number, text in part):
        if text.strip():
            source = documents[index].named(SOURCE)
            changed[index] = Document((Span(source, False, SOURCE), Span(text, True, TARGET)))
    return tuple(changed)


@torch.no_grad()
def _written(
    teacher: Checkpoint, sources: Sequence[str], longest: int, events: Events, *, after: int
) -> Iterator[list[Json]]:
    """Yield the teacher's texts for the sources after the first `after`, in batches of similar length.

    Each text comes with the number of its source.
    """
    # transformers' types allow only its own models, and no text of one row.
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
    first = after * AT_ONCE
    with Display(events, "writing targets", done=first) as display:
        for start in range(first, len(order), AT_ONCE):
            batch = order[start : start + AT_ONCE]
            ids_BS = torch.from_numpy(padded([rows[index] for index in batch], pad)).to(model.device)
            mask_BS = torch.from_numpy(padded([[1] * len(rows[index]) for index in batch], 0)).to(
                model.device
            )
            found_BT = writer.generate(input_ids=ids_BS, attention_mask=mask_BS, generation_config=settings)
            yield [
                [index, str(tokenizer.decode(row[1:], skip_special_tokens=True))]
                for index, row in zip(batch, found_BT.tolist(), strict=True)
            ]
            display.update(start + len(batch), len(order))
