"""Configuration of a ROOTS model: one transformer decoder whose layers may differ in width."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
NORMS = ("rms_norm", "layer_norm")
POSITIONS = ("rotary", "learned")
ATTENTIONS = ("dense", "top_m", "block")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
LAYER_KEYS = ("num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "sliding_window")


class RootsConfig(PreTrainedConfig):
    """A decoder-only transformer, expressive enough for today's families.

    `layers` is a list with one entry per layer, each with keys `num_attention_heads`, `num_key_value_heads`,
    `head_dim`, `intermediate_size` and optionally `sliding_window` (keys visible to a query, itself included;
    None for all). A pruned model is therefore an ordinary checkpoint.

    Raises:
        ValueError: a switch has an unknown value, or a layer's heads do not fit together.
    """

    model_type = "roots"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = 4096
    hidden_size: int = 256
    max_position_embeddings: int = 1024
    layers: list[dict[str, Any]] | None = None
    norm: str = "rms_norm"
    norm_eps: float = 1e-6
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
    attention_scale: float | None = None
    """Factor on query-key products; None for `head_dim ** -0.5`."""
    embedding_scale: float = 1.0
    """Factor on the token embeddings."""
    logit_scale: float = 1.0
    """Factor on the logits."""
    tie_word_embeddings: bool = True
    attention: dict[str, Any] | None = None
    """`{"kind": "dense"}`, `{"kind": "top_m", "top_m": m}` or `{"kind": "block", "block_size", "num_blocks"}`."""
    quantization: dict[str, Any] | None = None
    """`{"group_size": g, "formats": {module name: format}}`; see `model/quantized.py`. None: plain weights."""
    initializer_range: float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what has a default that depends on other fields, and check the whole."""
        self.layers = [dict(layer) for layer in self.layers or []]
        self.attention = dict(self.attention or {"kind": "dense"})
        if self.position == "rotary":
            self.rope_parameters = {
                "rope_type": "default",
                "rope_theta": 10000.0,
                **(self.rope_parameters or {}),
            }
        # transformers reads this for its caches; a read-only property would not survive its own `setattr`.
        kwargs.pop("num_hidden_layers", None)
        super().__post_init__(**kwargs)
        self._check()

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers, under the name transformers' caches read."""
        return len(self.layers or [])

    def _check(self) -> None:
        for name, value, known in (
            ("norm", self.norm, NORMS),
            ("position", self.position, POSITIONS),
            ("activation", self.activation, ACTIVATIONS),
            ("attention.kind", self.attention["kind"] if self.attention else None, ATTENTIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, not one of {', '.join(known)}")
        if self.position == "rotary" and self.rope_parameters:
            rope_type = self.rope_parameters["rope_type"]
            if rope_type not in ROPE_TYPES:
                raise ValueError(f"rope_type is {rope_type!r}, not one of {', '.join(ROPE_TYPES)}")
        for index, layer in enumerate(self.layers or []):
            unknown = set(layer) - set(LAYER_KEYS)
            missing = set(LAYER_KEYS[:4]) - set(layer)
            if unknown or missing:
                raise ValueError(
                    f"layers[{index}]: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}"
                )
            layer.setdefault("sliding_window", None)
            heads, kv_heads = layer["num_attention_heads"], layer["num_key_value_heads"]
            if min(heads, kv_heads, layer["head_dim"], layer["intermediate_size"]) < 1:
                raise ValueError(f"layers[{index}]: every width must be at least 1")
            if heads % kv_heads:
                raise ValueError(f"layers[{index}]: {kv_heads} key/value heads do not divide {heads} query heads")
            if self.position == "rotary" and layer["head_dim"] % 2:
                raise ValueError(f"layers[{index}]: head_dim {layer['head_dim']} is odd; rotary needs it even")

    @property
    def uniform(self) -> bool:
        """Whether all layers have the same widths, as other families' checkpoints need."""
        return all(layer == self.layers[0] for layer in self.layers) if self.layers else True
