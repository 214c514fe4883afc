"""Training text that the teacher writes, read among the text that is given.

It serves where the given text is scarce: what a teacher writes ranges over all that it was trained on.
Sequence-level distillation (Kim & Rush 2016, arXiv:1606.07947), with samples in place of the most probable
sequence, as LLM-QAT draws them (Liu et al. 2023, arXiv:2305.17888).

    work/teacher-text.json    the tokens, what they depend on, and a hash of both

It is written once, before training, and kept there: an interrupted training goes on with the same text.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch import nn

from roots_compress.calibration.own_text import concatenated, own_text, windows_of_own
from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.data.special_tokens import opening_id
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import StageError
from roots_compress.io.atomic import disk_errors, read_regular, write_text
from roots_compress.results import Json
from roots_compress.run.keys import checked_content, with_sha256
from roots_compress.training.context import TrainingContext
from roots_compress.training.state import fingerprint_of

FILE = "teacher-text.json"
_MAX_TOKEN_BYTES = 8
"""Of a token in the file: six digits, a comma, and one to spare."""
_MAX_OTHER_BYTES = 1 << 12
"""Of all else in the file."""


def with_teacher_text(
    windows: PackedWindows,
    teacher: Checkpoint,
    ratio: float,
    context: TrainingContext,
    *,
    limit: int,
) -> PackedWindows:
    """Return windows of given text, and after them as many of the teacher's as make `ratio` of the whole.

    Args:
        windows: of the text that was given.
        teacher: float weights; if it writes, it is afterwards on the CPU and in eval mode.
        ratio: at least 0 and less than 1; with 0 nothing is written.
        context: its seed decides what is written; its folder keeps it.
        limit: the most windows to write; more would not be read.

    Raises:
        StageError: the teacher predicts NaN, or the disk failed.
    """
    given, block_size = windows.input_ids.shape
    count = min(limit, round(given * ratio / (1 - ratio)))
    if not count:
        return windows
    bos = opening_id(teacher.tokenizer)
    model = teacher.model
    identity: dict[str, Json] = {
        "teacher": fingerprint_of(model.config.to_dict(), model.named_tensors()),
        "shape": [count, block_size],
        "bos": bos,
        "seed": context.seed,
    }
    path = context.work / FILE
    ids_NT = _read(path, identity, count * block_size)
    if ids_NT is not None:
        return concatenated(windows, windows_of_own(ids_NT, bos=bos))
    nn.Module.to(model, context.device).eval()
    try:
        own = own_text(model, count, block_size, bos=bos, seed=context.seed, events=context.events)
    finally:
        nn.Module.to(model, "cpu")
    content: dict[str, Json] = {"identity": identity, "tokens": own.input_ids.tolist()}
    with disk_errors(path, StageError):
        # On one line: a token a line would take twice the room.
        write_text(path, json.dumps(with_sha256(content), separators=(",", ":")) + "\n")
    return concatenated(windows, own)


def _read(path: Path, identity: dict[str, Json], tokens: int) -> np.ndarray | None:
    """Return the kept text, `NT`; None where there is none of this teacher and length, or it is damaged."""
    try:
        content = checked_content(read_regular(path, tokens * _MAX_TOKEN_BYTES + _MAX_OTHER_BYTES))
        return np.array(content["tokens"], dtype=np.int64) if content["identity"] == identity else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
