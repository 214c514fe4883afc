"""The specification of a GGUF model, once each of its tensors and keys is understood. Torch-free."""

from __future__ import annotations

import re
from dataclasses import replace

from roots_compress.errors import InputError
from roots_compress.families.gguf.families import GGUF_FAMILIES
from roots_compress.families.gguf.family import GgufFamily
from roots_compress.families.gguf.metadata import DIRECTORY, GUESSING, POOLING, POOLINGS
from roots_compress.families.text_encoder import as_text_encoder
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.heads import EmbeddingHead, LmHead
from roots_compress.models.spec import ModelSpec

LAYER = re.compile(r"blk\.(\d+)\.")


def without_guesses(model: GgufModel) -> GgufModel:
    """Return a model without the layers of a head that guesses further tokens, which are the last ones."""
    blocks, guessing = (
        model.metadata.get(f"{model.architecture}.{key}") for key in ("block_count", GUESSING)
    )
    if type(blocks) is not int or type(guessing) is not int or guessing < 1:
        return model
    layers = blocks - guessing
    kept = {
        name: tensor
        for name, tensor in model.tensors.items()
        if not (found := LAYER.match(name)) or int(found[1]) < layers
    }
    return replace(model, tensors=kept)


def read_gguf_spec(model: GgufModel) -> ModelSpec:
    """Return the specification that a GGUF model asks for, after placing each of its tensors.

    Raises:
        InputError: a key or a tensor is absent, unknown, impossible or beyond ROOTS; the message names it.
    """
    family = GGUF_FAMILIES[model.architecture]
    spec = _pooled(family.reader.read(model), model)
    _check_tensors(family, model, spec)
    return spec


def _pooled(spec: ModelSpec, model: GgufModel) -> ModelSpec:
    """Return what a decoder's specification is if its file says how states make vectors.

    llama.cpp gives them the length 1, as it does an encoder's.
    """
    key = f"{model.architecture}.{POOLING}"
    number = model.metadata.get(key)
    if not isinstance(spec.head, LmHead) or not isinstance(number, int) or number not in POOLINGS:
        return spec
    try:
        return as_text_encoder(spec, EmbeddingHead(pooling=POOLINGS[number]))
    except ValueError as error:
        raise InputError(
            f"says that its states make vectors ({key}), and the model cannot: {error}",
            where=model.path,
            remedy=DIRECTORY,
        ) from None


def _check_tensors(family: GgufFamily, model: GgufModel, spec: ModelSpec) -> None:
    """Refuse tensors that the model has no place for, and a model that lacks one or has it twice."""
    rules, computed = family.rules(spec), family.layout.computed(spec)
    known = {*rules, *family.ignored}
    known.update(part for each in computed for part in each.sources)
    given: dict[str, str] = {}
    layers = len(spec.layers)
    for name in sorted(model.tensors):
        if name not in known and LAYER.sub("blk.{}.", name) not in family.unread:
            raise InputError(
                f"holds the tensor {name!r}, which no {family.architecture} model of {layers} layers has",
                where=model.tensors[name].file,
                remedy="The model is not of the architecture that the file names, or another version of it. "
                + DIRECTORY,
            )
        for target in rules[name].targets if name in rules else ():
            if target in given:
                raise InputError(
                    f"holds the tensors {given[target]!r} and {name!r}, which have one place in the model",
                    where=model.tensors[name].file,
                    remedy=DIRECTORY,
                )
            given[target] = name
    placed = {*given, *(("lm_head.weight",) if spec.tied else ())}
    for name, rule in rules.items():
        if not placed.issuperset(rule.targets):
            raise _lacks(name, model)
    for each in computed:
        for name in each.sources:
            if name not in model.tensors:
                raise _lacks(name, model)


def _lacks(name: str, model: GgufModel) -> InputError:
    return InputError(
        f"lacks the tensor {name!r}",
        where=model.path,
        remedy="The file is incomplete or damaged; copy or download it again.",
    )
