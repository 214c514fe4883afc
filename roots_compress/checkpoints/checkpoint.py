"""A ROOTS checkpoint: a model with its tokenizer, in memory and on disk.

All sources are loaded in the same way: names and tensors stream into a model without storage. Every tensor
must have a place, the right shape, and finite values; none may be missing.
"""

from __future__ import annotations

import copy
import errno
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.adapters.merging import adapted
from roots_compress.checkpoints.adopted_ids import adopt_token_ids
from roots_compress.checkpoints.dense import of_vectors
from roots_compress.checkpoints.fitting import fitted_tensor, refuse_tensors
from roots_compress.checkpoints.gguf.tensors import gguf_tensors
from roots_compress.checkpoints.inspect import CONFIG, STORAGE_KEYS, inspect_source
from roots_compress.checkpoints.mxfp4 import whole_tensors
from roots_compress.checkpoints.readback import require_written
from roots_compress.checkpoints.sentence_transformers.settings import MODULES
from roots_compress.checkpoints.source import SourceInfo
from roots_compress.checkpoints.spread import Spread
from roots_compress.checkpoints.tokenizer import (
    check_vocabulary,
    load_tokenizer,
    quiet_transformers,
    save_tokenizer,
)
from roots_compress.checkpoints.weight_files import WEIGHTS
from roots_compress.data.languages import target_frame, translating
from roots_compress.errors import InputError, SourceWarning
from roots_compress.families.new_head import labelled
from roots_compress.families.registry import FAMILIES
from roots_compress.families.rope import OLD_TABLES
from roots_compress.families.tensors import multiplied, to_roots
from roots_compress.families.text_encoder import tensor_rules
from roots_compress.io.atomic import system_errors
from roots_compress.io.names import in_utf8
from roots_compress.io.safetensors_header import TensorEntry
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.heads import EmbeddingHead
from roots_compress.models.version1 import is_version1, renamed

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Checkpoint:
    """A model and the tokenizer it was trained with.

    Its class is that of `models/encoders.py` for the head of its specification.
    """

    model: RootsWithHead
    tokenizer: PreTrainedTokenizerFast


def load_checkpoint(
    source: Path, *, dtype: torch.dtype | None = None, spread: Spread | None = None
) -> Checkpoint:
    """Load a ROOTS directory, a directory of a known family, or a GGUF file; the model is in eval mode.

    Without a dtype, a ROOTS checkpoint's float16 weights keep it, and other float weights become float32.

    Args:
        spread: puts each weight on one of several devices when it is read; None: all in memory.

    Raises:
        InputError: the source is damaged, or not exactly the model that its configuration describes.

    Warns:
        SourceWarning: a directory holds files of weights, or parts of a model, that are not read, or code.
    """
    info = inspect_source(source)
    if info.unread:
        listed = ", ".join(info.unread)
        warnings.warn(
            SourceWarning(f"{source}: not read, as transformers does not read them: {listed}"), stacklevel=2
        )
    if info.left_out:
        parts = ", ".join(info.left_out)
        warnings.warn(SourceWarning(f"{source}: the text model alone is read, without {parts}"), stacklevel=2)
    if info.ignores_code:
        said = f"its Python code is not run: {info.model_type} is read as transformers' own class has it"
        warnings.warn(SourceWarning(f"{source}: {said}"), stacklevel=2)
    with quiet_transformers():
        tokenizer = load_tokenizer(info)
        if info.kind == "roots":
            config, tensors = _roots_config(info), _roots_tensors(info)
        else:
            dtype = dtype or torch.float32
            config, tensors = _imported(info)
        check_vocabulary(tokenizer, config.vocab_size, info.path)
        absent = FAMILIES[info.model_type].absent if info.kind == "transformers" else {}
        model = _assemble(config, tensors, dtype, info.path, absent, spread)
        adopt_token_ids(model, tokenizer, info)
    if spread is not None:
        spread.run(model.eval())
    return Checkpoint(model.eval(), tokenizer)


def without_weights(info: SourceInfo) -> RootsWithHead:
    """Return the model that a checkpoint's configuration describes, its tensors without storage.

    Raises:
        InputError: the configuration describes no model.
    """
    return model_without_weights(_roots_config(info) if info.kind == "roots" else RootsConfig(spec=info.spec))


def model_without_weights(config: RootsConfig) -> RootsWithHead:
    """Return the model of a configuration, in eval mode, its tensors without storage."""
    with torch.device("meta"):
        model: RootsWithHead = make_model(config).eval()
    model.tie_weights()
    return model


