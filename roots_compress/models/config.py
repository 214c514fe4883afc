"""The configuration of a ROOTS model, loaded and saved by transformers: specification and formats."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig

from roots_compress.models import version1
from roots_compress.models.caches import layer_types
from roots_compress.models.limits import is_fusible
from roots_compress.models.ops.base import LARGEST
from roots_compress.models.ops.heads import Seq2SeqHead
from roots_compress.models.quantized import CACHE_FORMATS, FORMATS
from roots_compress.models.spec import ModelSpec

VERSION = 2


class RootsConfig(PreTrainedConfig):
    """A model's specification, how its weights are stored, and its special tokens.

    Made from a `ModelSpec` (`spec=`), from its JSON's keys, or from version 1's fields
    (`models/version1.py`). config.json holds these keys, transformers' own, `quantization` and the token ids.

    Attributes:
        spec: the specification. A stage that changes shapes puts another in its place.
        quantization: `{"group_size": g, "formats": {module name: format}}`; see `quantized.py`. None: plain
            weights. It may have `group_sizes`, for modules whose groups have another size; `fixed_inputs`,
            the modules whose input has one scale for all tokens; and `cache`.

    Raises:
        ValueError: the model is impossible; the message names the first fault and its key.
    """

    model_type = "roots"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    def __init__(
        self,
        *,
        spec: ModelSpec | None = None,
        version: int = VERSION,
        quantization: dict[str, Any] | None = None,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        **others: Any,
    ) -> None:
        if version != VERSION:
            raise ValueError(f"version is {version!r}, not {VERSION}: it was written by another version")
        if spec is None:
            spec = version1.read_spec(others)
        # transformers writes the number of layers, which the specification already has.
        known = version1.SPEC_KEYS | version1.KEYS | {"num_hidden_layers"}
        others = {key: value for key, value in others.items() if key not in known}
        self.spec, self.quantization = spec, quantization
        self.initializer_range, self.use_cache = initializer_range, use_cache
        self.pad_token_id, self.bos_token_id, self.eos_token_id = pad_token_id, bos_token_id, eos_token_id
        super().__init__(**others)
        self.is_encoder_decoder = spec.source is not None
        _check_token_ids(self)
        self.validate_quantization()

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, under the name transformers reads."""
        return self.spec.embeddings.vocabulary

    @property
    def table_width(self) -> int:
        """Channels of the embedding's tables."""
        return self.spec.embeddings.table_width

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream, under the name transformers reads."""
        return self.spec.width

    @property
    def max_position_embeddings(self) -> int:
        """Positions, under the name transformers reads."""
        return self.spec.max_positions

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the stack that the head reads, under the name transformers' caches read."""
        return len(self.spec.stack.layers)

    @property
    def layer_types(self) -> list[str]:
        """The kind of cache of each of those layers, under the name transformers' caches read."""
        return layer_types(self.spec)

    @property
    def tie_word_embeddings(self) -> bool:
        """Whether the head's matrix is the embedding's, under the name transformers reads."""
        return self.spec.tied

    @property
    def decoder_start_token_id(self) -> int | None:
        """The token with which a decoder after an encoder begins, under the name transformers reads."""
        return self.spec.head.start if isinstance(self.spec.head, Seq2SeqHead) else None

    @property
    def is_fusible(self) -> bool:
        """Whether ONNX Runtime's fused attention can express this model's attention."""
        return is_fusible(self.spec)

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds."""
        found: dict[str, Any] = super().to_dict()
        del found["spec"]
        # Values of the specification, under transformers' names.
        for name in ("is_encoder_decoder", "decoder_start_token_id"):
            found.pop(name, None)
        return {"version": VERSION, **self.spec.to_json(), **found}

    def validate_quantization(self) -> None:
        """Check the description of the stored weights; called on creation.

        Raises:
            ValueError: a key is unknown or missing, or a module, a format or a size is impossible.
        """
        if self.quantization is None:
            return
        formats = self.quantization.get("formats")
        known = {"group_size", "formats"}
        others, fixed = self.quantization.get("group_sizes", {}), self.quantization.get("fixed_inputs", [])
        unknown = set(self.quantization) - {"cache", "group_sizes", "fixed_inputs"} != known
        if (
            unknown
            or not isinstance(formats, dict)
            or not isinstance(others, dict)
            or not isinstance(fixed, list)
        ):
            raise ValueError(
                "quantization must hold group_size and formats, an object, and may hold cache,"
                " group_sizes, an object, and fixed_inputs, a list"
            )
        for name in fixed:
            if not isinstance(name, str) or formats.get(name) != "w8a8":
                raise ValueError(
                    f"quantization.fixed_inputs names {name!r:.100}, which formats does not name as w8a8"
                )
        if "cache" in self.quantization:
            version1.check_member("quantization.cache", self.quantization["cache"], CACHE_FORMATS)
        _check_group_size("quantization.group_size", self.quantization["group_size"])
        for name, size in others.items():
            if name not in formats:
                raise ValueError(f"quantization.group_sizes names {name!r}, which formats does not name")
            _check_group_size(f"quantization.group_sizes[{name!r}]", size)
        matrices = self.spec.matrices()
        for name, weight_format in formats.items():
            if name not in matrices:
                raise ValueError(f"quantization.formats names {name!r}, which is no matrix of this model")
            version1.check_member(f"quantization.formats[{name!r}]", weight_format, FORMATS)


def _check_token_ids(config: RootsConfig) -> None:
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        ids = getattr(config, name)
        each = ids if name == "eos_token_id" and isinstance(ids, list) else [ids]
        if any(number is not None and type(number) is not int for number in each):
            raise ValueError(f"{name} is {ids!r:.100}; it must be a whole number")


def _check_group_size(name: str, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise ValueError(f"{name} is {value!r:.100}; it must be a whole number from 1 to {LARGEST}")
    if value % 2:
        raise ValueError(f"{name} is {value}; pairs of 4-bit values need it even")
