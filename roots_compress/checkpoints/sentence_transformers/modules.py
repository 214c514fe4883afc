"""How a folder of sentence-transformers makes a vector of a text: its modules, in their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from roots_compress.checkpoints.sentence_transformers.settings import (
    MODULES,
    SETTINGS,
    as_reranker,
    longest_text,
    refuse_prompt,
)
from roots_compress.checkpoints.weight_files import WEIGHTS
from roots_compress.errors import InputError
from roots_compress.families.text_encoder import as_text_encoder
from roots_compress.io.json_files import read_json, read_json_object
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import (
    EmbeddingHead,
    LabelHead,
    LmHead,
    Pooling,
    Seq2SeqHead,
)
from roots_compress.models.spec import ModelSpec

MEAN, FIRST, LAST = (f"pooling_mode_{name}" for name in ("mean_tokens", "cls_token", "lasttoken"))
POOLINGS: Final[dict[str, Pooling]] = {MEAN: "mean", FIRST: "first", LAST: "last"}
NAMED: Final = {"mean": MEAN, "cls": FIRST, "lasttoken": LAST}
SUPPORTED = (
    "Supported are a transformer, pooling of the mean, the first or the last token, dense layers, linear but "
    "for the last, and normalising."
)
ACTIVATIONS: Final[dict[str, Literal["tanh"] | None]] = {
    "torch.nn.modules.linear.Identity": None,
    "torch.nn.modules.activation.Tanh": "tanh",
}
"""Of a dense layer, by its class; sentence-transformers takes the last where none is named."""
OUTPUT: Final = "sentence_embedding"
"""What a dense layer reads and gives, in sentence-transformers."""
DENSE_KEYS: Final = frozenset({"in_features", "out_features", "bias", "activation_function"})


def with_pooling(spec: ModelSpec, directory: Path) -> ModelSpec:
    """Return the specification with the pooling and the longest text that a folder's modules name.

    It is as it was where the folder has none. A masked model's head is not among a folder's modules. Of a
    model with labels the settings of a reranker are read, such as what is shown of its score.

    Raises:
        InputError: a module or a way to pool is beyond ROOTS, the layers are for writing text alone, or a
            file is damaged.
    """
    path = directory / MODULES
    refuse_apart(directory.absolute().parent, directory.absolute().name)
    if isinstance(spec.head, LabelHead):
        return as_reranker(spec, directory)
    if not path.exists():
        return spec
    modules = [_module(entry, path) for entry in _entries(path)]
    kinds = [kind for kind, _ in modules]
    normalised = kinds[-1:] == ["Normalize"]
    dense = kinds[2 : len(kinds) - normalised]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in dense):
        raise InputError(
            f"has the modules {', '.join(kinds)[:200] or 'none'}, which ROOTS cannot express",
            where=path,
            remedy=SUPPORTED,
        )
    refuse_apart(directory)
    refuse_prompt(directory)
    head = EmbeddingHead(
        pooling=_pooling(directory / modules[1][1] / "config.json"),
        normalised=normalised,
        **_dense([directory / folder for kind, folder in modules if kind == "Dense"], spec.width),
    )
    return changed(_with_head(spec, head, path), max_positions=longest_text(directory, spec.max_positions))


def refuse_apart(directory: Path, folder: str | None = None) -> None:
    """Refuse a checkpoint whose transformer module is in a subfolder. Old versions wrote it so.

    Args:
        directory: the checkpoint. It passes if it has no file of modules.
        folder: refuse only if the transformer is in this subfolder.

    Raises:
        InputError: the transformer is in a subfolder, or the file of modules is damaged.
    """
    path = directory / MODULES
    try:
        modules = [_module(entry, path) for entry in _entries(path)] if path.exists() else []
    except InputError:
        if folder is not None:
            return  # The file of another folder may be of another kind.
        raise
    if modules and (apart := modules[0][1]) and folder in (None, apart):
        raise InputError(
            f"says that the transformer is in the folder {apart!r}, and not beside this file",
            where=path,
            remedy="Move that folder's files up, and make the path of the first module ''.",
        )


def dense_folders(directory: Path) -> list[Path]:
    """Return the folders of the dense layers that `with_pooling` has found."""
    path = directory / MODULES
    if not path.exists():
        return []
    modules = (_module(entry, path) for entry in _entries(path))
    return [directory / folder for kind, folder in modules if kind == "Dense"]


def _dense(folders: list[Path], width: int) -> dict[str, Any]:
    """Return what an `EmbeddingHead` says of dense layers in a row; all but the last must be linear."""
    head: dict[str, Any] = {}
    for folder in folders:
        if head.get("activation") is not None:
            raise InputError("reads what a layer with an activation gives", where=folder, remedy=SUPPORTED)
        outputs, bias, activation = _dense_layer(folder, head.get("outputs", width))
        biased = bias or head.get("dense_bias", False)
        head = {"outputs": outputs, "dense_bias": biased, "activation": activation}
    return head


def _dense_layer(folder: Path, width: int) -> tuple[int, bool, Literal["tanh"] | None]:
    """Return the channels of a dense layer, whether it has a bias, and its activation."""
    path = folder / "config.json"
    settings = read_json_object(path)
    others = {name: value for name, value in settings.items() if name not in DENSE_KEYS}
    if unknown := sorted(name for name, value in others.items() if value not in (None, OUTPUT)):
        message = f"has keys that are not known: {', '.join(unknown)[:200]}"
        raise InputError(message, where=path, remedy=SUPPORTED)
    given, outputs, bias = (settings.get(key) for key in ("in_features", "out_features", "bias"))
    bias = True if bias is None else bias
    if type(given) is not int or type(outputs) is not int or outputs < 1 or not isinstance(bias, bool):
        message = "must have numbers as in_features and out_features, and true or false as bias"
        raise InputError(message, where=path, remedy="Copy the folder again.")
    if given != width:
        message = f"has in_features {given}, and the layer before gives {width} channels"
        raise InputError(message, where=path, remedy="Copy the folder again.")
    named = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(named, str) or named not in ACTIVATIONS:
        message = f"has the activation_function {named!r:.100}"
        raise InputError(message, where=path, remedy=f"Supported are {', '.join(ACTIVATIONS)}.")
    if not (folder / WEIGHTS).exists():
        raise InputError(
            f"lacks {WEIGHTS}",
            where=folder,
            remedy="Pickles (pytorch_model.bin) can run code and are never read. Where you trust the source, "
            "load the model with sentence-transformers and save it, which writes safetensors.",
        )
    return outputs, bias, ACTIVATIONS[named]


def _with_head(spec: ModelSpec, head: EmbeddingHead, where: Path) -> ModelSpec:
    """Return the specification of a model whose states make vectors."""
    if not isinstance(spec.head, LmHead | Seq2SeqHead):
        return changed(spec, head=head, tied=True)
    if spec.source is not None and spec.is_endless:  # Of T5's shape sentence-transformers takes the encoder.
        return changed(spec, stacks={"encoder": spec.source}, head=head, tied=True)
    try:
        if isinstance(spec.head, Seq2SeqHead):
            raise ValueError("an encoder before a decoder is for models that write text")
        return as_text_encoder(spec, head)
    except ValueError as error:
        raise InputError(
            f"makes vectors of texts, and the model cannot: {error}",
            where=where,
            remedy="To read the model as one that writes text, remove the file from a copy.",
        ) from None


def write_modules(spec: ModelSpec, directory: Path) -> None:
    """Write what `with_pooling` reads of a model that gives vectors, or labels of shorter texts than it may.

    Nothing is written of others.
    """
    head = spec.head
    longest = {"max_seq_length": spec.max_positions, "do_lower_case": False}
    if isinstance(head, LabelHead) and spec.max_positions < (spec.embeddings.positions or 0):
        module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
        task = {"transformer_task": "sequence-classification"}
        _write({MODULES: [module], SETTINGS[0]: {**longest, **task}}, directory)
    if not isinstance(head, EmbeddingHead):
        return
    folders = {"Transformer": "", "Pooling": "1_Pooling"}
    folders |= {"Dense": "2_Dense"} if head.outputs is not None else {}
    folders |= {"Normalize": f"{len(folders)}_Normalize"} if head.normalised else {}
    modules = [
        {"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, folder) in enumerate(folders.items())
    ]
    pooling = {name: kind == head.pooling for name, kind in POOLINGS.items()}
    documents: dict[str, Any] = {
        MODULES: modules,
        "1_Pooling/config.json": {"word_embedding_dimension": spec.width, **pooling},
        SETTINGS[0]: longest,
    }
    if head.outputs is not None:
        classes = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
        documents["2_Dense/config.json"] = {
            "in_features": spec.width,
            "out_features": head.outputs,
            "bias": head.dense_bias,
            "activation_function": classes[head.activation],
        }
    _write(documents, directory)


def _write(documents: Mapping[str, Any], directory: Path) -> None:
    """Write JSON files by their names."""
    for name, document in documents.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


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


def _pooling(path: Path) -> Pooling:
    settings = read_json_object(path)
    named = settings.get("pooling_mode")
    if named is not None:  # It goes before the switches, of which the mean's is on by itself.
        several = named if isinstance(named, list) else [named]
        asked = [NAMED.get(str(each), f"pooling_mode {each!r}") for each in several]
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
