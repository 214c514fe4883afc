"""Training text that the teacher writes, mixed with the given text.

It helps if the given text is scarce: a teacher's text covers its training data.
Sequence-level distillation (Kim & Rush 2016, arXiv:1606.07947), with samples instead of the most probable
sequence, as in LLM-QAT (Liu et al. 2023, arXiv:2305.17888).

It is written once, before training, and kept in `work/teacher-text/`: an interrupted training goes on with
the same text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from roots_compress.calibration.own_text import Written, concatenated, own_text_in_parts, windows_of_own
from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.data.special_tokens import opening_id
from roots_compress.data.windows import PackedWindows
from roots_compress.results import Json
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.kept_parts import KeptParts
from roots_compress.training.state import fingerprint_of

FOLDER = "teacher-text"


def with_teacher_text(
    windows: PackedWindows,
    teacher: Checkpoint,
    ratio: float,
    context: TrainingContext,
    *,
    limit: int,
) -> PackedWindows:
    """Return windows of given text, followed by the teacher's, so that these are `ratio` of all.

    Args:
        windows: those of the given text.
        teacher: float weights; if it writes, it is afterwards on the CPU and in eval mode.
        ratio: at least 0 and less than 1; with 0 nothing is written.
        context: its seed is for sampling; its folder keeps the text.
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
    kept = KeptParts(context.work / FOLDER, identity)
    parts = [_written(part) for part in kept.read()]
    if sum(len(part.ids_NT) for part in parts) < count:
        nn.Module.to(model, context.device).eval()
        try:
            for part in own_text_in_parts(
                model, count, block_size, bos=bos, seed=context.seed, events=context.events, after=parts
            ):
                kept.add({"tokens": part.ids_NT.tolist(), "state": part.state.numpy().tobytes().hex()})
                parts.append(part)
        finally:
            nn.Module.to(model, "cpu")
    ids_NT = torch.cat([part.ids_NT for part in parts]).numpy()
    return concatenated(windows, windows_of_own(ids_NT, bos=bos))


def _written(part: Any) -> Written:
    """Return a part as it was written."""
    state = np.frombuffer(bytes.fromhex(part["state"]), dtype=np.uint8).copy()
    return Written(torch.tensor(part["tokens"]), torch.from_numpy(state))