def with_label_head(checkpoint: Checkpoint, names: Sequence[str], *, kind: str, seed: int) -> Checkpoint:
    """Return an encoder with the given one's layers and a new head for labels.

    Args:
        checkpoint: an encoder with any head.
        kind: that of the head, as `labelled` takes it.
    """
    config = copy.deepcopy(checkpoint.model.config)
    config.spec = labelled(config.spec, names, kind=kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(config)
    model.model.load_state_dict(checkpoint.model.model.state_dict())
    return Checkpoint(model.eval(), checkpoint.tokenizer)


def with_languages(checkpoint: Checkpoint, source: str, target: str) -> Checkpoint:
    """Return a translation model with a tokenizer for two languages, which begins targets with theirs.

    Raises:
        InputError: as `translating` raises it.
    """
    tokenizer = translating(checkpoint.tokenizer, source, target)
    settings = checkpoint.model.generation_config if checkpoint.model.can_generate() else None
    if settings is not None and (opening := target_frame(tokenizer)[0]):
        settings.forced_bos_token_id = opening[0]
    return Checkpoint(checkpoint.model, tokenizer)


def save_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a checkpoint that `load_checkpoint` and transformers' `from_pretrained` read; tied weights once.

    Raises:
        InputError: the directory exists and is not empty.
        OSError: the disk failed, or changed the weights.
    """
    refuse_occupied(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        try:
            with system_errors(directory / WEIGHTS), in_utf8(directory) as folder:
                checkpoint.model.save_pretrained(folder)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error), str(directory / WEIGHTS)) from error
        save_tokenizer(checkpoint.tokenizer, directory)
    require_written(directory / WEIGHTS, checkpoint.model.state_dict())


def refuse_occupied(directory: Path) -> None:
    """Raise an InputError if writing to a directory could mix with, or overwrite, existing files."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(
            "already holds something", where=directory, remedy="Name a directory that is absent or empty."
        )


def _roots_config(info: SourceInfo) -> RootsConfig:
    fields = {key: info.config[key] for key in info.config.keys() & STORAGE_KEYS}
    where = info.path / CONFIG
    try:
        return RootsConfig(spec=info.spec, **fields)
    except (TypeError, ValueError) as error:
        raise InputError(
            str(error), where=where, remedy="Correct the configuration, or copy the checkpoint again."
        ) from error


def _roots_tensors(info: SourceInfo) -> Iterator[tuple[str, Tensor]]:
    rename = renamed if is_version1(info.config) else str
    for name, entry in info.tensors.items():
        yield rename(name), _read_tensor(name, entry)


def _imported(info: SourceInfo) -> tuple[RootsConfig, Iterator[tuple[str, Tensor]]]:
    """Return another family's configuration and tensors, converted to ROOTS."""
    config, entries = RootsConfig(spec=info.spec), info.tensors
    if info.kind == "gguf":
        return config, _headless(info, gguf_tensors(info))
    family = FAMILIES[info.model_type]
    turns = any(attention.rope is not None for attention in info.spec.attentions())
    names, take = whole_tensors(
        entries, lambda name: _read_tensor(info.stored_as.get(name, name), entries[name]), info.path
    )
    if info.adapter is not None:
        take = adapted(info.adapter, take, _read_tensor)
    tensors = to_roots(
        tensor_rules(family, info.spec),
        names,
        take,
        prefix=family.prefix,
        ignored=(*family.ignored, *(OLD_TABLES if turns else ())),
        apart=family.apart(info.spec),
        copies=family.copies,
        computed=family.computed(info.spec, info.config),
        family=family.model_type,
        where=info.path,
    )
    return config, _headless(info, multiplied(tensors, family.factors(info.config)))


def _headless(info: SourceInfo, tensors: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's tensors; for an embedding model, without a head for the next token."""
    if isinstance(info.spec.head, EmbeddingHead):
        return of_vectors(tensors, info.folder_with(MODULES), _read_tensor)
    return tensors


def _read_tensor(name: str, entry: TensorEntry) -> Tensor:
    with in_utf8(entry.file.parent) as folder, safe_open(folder / entry.file.name, framework="pt") as file:
        # A copy: what safetensors returns is a view of the mapped file, which may change or vanish.
        tensor: Tensor = file.get_tensor(name).clone()
    return tensor


def _assemble(
    config: RootsConfig,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype | None,
    where: Path,
    absent: Mapping[str, Callable[[Sequence[int]], Tensor]],
    spread: Spread | None,
) -> RootsWithHead:
    """Return a model made from exactly these tensors, and replacements for optional absent ones."""
    with torch.device("meta"):
        model = make_model(config)
    expected = model.state_dict()
    state: dict[str, Tensor] = {}
    put = _kept if spread is None else spread.over(model)
    for name, tensor in tensors:
        if name not in expected:
            refuse_tensors(
                f"tensor for {name!r} has no place in the model that the configuration describes", where
            )
        fitted = fitted_tensor(name, tensor, expected[name], dtype, where)
        state[name] = fitted if name in (HEAD, EMBEDDING) else put(name, fitted)
    for name, made in absent.items():
        if name in expected and name not in state:
            state[name] = put(name, made(expected[name].shape).to(dtype))
    head = state.pop(HEAD, None) if config.tie_word_embeddings else None
    if head is not None and EMBEDDING not in state:
        state[EMBEDDING] = head  # If a tensor has two names, some programs store the alphabetically first.
    elif head is not None and not torch.equal(head, state[EMBEDDING]):
        raise InputError(
            "the configuration ties the output head to the embedding, but their tensors differ",
            where=where,
            remedy="Set tie_word_embeddings to false in config.json if the separate head is meant.",
        )
    tied = {HEAD} if config.tie_word_embeddings else set()
    if missing := sorted(expected.keys() - state.keys() - tied):
        refuse_tensors(
            f"lacks {len(missing)} of the model's tensors, the first of them {missing[0]!r}", where
        )
    state |= {name: put(name, state[name]) for name in (HEAD, EMBEDDING) if name in state}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.config.dtype = model.dtype
    return model


def _kept(_name: str, tensor: Tensor) -> Tensor:
    return tensor
