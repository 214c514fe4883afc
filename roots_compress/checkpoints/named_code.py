"""Python code that the configuration of a checkpoint names. It is never run. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roots_compress.checkpoints.sentence_transformers.settings import MODULES
from roots_compress.errors import InputError
from roots_compress.families.base import Family

CODE_KEY = "auto_map"
"""Under this key a configuration names Python files to be run."""
_ENDINGS = r"_?(LMHeadModel|Model|PreTrainedModel|Config|For[A-Z]\w*)"


def refuse_code(config: Mapping[str, Any], where: Path) -> None:
    """Refuse a file that names Python code.

    Raises:
        InputError: it does. An empty table names none.
    """
    if config.get(CODE_KEY):
        raise InputError(
            f"names Python code to run ({CODE_KEY!r})",
            where=where,
            remedy="Code in checkpoints is never run. If transformers' own class gives the same model, "
            f"remove {CODE_KEY!r} from a copy of the file.",
        )


def has_own_class(config: Mapping[str, Any], family: Family | None, directory: Path) -> bool:
    """Return whether the code is of a decoder that transformers has by now, under the same names.

    The first checkpoints of Phi-3 and of DeepSeek-V3 carry such code, and transformers reads them by its own
    class unless it is told to run theirs. Sentence encoders often change a class and keep its name: Qwen2's
    in gte-Qwen2 attends to both sides.
    """
    code, architectures = config.get(CODE_KEY), config.get("architectures")
    if family is None or not family.writes_text or not isinstance(code, Mapping) or not code:
        return False
    if architectures != [family.architecture] or (directory / MODULES).exists():
        return False
    stem = re.sub(_ENDINGS + "$", "", family.architecture)
    known = re.compile(re.escape(stem) + _ENDINGS)
    return all(isinstance(each, str) and known.fullmatch(each.rpartition(".")[2]) for each in code.values())
