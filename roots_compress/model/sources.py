"""Looking at a checkpoint before loading it: what it is, and whether it can be what it claims.

Everything here reads headers and JSON only: quick, torch-free, and never code of the checkpoint's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from roots_compress.errors import InputError, did_you_mean
from roots_compress.model.files import read_json_object
from roots_compress.model.gguf_header import GgufHeader, read_gguf_header
from roots_compress.model.importers.families import FAMILIES, Fields, read_fields
from roots_compress.model.importers.switches import LARGEST, Switches
from roots_compress.model.limits import Limits, is_fusible
from roots_compress.model.safetensors_header import TensorEntry, read_header

ROOTS = "roots"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TOKENIZER_FILES = (TOKENIZER, "tokenizer.model", "vocab.json")
COPY_AGAIN = "The checkpoint is damaged or mixed from two; copy or download it again."
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

GGUF_WIDTHS = (
    "block_count", "embedding_length", "feed_forward_length", "vocab_size", "context_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
)  # fmt: skip
# GGUF architectures read through transformers, by our family. Gemma 1 is not among those it can read.
GGUF_FAMILIES = ("llama", "qwen2", "qwen3", "gpt2")
GGUF_KEYS = frozenset(
    (
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon",
        "rope.dimension_count", "rope.freq_base",
    )
)  # fmt: skip


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
    """Fields of `RootsConfig` of another family's directory."""
    tensors: Mapping[str, TensorEntry]
    """Every tensor of a directory; empty for GGUF."""

    @property
    def quantized(self) -> bool:
        """Whether its weights are integers, which no stage can change. GGUF weights are dequantized."""
        return self.kind == "roots" and bool(self.config.get("quantization"))

    @property
    def limits(self) -> Limits:
        """What bounds the use of the model."""
        max_context = self._number("context_length" if self.kind == "gguf" else "max_position_embeddings")
        return Limits(max_context, self._fusible())

    @property
    def vocab_size(self) -> int | None:
        """Rows of the embedding; None where the files do not say it as they should."""
        return self._number("vocab_size")

    def _number(self, name: str) -> int | None:
        if self.kind == "gguf":
            name = f"{self.model_type}.{name}"
        value = (self.fields or self.config).get(name)
        return value if type(value) is int else None

    def _fusible(self) -> bool | None:
        if self.kind == "gguf":
            width = self._number("attention.key_length") or self._number("rope.dimension_count")
            position = "learned" if self.model_type == "gpt2" else "rotary"
            return None if width is None else is_fusible(position, "dense", [width])
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
    config_path = directory / CONFIG
    if not config_path.exists():
        wanted = "the directory that holds config.json and model.safetensors, or a GGUF file"
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
    tensors = _directory_tensors(directory)
    _check_tokenizer_files(directory)
    kind: Kind = "roots" if model_type == ROOTS else "transformers"
    parameters = sum(math.prod(entry.shape) for entry in tensors.values())
    _check_extent(fields or config, len(tensors), parameters, config_path)
    return SourceInfo(directory, kind, model_type, parameters, config, fields, tensors)


def _advised(configs: Sequence[Path]) -> Path:
    """Return the last of these checkpoints, as of a run, that a stage can still change, if any can."""
    changeable = [config for config in configs if not read_json_object(config).get("quantization")]
    return (changeable or configs)[-1].parent


def _inspect_gguf(path: Path) -> SourceInfo:
    header = read_gguf_header(path)
    _check_gguf(header, path)
    parameters = sum(math.prod(shape) for shape in header.tensors.values())
    return SourceInfo(path, "gguf", header.architecture, parameters, header.metadata, None, {})


def _check_gguf(header: GgufHeader, path: Path) -> None:
    """Refuse other architectures, and switches that transformers would leave out in silence."""
    architecture = header.architecture
    if architecture not in GGUF_FAMILIES:
        raise InputError(
            f"has the GGUF architecture {architecture!r}, not one of {', '.join(GGUF_FAMILIES)}"
            + did_you_mean(architecture, list(GGUF_FAMILIES)),
            where=path,
            remedy="Use the model's Hugging Face directory if its family is supported.",
        )
    prefix = f"{architecture}."
    switches = {key.removeprefix(prefix) for key in header.metadata if key.startswith(prefix)}
    unread = sorted(prefix + key for key in switches - GGUF_KEYS)
    unread += sorted(name for name in header.tensors if name.startswith("rope_"))
    for key in GGUF_WIDTHS:
        number = header.metadata.get(prefix + key)
        most = len(header.tensors) if key == "block_count" else LARGEST
        if number is not None and not (type(number) is int and 0 < number <= most):
            raise InputError(
                f"{prefix + key} is {number!r}; it must be a whole number from 1 to {most}", where=path
            )
    if unread:
        raise InputError(
            f"uses {', '.join(unread)[:300]}, which cannot be imported from GGUF exactly",
            where=path,
            remedy="Use the model's Hugging Face directory.",
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
    if CODE_KEY in config:
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


def _directory_tensors(directory: Path) -> dict[str, TensorEntry]:
    if (directory / WEIGHTS).exists():
        return read_header(directory / WEIGHTS)
    if (directory / INDEX).exists():
        return _sharded_tensors(directory)
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise InputError(
            f"holds its weights only as pickle ({pickles[0]})",
            where=directory,
            remedy="Pickles can run code and are never read. Where you trust the source, load it with "
            "transformers and call save_pretrained, which writes safetensors.",
        )
    raise InputError(
        f"holds neither {WEIGHTS} nor {INDEX}", where=directory, remedy="Copy the weights there as well."
    )


def _sharded_tensors(directory: Path) -> dict[str, TensorEntry]:
    """Return the tensors of all shards, after checking that index and shards say the same."""
    index_path = directory / INDEX
    shard_of = read_json_object(index_path).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise InputError("has no weight_map from tensors to files", where=index_path, remedy=COPY_AGAIN)
    tensors: dict[str, TensorEntry] = {}
    for shard in sorted(set(shard_of.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise InputError(
                f"names {shard!r}, which is not a safetensors file beside it",
                where=index_path,
                remedy="Shards must lie in the checkpoint's own directory.",
            )
        for name, entry in read_header(directory / shard).items():
            if name in tensors:
                raise InputError(
                    f"tensor {name!r} stands in {tensors[name].file.name} and again in {shard}",
                    where=directory,
                    remedy=COPY_AGAIN,
                )
            tensors[name] = entry
    for name in sorted(tensors.keys() | shard_of.keys()):
        if name not in tensors or shard_of.get(name) != tensors[name].file.name:
            raise InputError(
                f"disagrees with its shards about tensor {name!r}",
                where=index_path,
                remedy=COPY_AGAIN,
            )
    return tensors


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
