"""Configuration of a ROOTS model: one transformer decoder whose layers may differ in width."""

# No `from __future__ import annotations` here: `strict` checks no type that is given as a string.

import math
import re
from dataclasses import field
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from roots_compress.models.limits import LARGEST, is_fusible
from roots_compress.models.quantized import CACHE_FORMATS, FORMATS

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
NORMS = ("rms_norm", "layer_norm")
POSITIONS = ("rotary", "learned")
ATTENTION_KEYS = {"dense": (), "top_m": ("top_m",), "block": ("block_size", "num_blocks")}
"""Keys beside `kind` of each attention; all are integers of at least 1."""
ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}
"""Keys beside `rope_type` and `rope_theta` of each scaling of rotary positions."""
WIDTH_KEYS = ("num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")
MATRIX_NAME = re.compile(
    r"model\.embed_tokens|lm_head"
    r"|model\.layers\.(?P<layer>\d+)\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)"
)
"""Names of the modules that may be quantized."""
LAYER_KEYS = (*WIDTH_KEYS, "sliding_window")


@strict
class RootsConfig(PreTrainedConfig):
    """A decoder-only transformer, expressive enough for today's families.

    `layers` is a list with one entry per layer, each with keys `num_attention_heads`, `num_key_value_heads`,
    `head_dim`, `intermediate_size` and optionally `sliding_window` (keys visible to a query, itself included;
    None for all). A pruned model is therefore an ordinary checkpoint.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a field has a wrong type, a switch an unknown value, or a
            layer's heads do not fit together. Raised on creation and again when the config is saved.
    """

    model_type = "roots"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = 4096
    hidden_size: int = 256
    max_position_embeddings: int = 1024
    layers: list[dict[str, Any]] = field(default_factory=list)
    norm: str = "rms_norm"
    norm_eps: float | int = 1e-6
    position: str = "rotary"
    rope_parameters: dict[str, Any] | None = None
    """`rope_type`, `rope_theta` and the scaling's own keys, as transformers names them."""
    activation: str = "silu"
    gated_mlp: bool = True
    attention_bias: bool = False
    """Biases on q, k and v."""
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMS norm over the head dimension of queries and keys, before positions."""
    attention_scale: float | int | None = None
    """Factor on query-key products; None for `head_dim ** -0.5`."""
    embedding_scale: float | int = 1.0
    """Factor on the token embeddings."""
    logit_scale: float | int = 1.0
    """Factor on the logits."""
    tie_word_embeddings: bool = True
    attention: dict[str, Any] = field(default_factory=lambda: {"kind": "dense"})
    """`{"kind": "dense"}`, `{"kind": "top_m", "top_m": m}` or `{"kind": "block", "num_blocks": k}`. The last
    may name a `block_size`; without one it is the square root of `max_position_embeddings`, rounded up."""
    quantization: dict[str, Any] | None = None
    """`{"group_size": g, "formats": {module name: format}}`; see `quantized.py`. None: plain weights.
    May have `group_sizes`, of the modules whose groups have another size, and `cache`."""
    initializer_range: float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the defaults that depend on other fields."""
        self.layers = [{"sliding_window": None, **layer} for layer in self.layers]
        self.attention = dict(self.attention)
        if self.position == "rotary":
            self.rope_parameters = {
                "rope_type": "default",
                "rope_theta": 10000.0,
                **(self.rope_parameters or {}),
            }
        # Derived from `layers`; a caller's or a file's own value could only contradict it.
        kwargs.pop("num_hidden_layers", None)
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers, under the name transformers' caches read."""
        return len(self.layers)

    @property
    def is_fusible(self) -> bool:
        """Whether ONNX Runtime's fused attention can express this model's."""
        return is_fusible(self.position, self.attention["kind"], (each["head_dim"] for each in self.layers))

    @property
    def attention_block_size(self) -> int:
        """Keys in a block of block attention, given or by default."""
        return int(self.attention.get("block_size") or math.isqrt(self.max_position_embeddings - 1) + 1)

    def validate_architecture(self) -> None:
        """Check every switch and every layer; called on creation and by `save_pretrained`."""
        for name in ("vocab_size", "hidden_size", "max_position_embeddings"):
            _check_width(name, getattr(self, name))
        _check_positive("norm_eps", self.norm_eps)
        for name, known in (("norm", NORMS), ("position", POSITIONS), ("activation", ACTIVATIONS)):
            _check_member(name, getattr(self, name), known)
        self._check_attention()
        self._check_rope()
        for index, layer in enumerate(self.layers):
            self._check_layer(index, layer)
        self._check_quantization()

    def _check_attention(self) -> None:
        kind = str(self.attention.get("kind"))
        _check_member("attention.kind", kind, ATTENTION_KEYS)
        numbers = {key: value for key, value in self.attention.items() if key != "kind"}
        unknown = set(numbers) - set(ATTENTION_KEYS[kind])
        missing = set(ATTENTION_KEYS[kind]) - set(numbers) - {"block_size"}
        if unknown or missing:
            raise ValueError(f"attention: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}")
        for key, value in numbers.items():
            _check_width(f"attention.{key}", value)

    def _check_rope(self) -> None:
        if self.position != "rotary":
            return
        assert self.rope_parameters is not None
        rope_type = self.rope_parameters["rope_type"]
        _check_member("rope_parameters.rope_type", rope_type, ROPE_KEYS)
        unknown = set(self.rope_parameters) - {"rope_type", "rope_theta", *ROPE_KEYS[rope_type]}
        if unknown:
            raise ValueError(
                f"rope_parameters: keys {sorted(unknown)} are not known for rope_type {rope_type!r}"
            )
        for key, value in self.rope_parameters.items():
            if key not in ("rope_type", "truncate") and not (value is None and key in ROPE_KEYS[rope_type]):
                _check_positive(f"rope_parameters.{key}", value)

    def _check_layer(self, index: int, layer: dict[str, Any]) -> None:
        unknown, missing = set(layer) - set(LAYER_KEYS), set(WIDTH_KEYS) - set(layer)
        if unknown or missing:
            raise ValueError(
                f"layers[{index}]: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}"
            )
        for key, value in layer.items():
            if key != "sliding_window" or value is not None:
                _check_width(f"layers[{index}].{key}", value)
        heads, kv_heads = layer["num_attention_heads"], layer["num_key_value_heads"]
        if heads % kv_heads:
            raise ValueError(f"layers[{index}]: {kv_heads} key/value heads do not divide {heads} query heads")
        if self.position == "rotary" and layer["head_dim"] % 2:
            raise ValueError(f"layers[{index}]: head_dim {layer['head_dim']} is odd; rotary needs it even")

    def _check_quantization(self) -> None:
        if self.quantization is None:
            return
        formats = self.quantization.get("formats")
        known = {"group_size", "formats"}
        others = self.quantization.get("group_sizes", {})
        unknown = set(self.quantization) - {"cache", "group_sizes"} != known
        if unknown or not isinstance(formats, dict) or not isinstance(others, dict):
            raise ValueError(
                "quantization must hold group_size and formats, an object, and may hold cache and"
                " group_sizes, an object"
            )
        if "cache" in self.quantization:
            _check_member("quantization.cache", self.quantization["cache"], CACHE_FORMATS)
        _check_group_size("quantization.group_size", self.quantization["group_size"])
        for name, size in others.items():
            if name not in formats:
                raise ValueError(f"quantization.group_sizes names {name!r}, which formats does not name")
            _check_group_size(f"quantization.group_sizes[{name!r}]", size)
        for name, weight_format in formats.items():
            found = MATRIX_NAME.fullmatch(name)
            if found is None or int(found["layer"] or 0) >= max(1, len(self.layers)):
                raise ValueError(f"quantization.formats names {name!r}, which is no matrix of this model")
            _check_member(f"quantization.formats[{name!r}]", weight_format, FORMATS)


def _check_member(name: str, value: Any, known: Any) -> None:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} is {value!r}, not one of {', '.join(known)}")


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be a number above 0")


def _check_group_size(name: str, value: Any) -> None:
    _check_width(name, value)
    if value % 2:
        raise ValueError(f"{name} is {value}; pairs of 4-bit values need it even")


def _check_width(name: str, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise ValueError(f"{name} is {value!r:.100}; it must be a whole number from 1 to {LARGEST}")
