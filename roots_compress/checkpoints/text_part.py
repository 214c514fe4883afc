"""The text model within a checkpoint that reads images too.

Its configuration lies in `text_config`, and its tensors among those of the other parts, which are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from roots_compress.errors import InputError

OUTER = frozenset({"gemma3", "gemma4", "llava", "mistral3", "qwen3_5", "qwen3_5_moe"})
"""`model_type` of models whose text model works alone as it does inside them."""
OF_TEXT = re.compile(r"^(?:model\.language_model\.|language_model\.(?=model\.|lm_head\.))")
"""Prefixes of the text model's names, since and before transformers 5."""
TIE = "tie_word_embeddings"
OWN_KEYS = (TIE, "bos_token_id", "eos_token_id", "pad_token_id")
"""Keys of the whole model that override the text model's."""
TIED_BY_EITHER = frozenset({"llava"})
"""`model_type` of whole models that are tied if their text model is, whatever their own key says."""


def is_outer(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of a model that contains a text model."""
    return config.get("model_type") in OUTER and isinstance(config.get("text_config"), dict)


def text_config(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Return the text model's configuration, completed as transformers completes it.

    Published files leave out defaults of the family's class.

    Raises:
        InputError: the class refuses it.
    """
    from transformers import AutoConfig

    given = dict(config["text_config"])
    model_type = str(given.pop("model_type", ""))
    try:
        completed: dict[str, Any] = AutoConfig.for_model(model_type, **given).to_dict()
    except Exception as error:  # transformers' classes refuse with errors of many kinds.
        raise InputError(
            f"text_config is none of the family {model_type!r:.60}: {' '.join(str(error).split())[:300]}",
            where=where,
            remedy="Copy the checkpoint again, or correct its text_config.",
        ) from None
    own = {key: config[key] for key in OWN_KEYS if config.get(key) is not None}
    if config["model_type"] in TIED_BY_EITHER and completed.get(TIE):
        own[TIE] = True
    return {**completed, **own, "model_type": model_type}


def text_names(names: Iterable[str]) -> dict[str, str]:
    """Return the text model's names of its tensors, by the names in the files."""
    found = {}
    for name in names:
        bare, count = OF_TEXT.subn("", name)
        if count or name.startswith("lm_head."):
            is_inner = name.startswith("model.language_model.")
            found[name] = f"model.{bare}" if is_inner else bare
    return found


def parts_of(names: Iterable[str]) -> list[str]:
    """Return the parts of tensors, such as `vision_tower`."""
    return sorted({name.removeprefix("model.").partition(".")[0] for name in names})
