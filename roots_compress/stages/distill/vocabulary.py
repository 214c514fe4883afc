"""Whether a student can learn from a teacher at all: the same token must mean the same to both.

Nothing here needs weights, so that a run refuses a student before it has made anything.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import check_vocabulary, load_tokenizer
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.errors import InputError
from roots_compress.models.limits import Limits
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import ClassificationHead, EmbeddingHead
from roots_compress.models.spec import ModelSpec


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
    source = inspect_source(path)
    require_same_head(source.spec.head.kind, head_kind, path)
    if teacher is not None:
        require_same_outputs(source.spec, teacher, path)
    refuse_quantized(source.quantized, path)
    student_tokenizer = load_tokenizer(source)
    check_vocabulary(student_tokenizer, source.vocab_size, path)
    require_same_tokenizer(student_tokenizer, tokenizer, path)
    return source.limits


def refuse_quantized(quantized: bool, path: Path) -> None:
    """Raise an InputError where a student's weights are integers."""
    if quantized:
        raise InputError(
            "the student is quantized, and integer weights cannot be trained",
            where=path,
            remedy="Name the checkpoint from before quantization.",
        )


def require_same_head(student: str, teacher: str, path: Path) -> None:
    """Raise an InputError where a student's head is of another kind than its teacher's."""
    if student != teacher:
        raise InputError(
            f"the student's head is of the kind '{student}', the teacher's '{teacher}'",
            where=path,
            remedy="What they predict must mean the same: choose a student with the teacher's kind of head.",
        )


def require_same_outputs(student: ModelSpec, teacher: ModelSpec, path: Path) -> None:
    """Raise an InputError where a student gives texts other labels or vectors than its teacher."""
    require_same_head(student.head.kind, teacher.head.kind, path)
    given, wanted = _outputs(student), _outputs(teacher)
    if given != wanted:
        raise InputError(
            f"the student gives each text {given}, the teacher {wanted}",
            where=path,
            remedy="They must be comparable: give the student its teacher's.",
        )
    if not isinstance(teacher.head, ClassificationHead) or not isinstance(student.head, ClassificationHead):
        return
    for number, (own, name) in enumerate(
        zip(student.head.names or (), teacher.head.label_names, strict=False)
    ):
        if own != name:
            raise InputError(
                f"the student's label {number} is '{own}', the teacher's '{name}'",
                where=path,
                remedy="Labels must mean the same: give the student its teacher's names, in their order.",
            )


def with_names_of(student: ModelSpec, teacher: ModelSpec) -> ModelSpec:
    """Return a student that gives its teacher's labels, with their names where it has none of its own."""
    if not isinstance(teacher.head, ClassificationHead) or not isinstance(student.head, ClassificationHead):
        return student
    names = student.head.names or teacher.head.names
    return changed(student, head=changed(student.head, names=names))


def _outputs(spec: ModelSpec) -> str:
    """Return what a head gives beside probabilities of tokens, in words."""
    match spec.head:
        case ClassificationHead(labels=labels):
            return f"one of {labels} labels"
        case EmbeddingHead(pooling=pooling):
            return f"a vector of {spec.width} channels, pooled by '{pooling}'"
        case _:
            return "probabilities of tokens"


def require_same_size(student: int, teacher: int, path: Path) -> None:
    """Raise an InputError where a student without weights has another number of rows than its teacher."""
    if student != teacher:
        raise InputError(
            f"the student's vocabulary has {student} entries, the teacher's {teacher}",
            where=path,
            remedy="Their token ids must mean the same: give the student the teacher's vocabulary.",
        )


def require_same_tokenizer(
    student: PreTrainedTokenizerFast, teacher: PreTrainedTokenizerFast, path: Path
) -> None:
    """Raise an InputError where the same text becomes other token ids."""
    hashes = tokenizer_sha256(student), tokenizer_sha256(teacher)
    if hashes[0] != hashes[1]:
        raise InputError(
            f"the student's tokenizer ({hashes[0][:12]}) is not the teacher's ({hashes[1][:12]})",
            where=path,
            remedy="Their token ids must mean the same: choose a student with the teacher's tokenizer.",
        )
