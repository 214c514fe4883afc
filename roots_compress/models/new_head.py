"""A new head in the place of an encoder's own, to be taught labels."""

from __future__ import annotations

from collections.abc import Sequence

from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import ClassificationHead, TokenClassificationHead
from roots_compress.models.spec import ModelSpec


def labelled(spec: ModelSpec, names: Sequence[str], *, by_token: bool) -> ModelSpec:
    """Return an encoder's specification with a head that gives each text, or each token, one of the labels.

    Raises:
        ValueError: there are fewer than two labels, or two of one name, or one is blank.
    """
    if len(names) < 2 or len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"{', '.join(map(repr, names)):.80} are not two labels or more that differ")
    kind = TokenClassificationHead if by_token else ClassificationHead
    return changed(spec, head=kind(labels=len(names), names=tuple(names)))
