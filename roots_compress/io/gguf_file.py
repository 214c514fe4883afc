"""A GGUF model as a whole: one file or all parts of a split one, and no adapter that passes for a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from roots_compress.errors import InputError
from roots_compress.io.gguf_header import GgufHeader, GgufTensor, Numbers, Scalar, read_gguf_header

PART_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""How llama.cpp names the parts of a split model."""
READABLE = frozenset(
    """
    F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K TQ1_0 TQ2_0 MXFP4
    IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS
    """.split()  # noqa: SIM905
)
"""Storage types that the gguf library turns into floats without another tensor's help."""
MERGE = "Merge it into its base model first, and name the merged model."
OTHER_KINDS = {
    "adapter": ("an adapter (LoRA), not a model", MERGE),
    "controlvector": ("a control vector, not a model", "Name the model that it steers."),
    "mmproj": ("the image or sound encoder of a model", "Name the GGUF file of the language model itself."),
    "clip": ("the image or sound encoder of a model", "Name the GGUF file of the language model itself."),
    "imatrix": ("statistics for quantizing a model", "Name the model that they are of."),
    "vocab": ("a vocabulary without a model", "Name the model that it belongs to."),
}
"""What a GGUF file may be besides a model, by its `general.type` or `general.architecture`."""


@dataclass(frozen=True)
class GgufModel:
    """The metadata and every tensor of a GGUF model."""

    path: Path
    """The file that was named: of a split model the first part."""
    architecture: str
    metadata: Mapping[str, Scalar | Numbers | None]
    tensors: Mapping[str, GgufTensor]


def read_gguf(path: Path) -> GgufModel:
    """Return a GGUF model, with the tensors of all its parts where it is split.

    Raises:
        InputError: a file is damaged or absent, holds something other than a model, or stores a tensor in a
            way that cannot be read.
    """
    header = read_gguf_header(path)
    _refuse_other_kinds(header, path)
    tensors = _all_parts(path, header)
    for name, tensor in tensors.items():
        if tensor.storage not in READABLE:
            raise InputError(
                f"tensor {name!r} is stored as {tensor.storage}, which cannot be read here",
                where=tensor.file,
                remedy="Use a file of the same model in F16, Q8_0 or Q4_K_M.",
            )
    return GgufModel(path, header.architecture, header.metadata, tensors)


def part_files(path: Path) -> list[Path]:
    """Return the parts next to a file that is named as one of a split model; else the file alone."""
    found = PART_NAME.fullmatch(path.name)
    if found is None:
        return [path]
    names = [
        _part_name(found["stem"], number, found["count"]) for number in range(1, int(found["count"]) + 1)
    ]
    parts = [path.with_name(name) for name in names]
    return [part for part in parts if part.exists()] or [path]


def _part_name(stem: str, number: int, count: str) -> str:
    return f"{stem}-{number:05d}-of-{count}.gguf"


def _refuse_other_kinds(header: GgufHeader, path: Path) -> None:
    kind = header.metadata.get("general.type")
    if kind in (None, "model"):
        # Files from before `general.type` are told by their keys.
        known = [kind for kind in OTHER_KINDS if any(key.startswith(f"{kind}.") for key in header.metadata)]
        kind = known[0] if known else header.architecture
        if kind not in OTHER_KINDS:
            return
    described, remedy = OTHER_KINDS.get(str(kind), (f"of the type {kind!r}, not a model", "Name a model."))
    raise InputError(f"is {described}", where=path, remedy=remedy)


def _all_parts(path: Path, header: GgufHeader) -> dict[str, GgufTensor]:
    """Return the tensors of a model and of its other parts."""
    count, number = _whole(header, "split.count", path, 1), _whole(header, "split.no", path, 0)
    if count <= 1:
        return dict(header.tensors)
    found = PART_NAME.fullmatch(path.name)
    if found is None or int(found["count"]) != count:
        raise InputError(
            f"is part {number + 1} of {count} of a split model, and its name is not that of a part "
            f"(NAME-{number + 1:05d}-of-{count:05d}.gguf)",
            where=path,
            remedy="Give all parts their names back, or merge them with `llama-gguf-split --merge`.",
        )
    if number != 0:
        first = path.with_name(_part_name(found["stem"], 1, found["count"]))
        raise InputError(
            f"is part {number + 1} of {count} of a split model", where=path, remedy=f"Name the first: {first}"
        )
    tensors = dict(header.tensors)
    for index in range(1, count):
        part = path.with_name(_part_name(found["stem"], index + 1, found["count"]))
        if not part.exists():
            raise InputError(
                f"part {index + 1} of {count} of the model is absent",
                where=part,
                remedy="Copy all parts into one folder.",
            )
        other = read_gguf_header(part)
        if (_whole(other, "split.no", part, -1), _whole(other, "split.count", part, -1)) != (index, count):
            _refuse_parts(f"does not say that it is part {index + 1} of {count}", part)
        for name in sorted(other.tensors.keys() & tensors.keys()):
            _refuse_parts(f"holds the tensor {name!r}, and {tensors[name].file.name} does too", part)
        tensors |= other.tensors
    total = _whole(header, "split.tensors.count", path, len(tensors))
    if total != len(tensors):
        _refuse_parts(f"says that all parts hold {total} tensors, and they hold {len(tensors)}", path)
    return tensors


def _refuse_parts(message: str, where: Path) -> NoReturn:
    raise InputError(message, where=where, remedy="The parts belong to different models; copy them again.")


def _whole(header: GgufHeader, key: str, path: Path, default: int) -> int:
    value = header.metadata.get(key, default)
    if type(value) is not int:
        raise InputError(
            f"{key} is {value!r:.100}; it must be a whole number",
            where=path,
            remedy="The file is damaged; copy or download it again.",
        )
    return value
