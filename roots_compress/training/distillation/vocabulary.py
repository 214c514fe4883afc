"""Checks that a student can learn from a teacher: tokens must mean the same to both.

Nothing here needs weights, so that a run refuses a student before any work.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roots_compress.errors import InputError
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import (
    ClassificationHead,
    EmbeddingHead,
    LabelHead,
    ScoreHead,
    TokenClassificationHead,
)
from roots_compress.models.spec import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def refuse_quantized(quantized: bool, path: Path) -> None:
    """Raise an InputError if a student's weights are integers."""
    if quantized:
        raise InputError(
            "the student is quantized, and integer weights cannot be trained",
            where=path,
            remedy="Name the checkpoint from before quantization.",
        )


def require_same_head(student: str, teacher: str, path: Path) -> None:
    """Raise an InputError if a student's head has another kind than its teacher's."""
    if student != teacher:
        raise InputError(
            f"the student's head is of the kind '{student}', the teacher's '{teacher}'",
            where=path,
            remedy="What they predict must mean the same: choose a student with the teacher's kind of head.",
        )


def require_same_outputs(student: ModelSpec, teacher: ModelSpec, path: Path) -> None:
    """Raise an InputError if a student's labels or vectors differ from its teacher's."""
    require_same_head(student.head.kind, teacher.head.kind, path)
    given, wanted = _outputs(student), _outputs(teacher)
    if given != wanted:
        raise InputError(
            f"the student gives {given}, the teacher {wanted}",
            where=path,
            remedy="They must be comparable: give the student its teacher's.",
        )
    if not isinstance(teacher.head, LabelHead) or not isinstance(student.head, LabelHead):
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
    """Return a student with its teacher's labels, with their names if it has none."""
    if not isinstance(teacher.head, LabelHead) or not isinstance(student.head, LabelHead):
        return student
    names = student.head.names or teacher.head.names
    return changed(student, head=changed(student.head, names=names))


def _outputs(spec: ModelSpec) -> str:
    """Return a head's outputs other than token probabilities, in words."""
    match spec.head:
        case ClassificationHead(labels=labels):
            return f"each text one of {labels} labels"
        case ScoreHead():
            return "each text a score"
        case TokenClassificationHead(labels=labels):
            return f"each token one of {labels} labels"
        case EmbeddingHead(pooling=pooling):
            return f"each text a vector of {spec.head.channels(spec.width)} channels, pooled by '{pooling}'"
        case _:
            return "probabilities of tokens"


def require_same_size(student: int, teacher: int, path: Path) -> None:
    """Raise an InputError if a student without weights has another number of rows than its teacher."""
    if student != teacher:
        raise InputError(
            f"the student's vocabulary has {student} entries, the teacher's {teacher}",
            where=path,
            remedy="Their token ids must mean the same: give the student the teacher's vocabulary.",
        )


def require_same_tokenizer(
    student: PreTrainedTokenizerFast, teacher: PreTrainedTokenizerFast, path: Path
) -> None:
    """Raise an InputError if the same text gives different token ids."""
    from roots_compress.data.tokenizers import tokenizer_sha256

    hashes = tokenizer_sha256(student), tokenizer_sha256(teacher)
    if hashes[0] != hashes[1]:
        raise InputError(
            f"the student's tokenizer ({hashes[0][:12]}) is not the teacher's ({hashes[1][:12]})",
            where=path,
            remedy="Their token ids must mean the same: choose a student with the teacher's tokenizer.",
        )
