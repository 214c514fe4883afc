"""Whether a student that is a file or a checkpoint suits its teacher, by files and headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.models.limits import Limits
from roots_compress.models.spec import ModelSpec
from roots_compress.training.distillation.vocabulary import (
    refuse_quantized,
    require_same_head,
    require_same_outputs,
    require_same_size,
    require_same_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def check_student(
    path: Path,
    tokenizer: PreTrainedTokenizerFast,
    vocab_size: int,
    head_kind: str,
    teacher: ModelSpec | None = None,
) -> Limits:
    """Check a student's files, head and vocabulary against its teacher's, without loading weights.

    Args:
        path: a ROOTS config file or a checkpoint.
        tokenizer: the teacher's.
        vocab_size: the teacher's.
        head_kind: the teacher's.
        teacher: its specification; where it is not known, the kind of head alone is compared.

    Returns:
        What bounds the student's use.

    Raises:
        InputError: the student is damaged or quantized, or its vocabulary or what it gives is not the
            teacher's.
    """
    if path.suffix == ".json":
        # It needs torch, which a run with a student of one's own shape needs in any case.
        from roots_compress.stages.distill.config_file import read_config

        spec = read_config(path, vocab_size).spec
        require_same_head(spec.head.kind, head_kind, path)
        if teacher is not None:
            require_same_outputs(spec, teacher, path)
        require_same_size(spec.embeddings.vocabulary, vocab_size, path)
        return Limits.of(spec)
    from roots_compress.checkpoints.tokenizer import check_vocabulary, load_tokenizer

    source = inspect_source(path)
    require_same_head(source.spec.head.kind, head_kind, path)
    if teacher is not None:
        require_same_outputs(source.spec, teacher, path)
    refuse_quantized(source.quantized, path)
    student_tokenizer = load_tokenizer(source)
    check_vocabulary(student_tokenizer, source.vocab_size, path)
    require_same_tokenizer(student_tokenizer, tokenizer, path)
    return source.limits
