"""Reading another family's configuration by allow-list: every key is understood, neutral, or refused.

A switch that changes what a model computes and is silently ignored gives wrong logits; so a key nobody asked
for is an error. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from roots_compress.errors import InputError

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""transformers' names of activations, and ours."""

# Keys that change nothing a forward pass in evaluation computes: training, bookkeeping, classification heads,
# and the generation defaults that older versions of transformers wrote into config.json.
NEUTRAL_KEYS = frozenset(
    """
    _attn_implementation_autoset _model_name_or_path _name_or_path architectures attention_dropout
    attn_pdrop bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    decoder_start_token_id diversity_penalty do_sample dtype early_stopping embd_pdrop
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_range is_decoder
    is_encoder_decoder is_llama_config label2id length_penalty max_length min_length model_type n_ctx
    name_or_path no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix pretraining_tp problem_type
    remove_invalid_values repetition_penalty resid_pdrop return_dict return_dict_in_generate
    sep_token_id summary_activation summary_first_dropout summary_proj_to_labels summary_type
    summary_use_proj suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder
    tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config transformers_version
    typical_p unk_token_id unsloth_fixed unsloth_version use_bfloat16 use_cache
    """.split()  # noqa: SIM905
)
# Keys with one harmless setting each, beside null; any other changes the computation.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "hidden_activation": ("gelu_pytorch_tanh",),
    "partial_rotary_factor": (1, 1.0),
    "pruned_heads": ({},),
    "quantization_config": (),
    "reorder_and_upcast_attn": (False,),
    "rope_interleaved": (False,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "use_bidirectional_attention": (False,),
}


LARGEST = 2**31 - 1
"""The largest width or length that a configuration may name; tensors have no longer axes."""
MOST_LAYERS = 10_000


class Switches:
    """A configuration being read: each key taken once, and nothing left over."""

    def __init__(self, config: Mapping[str, Any], where: str | Path) -> None:
        self.where = where
        self._left = {key: value for key, value in config.items() if key not in NEUTRAL_KEYS}

    def number(self, key: str, default: int | None = None, *, most: int = LARGEST) -> int:
        """Take a whole number from 1 to `most`; null and absence mean the default.

        Raises:
            InputError: there is neither the key nor a default, or the value is something else.
        """
        value = self._left.pop(key, None)
        value = default if value is None else value
        if value is None:
            self.refuse(f"lacks the key {key!r}")
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(f"{key} is {value!r:.100}; it must be a whole number from 1 to {most}")
        return value

    def optional_number(self, key: str, default: int | None = None) -> int | None:
        """Take a whole number of at least 1, or null for none; absence means the default."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return self.number(key, default) if key in self._left or default is not None else None

    def positive(self, key: str, default: float) -> float:
        """Take a number above 0."""
        value = self._left.pop(key, None)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            self.refuse(f"{key} is {value!r:.100}; it must be a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Take true or false."""
        value = self._left.pop(key, None)
        value = default if value is None else value
        if not isinstance(value, bool):
            self.refuse(f"{key} is {value!r:.100}; it must be true or false")
        return value

    def activation(self, key: str, default: str, aliases: Mapping[str, str] = ACTIVATIONS) -> str:
        """Take the name of an activation and return ours."""
        value = self._left.pop(key, None) or default
        if not isinstance(value, str) or value not in aliases:
            self.refuse(f"{key} is {value!r:.100}; supported are {', '.join(aliases)}")
        return aliases[value]

    def rope(self) -> dict[str, Any]:
        """Take rotary positions in either spelling: `rope_parameters`, or `rope_theta` and `rope_scaling`."""
        parameters: dict[str, Any] = {
            "rope_type": "default",
            "rope_theta": self.positive("rope_theta", 10000.0),
        }
        for key in ("rope_scaling", "rope_parameters"):
            given = self._left.pop(key, None) or {}
            if not isinstance(given, dict):
                self.refuse(f"{key} is {given!r}; it must be an object or null")
            parameters.update({name: value for name, value in given.items() if name != "type"})
            parameters["rope_type"] = given.get("rope_type", given.get("type", parameters["rope_type"]))
        if parameters.pop("partial_rotary_factor", 1) not in (1, None):
            self.refuse(
                "rope_parameters.partial_rotary_factor is not 1; partly rotated heads are not supported"
            )
        return parameters

    def windows(self, layers: int) -> list[int | None]:
        """Take Qwen's switches and return each layer's sliding window."""
        window = self.optional_number("sliding_window", 4096)
        if not self.flag("use_sliding_window", False):
            window = None
        first = self._left.pop("max_window_layers", None)
        first = 28 if first is None else first
        types = self._left.pop("layer_types", None)
        if types is None:
            types = ["sliding_attention" if index >= first else "full_attention" for index in range(layers)]
        known = {"full_attention": None, "sliding_attention": window}
        if not isinstance(types, list) or len(types) != layers or not set(map(str, types)) <= set(known):
            self.refuse(
                f"layer_types must name full_attention or sliding_attention for each of {layers} layers"
            )
        return [known[kind] for kind in types]

    def finish(self) -> None:
        """Refuse whatever was not taken.

        Raises:
            InputError: a key is unknown, or has a setting that ROOTS cannot express.
        """
        for key, value in self._left.items():
            if key in HARMLESS:
                if value is not None and value not in HARMLESS[key]:
                    self.refuse(f"{key} is {value!r}, which ROOTS cannot express")
                continue
            raise InputError(
                f"{key!r} is not a key this importer knows, and it may change what the model computes",
                where=self.where,
                remedy="If it does not, remove it from a copy of config.json.",
            )

    def refuse(self, message: str) -> NoReturn:
        """Raise an InputError about this configuration."""
        raise InputError(
            message, where=self.where, remedy="Only models that can be imported exactly are accepted."
        )


def uniform_layers(
    windows: Sequence[int | None], heads: int, kv_heads: int, head_dim: int, intermediate: int
) -> list[dict[str, int | None]]:
    """Return the layers of a model whose layers differ in nothing but their sliding window."""
    return [
        {
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "intermediate_size": intermediate,
            "sliding_window": window,
        }
        for window in windows
    ]
