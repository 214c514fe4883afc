"""What pruning cannot do for models that write no text unasked, or that predict nothing."""

from __future__ import annotations

from roots_compress.configs.prune import PruneConfig
from roots_compress.errors import InputError, Key, Text
from roots_compress.models.spec import ModelSpec
from roots_compress.tasks.registry import task_of_spec


def adapted(config: PruneConfig, spec: ModelSpec) -> PruneConfig:
    """Return the settings as a model can follow them: one that writes no text is calibrated on given text.

    Raises:
        InputError: a setting needs decoding, or predictions, which the model does not do.
    """
    task = task_of_spec(spec)
    if task.writes_unasked:
        return config
    if config.target is not None and config.target.decode_ms is not None:
        raise InputError(
            "decode_ms is the time of a token that a decoder without an encoder decodes, and this is none",
            where=Key("target", "decode_ms"),
            remedy=Text("Give ", Key("target", "parameters"), " or ", Key("target", "bytes"), "."),
        )
    if not task.predicts:
        for key, asked in (
            ("layer_ratio", config.layer_ratio > 0),
            ("target", config.target is not None),
            ("uniform", not config.uniform),
            ("score", config.score == "taylor"),
        ):
            if asked:
                raise InputError(
                    f"{key} needs predictions, and the model makes none: it gives vectors or scores",
                    where=Key(key),
                    remedy="Leave it out.",
                )
    return config.model_copy(update={"own_windows": 0})
