"""Inspects a checkpoint before loading it: its kind, and whether its claims are possible.

Only headers and JSON are read: quick, torch-free, and never the checkpoint's own code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roots_compress.checkpoints.adapters.joined import with_adapter
from roots_compress.checkpoints.adapters.settings import (
    MERGE,
    SETTINGS,
    base_folder,
    is_adapter,
    refuse_other_adapters,
)
from roots_compress.checkpoints.named_code import CODE_KEY, has_own_class, refuse_code
from roots_compress.checkpoints.sentence_transformers.modules import refuse_apart, with_pooling
from roots_compress.checkpoints.source import Kind, SourceInfo
from roots_compress.checkpoints.text_part import is_outer, parts_of, text_config, text_names
from roots_compress.checkpoints.weight_files import (
    COPY_AGAIN,
    INDEX,
    WEIGHTS,
    directory_tensors,
    numbers_in,
    unread_weights,
)
from roots_compress.errors import InputError, did_you_mean
from roots_compress.families.gguf.families import GGUF_FAMILIES
from roots_compress.families.gguf.spec import read_gguf_spec, without_guesses
from roots_compress.families.refused import FROM_FOLDERS, refusal
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches
from roots_compress.families.text_encoder import read_config
from roots_compress.io.gguf_file import read_gguf
from roots_compress.io.hub_cache import FETCH
from roots_compress.io.json_files import read_errors, read_json_object
from roots_compress.models.ops.heads import LabelHead
from roots_compress.models.spec import ModelSpec
from roots_compress.models.version1 import KEYS, SPEC_KEYS, read_spec

ROOTS = "roots"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
OLD_VOCABULARIES = (
    "vocab.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model", "source.spm", "target.spm",
)  # fmt: skip
"""Files from which a family's class makes its tokenizer where there is no tokenizer.json."""
TOKENIZER_FILES = (TOKENIZER, "tokenizer.model", "vocab.json", *OLD_VOCABULARIES)

STORAGE_KEYS = frozenset(
    (
        "version", "quantization", "initializer_range", "use_cache", "pad_token_id", "bos_token_id",
        "eos_token_id",
    )
)  # fmt: skip
"""Keys of a ROOTS config.json besides those that describe the model."""
ROOTS_KEYS = STORAGE_KEYS | SPEC_KEYS | KEYS
BOOKKEEPING = frozenset({"architectures", "model_type", "transformers_version", "dtype"})
"""Keys that transformers itself writes into every config.json."""


def inspect_source(source: Path) -> SourceInfo:
    """Return the facts about a checkpoint: a ROOTS directory, another family's, an adapter's, or a GGUF file.

    Raises:
        InputError: it is none of these, is damaged, could run code, or holds a model ROOTS cannot express.
    """
    with read_errors(source):
        is_directory = source.is_dir()
        if not is_directory and not source.exists():
            raise InputError("no such file", where=source, remedy=f"Check the path. {FETCH}")
    if not is_directory:
        return _inspect_gguf(source)
    refuse_other_adapters(source)
    if not is_adapter(source):
        return _inspect_directory(source)
    base = base_folder(source, (WEIGHTS, INDEX))
    if base != source:
        refuse_other_adapters(base)
        if is_adapter(base):
            raise InputError(
                f"is of an adapter whose base {base} has an adapter too",
                where=source / SETTINGS,
                remedy=MERGE,
            )
    has_tokenizer = any((source / name).exists() for name in TOKENIZER_FILES)
    return with_adapter(_inspect_directory(base, tokenizer=source if has_tokenizer else base), source)


def _inspect_directory(directory: Path, *, tokenizer: Path | None = None) -> SourceInfo:
    config_path = directory / CONFIG
    if not config_path.exists():
        refuse_apart(directory)
        ggufs = sorted(directory.glob("*.gguf"))
        wanted: str | Path = "the directory that holds config.json and model.safetensors, or a GGUF file"
        wanted = ggufs[0] if ggufs else wanted
        stages = sorted(directory.glob(f"[!.]*/checkpoint/{CONFIG}"))
        within = [*directory.glob(f"checkpoint/{CONFIG}"), *stages] or _others_within(directory)
        raise InputError(
            f"is a directory without {CONFIG}",
            where=directory,
            remedy=f"Name {_advised(within) if within else wanted}.",
        )
    config = read_json_object(config_path)
    ignores_code = has_own_class(config, FAMILIES.get(str(config.get("model_type"))), directory)
    if ignores_code:
        config = {key: value for key, value in config.items() if key != CODE_KEY}
    refuse_code(config, config_path)
    is_nested = is_outer(config)
    config = text_config(config, config_path) if is_nested else config
    model_type = _model_type(config, config_path)
    if model_type != ROOTS:
        spec = read_config(FAMILIES[model_type], Switches(config, config_path))
        spec = with_pooling(spec, directory)
    elif unknown := sorted(config.keys() - ROOTS_KEYS - BOOKKEEPING):
        raise InputError(
            f"has keys that no ROOTS model knows: {', '.join(unknown)[:200]}",
            where=config_path,
            remedy="Remove the keys, or use the version of roots-compress that wrote the file.",
        )
    else:
        spec = _roots_spec(config, config_path)
    stored = directory_tensors(directory)
    names = text_names(stored) if is_nested else {name: name for name in stored}
    tensors = {name: stored[theirs] for theirs, name in names.items()}
    _check_tokenizer_files(tokenizer or directory)
    kind: Kind = "roots" if model_type == ROOTS else "transformers"
    parameters = numbers_in(tensors)
    _check_extent(spec, len(tensors), parameters, config_path)
    return SourceInfo(
        directory,
        kind,
        model_type,
        parameters,
        config,
        spec,
        tensors,
        unread=unread_weights(directory, stored),
        stored_as={name: theirs for theirs, name in names.items() if name != theirs},
        left_out=tuple(parts_of(stored.keys() - names.keys())),
        ignores_code=ignores_code,
    )


