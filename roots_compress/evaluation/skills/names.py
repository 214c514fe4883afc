"""The names that `--tasks` takes. Nothing here imports torch: a name is refused before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from roots_compress.errors import InputError

OWN = ("cloze", "choice")
"""Checks made of the held-out text."""
EXTRA = 'pip install "roots-compress[skills]"'
WHERE = "--tasks"


def require_known(names: Sequence[str], *, chat: bool = False) -> None:
    """Refuse names that cannot be measured.

    Raises:
        InputError: none is given, or others than our own and lm-eval is not installed; our own, in a chat
            template.
    """
    if not names:
        raise InputError("no task is named", where=WHERE, remedy=f"Name some, such as {','.join(OWN)}.")
    others = [name for name in names if name not in OWN]
    if others and find_spec("lm_eval") is None:
        raise InputError(
            f"unknown task: {', '.join(others):.200}; lm-eval, which has many tasks, is not installed",
            where=WHERE,
            remedy=f"Name {' or '.join(OWN)}, which are made of the held-out text, or install it: {EXTRA}",
        )
    if chat and len(others) < len(names):
        own = " and ".join(name for name in names if name in OWN)
        raise InputError(
            f"{own}: the model continues plain text there, without a chat template",
            where="--chat",
            remedy="Leave it out, or name tasks of lm-eval alone.",
        )
