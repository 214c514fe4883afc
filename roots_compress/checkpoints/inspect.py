"""Looking at a checkpoint before loading it: what it is, and whether it can be what it claims.

Everything here reads headers and JSON only: quick, torch-free, and never code of the checkpoint's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from roots_compress.checkpoints.weight_files import (
    COPY_AGAIN,
    directory_tensors,
    refuse_adapters,
    unread_weights,
)
from roots_compress.errors import InputError, did_you_mean
from roots_compress.families.families import FAMILIES, Fields, read_fields
from roots_compress.families.gguf.families import GGUF_FAMILIES, read_gguf_fields
from roots_compress.families.switches import Switches
from roots_compress.io.gguf_file import read_gguf
from roots_compress.io.gguf_header import GgufTensor
from roots_compress.io.json_files import read_json_object
from roots_compress.io.safetensors_header import TensorEntry
from roots_compress.models.limits import Limits, is_fusible

ROOTS = "roots"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer.model", "vocab.json")
CODE_KEY = "auto_map"
"""Under this key a configuration names Python files to be run."""

ROOTS_KEYS = frozenset(
    (
        "vocab_size", "hidden_size", "max_position_embeddings", "layers", "norm", "norm_eps", "position",
        "rope_parameters", "activation", "gated_mlp", "attention_bias", "attention_output_bias", "mlp_bias",
        "qk_norm", "attention_scale", "embedding_scale", "logit_scale", "tie_word_embeddings", "attention",
        "quantization", "initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id",
    )
)  # fmt: skip
"""Keys of a ROOTS config.json: the fields that `RootsConfig` itself declares, which needs transformers."""
BOOKKEEPING = frozenset({"architectures", "model_type", "transformers_version", "dtype"})
"""Keys that transformers itself writes into every config.json."""

Kind = Literal["roots", "transformers", "gguf"]


FLOAT_BYTES = 4
"""Of a weight once it is imported."""


@dataclass(frozen=True)
class SourceInfo:
    """A checkpoint that can be loaded, so far as its headers tell."""

    path: Path
    kind: Kind
    model_type: str
    parameters: int
    """Numbers in all its tensors."""
    config: Mapping[str, Any]
    """config.json; for GGUF the metadata."""
    fields: Fields | None
    """Fields of `RootsConfig`, of a directory of another family and of a GGUF model."""
    tensors: Mapping[str, TensorEntry]
    """Every tensor of a directory; empty for GGUF."""
    gguf: Mapping[str, GgufTensor] = field(default_factory=dict)
    """Every tensor of a GGUF model; empty for a directory."""
    unread: tuple[str, ...] = ()
    """Names of other files of weights in a directory, which transformers does not read either."""

    @property
    def stored_bytes(self) -> int:
        """About how many bytes its weights take as a ROOTS checkpoint, or as a graph."""
        if self.kind == "roots":
            return sum(entry.end - entry.start for entry in self.tensors.values())
        return FLOAT_BYTES * self.parameters

    @property
    def quantized(self) -> bool:
        """Whether its weights are integers, which no stage can change. GGUF weights are dequantized."""
        return self.kind == "roots" and bool(self.config.get("quantization"))

    @property
    def limits(self) -> Limits:
        """What bounds the use of the model."""
        return Limits(self._number("max_position_embeddings"), self._fusible())

    @property
    def vocab_size(self) -> int | None:
        """Rows of the embedding; None where the files do not say it as they should."""
        return self._number("vocab_size")

    def _number(self, name: str) -> int | None:
        value = (self.fields or self.config).get(name)
        return value if type(value) is int else None

    def _fusible(self) -> bool | None:
        fields = {"position": "rotary", "attention": {"kind": "dense"}, **(self.fields or self.config)}
        try:
            head_dims = [layer["head_dim"] for layer in fields["layers"]]
            return is_fusible(fields["position"], fields["attention"]["kind"], head_dims)
        except (KeyError, TypeError):
            return None  # Loading the model will say what is wrong with its configuration.


def inspect_source(source: Path) -> SourceInfo:
    """Return what a checkpoint is: a ROOTS directory, another family's directory, or a GGUF file.

    Raises:
        InputError: it is none of these, is damaged, could run code, or holds a model ROOTS cannot express.
    """
    try:
        is_directory = source.is_dir()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=source) from None
    return _inspect_directory(source) if is_directory else _inspect_gguf(source)


def _inspect_directory(directory: Path) -> SourceInfo:
    refuse_adapters(directory)
    config_path = directory / CONFIG
    if not config_path.exists():
        ggufs = sorted(directory.glob("*.gguf"))
        wanted: str | Path = "the directory that holds config.json and model.safetensors, or a GGUF file"
        wanted = ggufs[0] if ggufs else wanted
        stages = sorted(directory.glob(f"[!.]*/checkpoint/{CONFIG}"))
        within = [*directory.glob(f"checkpoint/{CONFIG}"), *stages]
        raise InputError(
            f"is a directory without {CONFIG}",
            where=directory,
            remedy=f"Name {_advised(within) if within else wanted}.",
        )
    config = read_json_object(config_path)
    _refuse_code(config, config_path)
    model_type = _model_type(config, config_path)
    fields = None
    if model_type != ROOTS:
        fields = read_fields(FAMILIES[model_type], Switches(config, config_path))
    elif unknown := sorted(config.keys() - ROOTS_KEYS - BOOKKEEPING):
        raise InputError(
            f"has keys that no ROOTS model knows: {', '.join(unknown)[:200]}",
            where=config_path,
            remedy="Was it edited by hand, or written by a newer version?",
        )
    tensors = directory_tensors(directory)
    _check_tokenizer_files(directory)
    kind: Kind = "roots" if model_type == ROOTS else "transformers"
    parameters = sum(math.prod(entry.shape) for entry in tensors.values())
    _check_extent(fields or config, len(tensors), parameters, config_path)
    unread = unread_weights(directory, tensors)
    return SourceInfo(directory, kind, model_type, parameters, config, fields, tensors, unread=unread)


def _advised(configs: Sequence[Path]) -> Path:
    """Return the last of these checkpoints, as of a run, that a stage can still change, if any can."""
    changeable = [config for config in configs if not read_json_object(config).get("quantization")]
    return (changeable or configs)[-1].parent


def _inspect_gguf(path: Path) -> SourceInfo:
    model = read_gguf(path)
    if model.architecture not in GGUF_FAMILIES:
        raise InputError(
            f"has the GGUF architecture {model.architecture!r}, not one of {', '.join(GGUF_FAMILIES)}"
            + did_you_mean(model.architecture, list(GGUF_FAMILIES)),
            where=path,
            remedy="Use the model's Hugging Face directory if its family is supported.",
        )
    fields = read_gguf_fields(model)
    parameters = sum(math.prod(tensor.shape) for tensor in model.tensors.values())
    _check_extent(fields, len(model.tensors), parameters, path)
    return SourceInfo(
        path, "gguf", model.architecture, parameters, model.metadata, fields, {}, gguf=model.tensors
    )


def _check_extent(fields: Mapping[str, Any], tensors: int, parameters: int, where: Path) -> None:
    """Refuse more layers or wider ones than the weights can be of, before a model is built of them."""
    layers = fields.get("layers")
    layers = layers if isinstance(layers, list) else []
    if len(layers) > tensors:
        raise InputError(
            f"has {len(layers)} layers, and the weights only {tensors} tensors",
            where=where,
            remedy=COPY_AGAIN,
        )
    widths = {name: fields.get(name) for name in ("vocab_size", "hidden_size")}
    for index, layer in enumerate(layers):
        if isinstance(layer, dict):
            sizes = {name: size for name, size in layer.items() if name != "sliding_window"}
            widths |= {f"layers[{index}].{name}": size for name, size in sizes.items()}
    for name, width in widths.items():
        if type(width) is int and width > parameters:
            raise InputError(
                f"{name} is {_shown(width)}, and the weights hold only {parameters} numbers",
                where=where,
                remedy=COPY_AGAIN,
            )


def _shown(number: int) -> str:
    """Return a number, or its size where it is longer than Python prints."""
    return str(number) if number.bit_length() < 128 else f"a number of {number.bit_length()} bits"


def _refuse_code(config: Mapping[str, Any], where: Path) -> None:
    # An empty table names no code.
    if config.get(CODE_KEY):
        raise InputError(
            f"names Python code to run ({CODE_KEY!r})",
            where=where,
            remedy="Code in checkpoints is never run. Use a version of the model without it.",
        )


def _model_type(config: Mapping[str, Any], where: Path) -> str:
    model_type, known = config.get("model_type"), [ROOTS, *FAMILIES]
    if not isinstance(model_type, str):
        raise InputError("does not name its model_type", where=where, remedy=f"Known are {', '.join(known)}.")
    if model_type not in known:
        raise InputError(
            f"model_type {model_type!r} is not supported{did_you_mean(model_type, known)}",
            where=where,
            remedy=f"Supported are {', '.join(known)}.",
        )
    return model_type


def _check_tokenizer_files(directory: Path) -> None:
    if not any((directory / name).exists() for name in TOKENIZER_FILES):
        raise InputError(
            f"has no tokenizer ({', '.join(TOKENIZER_FILES)})",
            where=directory,
            remedy="Copy the model's tokenizer files there as well.",
        )
    for name in (TOKENIZER, "tokenizer_config.json"):
        if (directory / name).exists():
            _refuse_code(read_json_object(directory / name), directory / name)