def _advised(configs: Sequence[Path]) -> Path:
    """Return the last of these checkpoints (of a run) that a stage can still change, if any."""
    return ([config for config in configs if _is_changeable(config)] or configs)[-1].parent


def _is_changeable(config: Path) -> bool:
    """Return whether a checkpoint is not quantized; one with a damaged configuration counts as such."""
    try:
        return not read_json_object(config).get("quantization")
    except InputError:
        return False


def _others_within(directory: Path) -> list[Path]:
    """Return the configurations of checkpoints that other programs keep in a folder: Trainer, and the hub."""
    names = (f"{folder}/{file}" for folder in ("[!.]*", "snapshots/*") for file in (CONFIG, SETTINGS))
    found = [path for name in names for path in directory.glob(name)]
    return sorted((path for path in found if any(path.parent.glob("*.safetensors"))), key=_by_number)


def _by_number(path: Path) -> tuple[int, str]:
    """Order `checkpoint-1000` after `checkpoint-500`."""
    return len(path.parent.name), path.parent.name


def _inspect_gguf(path: Path) -> SourceInfo:
    model = without_guesses(read_gguf(path))
    if model.architecture not in GGUF_FAMILIES:
        raise InputError(
            f"has the GGUF architecture {model.architecture!r}, not one of {', '.join(GGUF_FAMILIES)}"
            + (refusal(model.architecture) or did_you_mean(model.architecture, list(GGUF_FAMILIES))),
            where=path,
            remedy="Use the model's Hugging Face directory, from which its family is read."
            if model.architecture in FROM_FOLDERS
            else "Take a model of an architecture that is read, or the model's Hugging Face directory if its "
            "family is.",
        )
    spec = read_gguf_spec(model)
    parameters = sum(math.prod(tensor.shape) for tensor in model.tensors.values())
    _check_extent(spec, len(model.tensors), parameters, path)
    return SourceInfo(
        path, "gguf", model.architecture, parameters, model.metadata, spec, {}, gguf=model.tensors
    )


def _roots_spec(config: Mapping[str, Any], where: Path) -> ModelSpec:
    try:
        return read_spec(config)
    except ValueError as error:
        raise InputError(
            str(error), where=where, remedy="Correct the configuration, or copy the checkpoint again."
        ) from None


def _check_extent(spec: ModelSpec, tensors: int, parameters: int, where: Path) -> None:
    """Refuse more or wider layers than the weights can contain, before a model is built."""
    if len(spec.layers) > tensors:
        raise InputError(
            f"has {len(spec.layers)} layers, and the weights only {tensors} tensors",
            where=where,
            remedy=COPY_AGAIN,
        )
    if isinstance(spec.head, LabelHead) and spec.head.labels > parameters:
        raise InputError(
            f"has {spec.head.labels} labels, and the weights hold only {parameters} numbers",
            where=where,
            remedy=COPY_AGAIN,
        )
    for name, matrix in spec.matrices().items():
        width = max(matrix.rows, matrix.width)
        if width > parameters:
            raise InputError(
                f"{name} would be {_shown(width)} wide, and the weights hold only {parameters} numbers",
                where=where,
                remedy=COPY_AGAIN,
            )


def _shown(number: int) -> str:
    """Return a number, or its size where it is longer than Python prints."""
    return str(number) if number.bit_length() < 128 else f"a number of {number.bit_length()} bits"


def _model_type(config: Mapping[str, Any], where: Path) -> str:
    model_type, known = config.get("model_type"), [ROOTS, *FAMILIES]
    if not isinstance(model_type, str):
        raise InputError(
            "does not name its model_type", where=where, remedy=f"Set it to one of {', '.join(known)}."
        )
    if model_type not in known:
        raise InputError(
            f"model_type {model_type!r} is not supported"
            + (refusal(model_type) or did_you_mean(model_type, known)),
            where=where,
            remedy=f"Take a model of one of {', '.join(known)}; docs/how/extending.md says how a family is "
            "added.",
        )
    return model_type


def _check_tokenizer_files(directory: Path) -> None:
    if not any((directory / name).exists() for name in TOKENIZER_FILES):
        raise InputError(
            f"has no tokenizer ({', '.join(TOKENIZER_FILES)})",
            where=directory,
            remedy="Copy the model's tokenizer files there as well.",
        )
    for name in (TOKENIZER, "tokenizer_config.json"):
        if (directory / name).exists():
            refuse_code(read_json_object(directory / name), directory / name)
