"""The source of a student's targets: a teacher that runs at every step, or a cache.

Shape legend: N scored positions of a batch, n of them, V vocabulary, k kept tokens, K = k + 1 outcomes,
C outcomes of any kind.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.training import DistillLossConfig, Strategy
from roots_compress.data.windows import PackedWindows
from roots_compress.models.device import Precision
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import EMBEDDING, HEAD, LAYER_TABLE
from roots_compress.models.working_copy import as_autocast_reads
from roots_compress.progress import track_made
from roots_compress.results import Json
from roots_compress.system.machine import library_versions, own_instruction_set
from roots_compress.training.batches import BatchOrder
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.asking import Asked, Questions, answer
from roots_compress.training.distillation.divergence import at_tokens_with_tail, soften
from roots_compress.training.distillation.head import BlockByBlock
from roots_compress.training.distillation.teacher_cache import TeacherCache, TopK
from roots_compress.training.parallel.launch import call, team_of
from roots_compress.training.parallel.twins import twin
from roots_compress.training.state import fingerprint_of

TABLES = (
    f"{EMBEDDING}.weight",
    f"{LAYER_TABLE}.weight",
    f"{HEAD}.weight",
    "transform.bias",
    "logits_bias",
)
"""Tensors with a row for each token."""


def with_first_tokens(teacher: Checkpoint, count: int) -> Checkpoint:
    """Return a teacher whose tables hold only the first tokens; it shares the given one's weights.

    Checkpoints of one tokenizer may be padded to different numbers of rows. The teacher's rows that its
    student lacks are left out, and its distribution is over the others.
    """
    if count >= teacher.model.config.vocab_size:
        return teacher
    config = copy.deepcopy(teacher.model.config)
    config.spec = config.spec.with_embeddings(vocabulary=count)
    with torch.device("meta"):
        model = make_model(config)
    state = {
        name: tensor[:count] if name in TABLES else tensor
        for name, tensor in teacher.model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = teacher.model.generation_config
    return Checkpoint(model.eval(), teacher.tokenizer)


def cached_teacher(
    teacher: RootsWithHead,
    windows: PackedWindows,
    config: DistillLossConfig,
    folder: Path,
    context: TrainingContext,
    *,
    tokenizer_sha256: str,
    precision: Precision,
    processes: int = 1,
    strategy: Strategy = "ddp",
    tensor_parallel: bool = False,
    release: bool = False,
) -> TeacherCache:
    """Return the teacher's targets for every scored position of the windows, on disk.

    Targets left by an earlier call are used; the missing ones are made and added.

    Args:
        teacher: float weights; afterwards on the CPU and in eval mode.
        config: how many tokens are kept, and the temperature that softens.
        folder: one cache, or a folder of caches.
        context: its seed changes no target.
        processes: the number that run a teacher; they change targets only by rounding.
        strategy: whether each holds the whole teacher or a part.
        tensor_parallel: whether they hold parts of its matrices, and run it together.
        release: keep the teacher's weights in `precision` only.

    Raises:
        InputError: `top_k` exceeds the vocabulary, the disk has no room, or as `TeacherCache` raises it.
        StageError: the teacher's logits are not finite, or the disk failed.
    """
    assert config.top_k is not None
    vocab_size = teacher.outcomes
    config.require_vocabulary(vocab_size)
    order, device, events = BatchOrder(windows, seed=context.seed), context.device, context.events
    identity: dict[str, Json] = {
        "teacher": fingerprint_of(teacher.config.to_dict(), teacher.named_tensors()),
        "tokenizer": tokenizer_sha256,
        "text": fingerprint_of({}, order.tensors),
        "top_k": config.top_k,
        "temperature": config.temperature,
        "precision": precision,
        **_place(device),
    }
    cache = TeacherCache(folder, identity, order.scored_counts, top_k=config.top_k, vocab_size=vocab_size)
    missing = cache.missing()
    if not missing:
        events.say(f"teacher cache: all {len(cache.parts)} parts found in {cache.folder}")
        return cache
    cache.require_disk()
    events.say(
        f"teacher cache: {cache.missing_bytes() / 1e6:,.0f} MB to be written ({len(missing)} of "
        f"{len(cache.parts)} parts, {cache.position_bytes} bytes a token) to {cache.folder}",
    )
    with cache.writing():
        missing = cache.missing()
        asked = Asked(as_autocast_reads(teacher.eval(), precision, replace=release), config)
        questions = Questions(order, tuple(missing), device, precision, strategy, tensor_parallel)
        try:
            with team_of(processes, device=device, label="asking the teacher") as team:
                if team.size > 1:
                    call(team, answer, twin(asked, "meta"), questions)
                with torch.no_grad():
                    answers = questions.answered(team, asked)
                    for part, targets in track_made(
                        answers, events, "asking the teacher", total=len(missing)
                    ):
                        cache.write(part, *targets)
        finally:
            # The shared parameters.
            nn.Module.to(teacher, "cpu")
    return cache


def _place(device: str) -> dict[str, Json]:
    """Return what else affects the last bits of a teacher's targets: device, threads and libraries."""
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "instruction_set": own_instruction_set(),
        "torch": library_versions()["torch"],
    }


def logits_of_teacher(teacher: RootsWithHead, final_NU: Tensor, *, outcomes: int) -> BlockByBlock:
    """Return a function for a teacher's logits from its final hidden states.

    `outcomes` are the student's: with padding its head may have more rows than the teacher's.
    """

    @torch.no_grad()
    def project(block: slice) -> Tensor:
        return teacher.project(final_NU[block])

    return BlockByBlock(project, len(final_NU), outcomes)


def log_probs_of_teacher(
    teacher_logits_nV: Tensor, student_logits_nV: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities `nV` of student and teacher."""
    return soften(student_logits_nV, temperature), soften(teacher_logits_nV, temperature)


def log_probs_of_cache(
    cached: TopK, part: slice, student_logits_nV: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities `nK` of student and teacher."""
    log_student_nK = at_tokens_with_tail(student_logits_nV, cached.tokens_Nk[part], temperature)
    return log_student_nK, cached.log_probs_NK[part]
