"""A new head in the place of an encoder's own, to be taught labels: one that the encoder's family has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import ClassificationHead, LabelHead, TokenClassificationHead
from roots_compress.models.spec import ModelSpec


def labelled(spec: ModelSpec, names: Sequence[str], *, by_token: bool) -> ModelSpec:
    """Return an encoder's specification with a head that gives each text, or each token, one of the labels.

    It is the head of the first family that can express the encoder, so that transformers can load the model.

    Raises:
        ValueError: there are fewer than two labels, or two of one name, or one is blank.
    """
    if len(names) < 2 or len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"{', '.join(map(repr, names)):.80} are not two labels or more that differ")
    kind: type[LabelHead] = TokenClassificationHead if by_token else ClassificationHead
    found = [
        changed(spec, head=kind(labels=len(names), names=tuple(names), **form))
        for form in _forms(spec, by_token)
    ]
    for family in FAMILIES.values():
        for each in found:
            with suppress(InputError, ValueError):
                if family.read_config(Switches(family.write(each), family.model_type)) == each:
                    return each
    return found[0]


def _forms(spec: ModelSpec, by_token: bool) -> Iterator[dict[str, Any]]:
    """Yield the fields of heads that families have, the most common first."""
    yield {}
    if not by_token:
        yield {"activation": "relu"}
        yield {"activation": "gelu"}
    norm = spec.embeddings.norm
    if norm is not None:
        yield {"activation": "gelu", "dense_bias": False, "eps": norm.eps, "norm_bias": norm.bias}
