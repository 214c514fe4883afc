"""A new head in the place of an encoder's own, to be taught labels: one that the encoder's family has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches
from roots_compress.families.text_encoder import LAST, read_config, written_config
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import ClassificationHead, LabelHead, ScoreHead, TokenClassificationHead
from roots_compress.models.spec import ModelSpec

HEADS: dict[str, type[LabelHead]] = {
    "classification": ClassificationHead,
    "token_classification": TokenClassificationHead,
    "score": ScoreHead,
}


def labelled(spec: ModelSpec, names: Sequence[str], *, kind: str) -> ModelSpec:
    """Return an encoder's specification with a head for labels.

    It is the head of the first family that can express the encoder, so that transformers can load the model.

    Args:
        names: of the labels; of a score, its own alone.

    Raises:
        ValueError: there are fewer than two labels, or for a score other than one; or two have one name, or
            one is blank.
    """
    if kind == "score" and len(names) != 1:
        raise ValueError(f"a score has one label, and there are {len(names)}")
    few = len(names) < 2 and kind != "score"
    if few or len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"{', '.join(map(repr, names)):.80} are not two labels or more that differ")
    found = [
        changed(spec, head=HEADS[kind](labels=len(names), names=tuple(names), **form))
        for form in _forms(spec, kind)
    ]
    for family in FAMILIES.values():
        for each in found:
            with suppress(InputError, ValueError):
                if read_config(family, Switches(written_config(family, each), family.model_type)) == each:
                    return each
    return found[0]


def _forms(spec: ModelSpec, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the fields of heads that families have, the most common first."""
    if kind != "token_classification" and any(each.causal for each in spec.attentions()):
        # Only the last token of such a text has seen all of it.
        yield {name: getattr(LAST, name) for name in ("pooling", "activation", "bias")}
        return
    yield {}
    if kind != "token_classification":
        yield {"activation": "relu"}
        yield {"activation": "gelu"}
    norm = spec.embeddings.norm
    if norm is not None:
        yield {"activation": "gelu", "dense_bias": False, "eps": norm.eps, "norm_bias": norm.bias}
