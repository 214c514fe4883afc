"""What a folder of sentence-transformers says beside its modules: of texts, prompts and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from roots_compress.errors import InputError
from roots_compress.families.encoder_head import IDENTITY, SIGMOID
from roots_compress.io.json_files import read_json_object
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import ScoreHead
from roots_compress.models.spec import ModelSpec

MODULES: Final = "modules.json"
SETTINGS: Final = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where the first module's settings may be."""
UNREAD: Final = ("processing_kwargs", "processor_kwargs", "tokenizer_args", "config_kwargs", "config_args")
"""Settings of the first module that may change how texts are read, and that ROOTS does not read."""
PROMPTS: Final = "config_sentence_transformers.json"
"""Where a folder names texts that sentence-transformers puts before others, and one that it always does."""


def makes_lower_case(directory: Path) -> bool:
    """Return whether a folder's first module makes texts lower case before it cuts them.

    Raises:
        InputError: the module's settings are damaged.
    """
    return (directory / MODULES).exists() and _settings(directory)[0].get("do_lower_case") is True


def as_reranker(spec: ModelSpec, directory: Path) -> ModelSpec:
    """Return the specification of a model with labels, by the settings that a reranker's folder may have."""
    refuse_prompt(directory)
    head, path = spec.head, directory / PROMPTS
    shown = _read(path).get("activation_fn")
    if shown is not None and isinstance(head, ScoreHead):
        if shown not in (SIGMOID, IDENTITY):
            raise InputError(
                f"activation_fn is {shown!r:.100}; supported are {SIGMOID} and {IDENTITY}",
                where=path,
                remedy="Set it to one of them in a copy: scores are given before it.",
            )
        head = changed(head, sigmoid=shown == SIGMOID)
    longest = spec.max_positions
    if (directory / MODULES).exists():
        longest = longest_text(directory, longest)
    return changed(spec, head=head, max_positions=longest)


def _read(path: Path) -> dict[str, Any]:
    """Return what a file says that may be absent."""
    return read_json_object(path) if path.exists() else {}


def refuse_prompt(directory: Path) -> None:
    """Refuse a prompt that is put before every text, as no graph does; others are for who asks for them."""
    path = directory / PROMPTS
    settings = _read(path)
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if name is not None and prompt != "":
        raise InputError(
            f"default_prompt_name is {name!r:.60}, so that {prompt!r:.100} is put before every text, "
            "which ROOTS does not do",
            where=path,
            remedy="Set default_prompt_name to null in a copy, and put the prompt before texts yourself.",
        )


def _settings(directory: Path) -> tuple[dict[str, Any], Path]:
    """Return the first module's settings, and their file."""
    paths = [directory / name for name in SETTINGS]
    path = next((each for each in paths if each.exists()), paths[0])
    return _read(path), path


def longest_text(directory: Path, positions: int) -> int:
    """Return the longest text that the first module reads, in tokens, of a model with so many positions.

    Where its settings do not say it, as in the files of sentence-transformers 6, the tokenizer's do.
    """
    settings, path = _settings(directory)
    if unread := [key for key in UNREAD if _without_trust(settings.get(key))]:
        raise InputError(
            f"{unread[0]} is {settings[unread[0]]!r:.100}, which ROOTS does not read",
            where=path,
            remedy="Take it out of a copy if it changes nothing of how texts are read.",
        )
    longest = settings.get("max_seq_length")
    if longest is None:
        told = _read(directory / "tokenizer_config.json").get("model_max_length")
        return int(min(told, positions)) if isinstance(told, int | float) and told >= 1 else positions
    if type(longest) is not int or longest < 1:
        raise InputError(
            f"max_seq_length is {longest!r:.100}; it must be a whole number of at least 1",
            where=path,
            remedy="Correct it, or copy the file again.",
        )
    return min(longest, positions)


def _without_trust(said: Any) -> Any:
    """Return arguments but for the one by which code would be run, which sentence-transformers drops too."""
    return {key: said[key] for key in said if key != "trust_remote_code"} if isinstance(said, dict) else said
