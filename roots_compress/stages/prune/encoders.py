"""What pruning cannot do for a model that does not predict the next token."""

from __future__ import annotations

from roots_compress.configs.prune import PruneConfig
from roots_compress.errors import InputError, Key
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.spec import ModelSpec

NEEDS = {
    "layer_ratio": "judges layers by next-token predictions",
    "residual_ratio": "fits the residual stream to the norms of a decoder",
    "target": "measures costs on next-token predictions",
}
"""Settings that need a model which predicts the next token, and what for."""


def adapted(config: PruneConfig, spec: ModelSpec) -> PruneConfig:
    """Return the settings as a model can follow them: one that predicts no next token writes no text.

    Raises:
        InputError: a setting needs next-token predictions, and the model makes none.
    """
    if isinstance(spec.head, LmHead):
        return config
    asked = [key for key in NEEDS if getattr(config, key)]
    if asked:
        _refuse(asked[0], f"{NEEDS[asked[0]]}, which this model does not make", "Leave it out.")
    if not config.uniform:
        _refuse("uniform", "false measures costs on next-token predictions", "Leave it true.")
    if config.score == "taylor":
        _refuse("score", "taylor takes gradients of next-token predictions", "Use activation or obs.")
    return config.model_copy(update={"own_windows": 0})


def _refuse(key: str, reason: str, remedy: str) -> None:
    raise InputError(f"{key} {reason}", where=Key(key), remedy=remedy)
