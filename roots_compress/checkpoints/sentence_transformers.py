"""How a folder of sentence-transformers makes a vector of a text: its modules, in their JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from roots_compress.errors import InputError
from roots_compress.io.json_files import read_json, read_json_object
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import EmbeddingHead, LabelHead, MaskedLmHead
from roots_compress.models.spec import ModelSpec

MODULES: Final = "modules.json"
SETTINGS: Final = tuple(
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "xlm-roberta")
)
"""Where the first module's settings may be."""
PROMPTS: Final = "config_sentence_transformers.json"
"""Where a folder names texts that sentence-transformers puts before others, and one that it always does."""
MEAN, FIRST = "pooling_mode_mean_tokens", "pooling_mode_cls_token"
POOLINGS: Final = {MEAN: "mean", FIRST: "first"}
SUPPORTED = "Supported are a transformer, pooling of the mean or of the first token, and normalising."


def with_pooling(spec: ModelSpec, directory: Path) -> ModelSpec:
    """Return the specification with the pooling and the longest text that a folder's modules name.

    It is as it was where the folder has none, and for a classifier. A masked model's head is not among a
    folder's modules.

    Raises:
        InputError: a module or a way to pool is beyond ROOTS, the model writes text, or a file is damaged.
    """
    path = directory / MODULES
    if isinstance(spec.head, LabelHead) or not path.exists():
        return spec
    if not isinstance(spec.head, EmbeddingHead | MaskedLmHead):
        raise InputError(
            "makes vectors of texts, for which ROOTS takes encoders; this family writes text",
            where=path,
            remedy="To read the model as one that writes text, remove the file from a copy.",
        )
    modules = [_module(entry, path) for entry in _entries(path)]
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"has the modules {', '.join(kinds)[:200] or 'none'}, which ROOTS cannot express",
            where=path,
            remedy=SUPPORTED,
        )
    if folder := modules[0][1]:
        raise InputError(
            f"says that the transformer is in the folder {folder!r}, and not beside this file",
            where=path,
            remedy="Move that folder's files up, and make the path of the first module ''.",
        )
    _refuse_prompt(directory / PROMPTS)
    head = EmbeddingHead(
        pooling=_pooling(directory / modules[1][1] / "config.json"), normalised=len(kinds) == 3
    )
    longest = min(_longest(directory, spec.max_positions), spec.max_positions)
    return changed(spec, head=head, max_positions=longest, tied=True)


def write_modules(spec: ModelSpec, directory: Path) -> None:
    """Write what `with_pooling` reads, for a model that gives vectors; nothing for others."""
    head = spec.head
    if not isinstance(head, EmbeddingHead):
        return
    folders = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, folder) in enumerate(folders.items())
        if kind != "Normalize" or head.normalised
    ]
    pooling = {name: kind == head.pooling for name, kind in POOLINGS.items()}
    (directory / folders["Pooling"]).mkdir()
    for name, document in (
        (MODULES, modules),
        ("1_Pooling/config.json", {"word_embedding_dimension": spec.width, **pooling}),
        (SETTINGS[0], {"max_seq_length": spec.max_positions, "do_lower_case": False}),
    ):
        (directory / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _entries(path: Path) -> list[Any]:
    document = read_json(path)
    if not isinstance(document, list):
        raise InputError("is not a list of modules", where=path, remedy="Copy the file again.")
    return document


def _module(entry: Any, where: Path) -> tuple[str, str]:
    """Return a module's kind and its folder, which must lie in the checkpoint's own."""
    kind, folder = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
    if not isinstance(kind, str) or not isinstance(folder, str) or "/" in folder or folder.startswith("."):
        raise InputError("has a module without a type and a folder", where=where, remedy="Copy it again.")
    # Other types are code that comes with the checkpoint.
    return kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind, folder


def _refuse_prompt(path: Path) -> None:
    """Refuse a prompt that is put before every text, as no graph does; others are for who asks for them."""
    settings = read_json_object(path) if path.exists() else {}
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if name is not None and prompt != "":
        raise InputError(
            f"default_prompt_name is {name!r:.60}, so that {prompt!r:.100} is put before every text, "
            "which ROOTS does not do",
            where=path,
            remedy="Set default_prompt_name to null in a copy, and put the prompt before texts yourself.",
        )


def _pooling(path: Path) -> Any:
    settings = read_json_object(path)
    named = settings.get("pooling_mode")
    if isinstance(named, str):  # It goes before the switches, of which the mean's is on by itself.
        asked = [{"mean": MEAN, "cls": FIRST}.get(named, f"pooling_mode {named!r}")]
    else:
        switches = {MEAN: True, **settings}
        asked = [name for name, value in switches.items() if name.startswith("pooling_mode_") and value]
    if len(asked) != 1 or asked[0] not in POOLINGS:
        raise InputError(
            f"pools by {', '.join(asked)[:200] or 'nothing'}, which ROOTS cannot express",
            where=path,
            remedy=SUPPORTED,
        )
    return POOLINGS[asked[0]]


def _longest(directory: Path, default: int) -> int:
    """Return the longest text that the first module reads, in tokens."""
    path = next((each for name in SETTINGS if (each := directory / name).exists()), None)
    if path is None:
        return default
    settings = read_json_object(path)
    if settings.get("do_lower_case") not in (None, False):
        raise InputError(
            "do_lower_case makes texts lower case first, which ROOTS does not do",
            where=path,
            remedy="If the tokenizer does it anyway, set do_lower_case to false in a copy.",
        )
    longest = settings.get("max_seq_length")
    if longest is None:
        return default
    if type(longest) is not int or longest < 1:
        raise InputError(
            f"max_seq_length is {longest!r:.100}; it must be a whole number of at least 1",
            where=path,
            remedy="Correct it, or copy the file again.",
        )
    return longest
