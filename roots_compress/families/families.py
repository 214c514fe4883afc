"""The families that can be read and written: configuration, names and transforms of each, as one table.

`read` turns a family's config.json into the fields of `RootsConfig`, and `write` turns them back. Names
hold `{}` for a layer's number and leave out the family's prefix (`model.`), which some checkpoints leave out
as well.
Torch-free: a source can be judged before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from roots_compress.families.rope import read_rope
from roots_compress.families.switches import ACTIVATIONS, MOST_LAYERS, Switches, uniform_layers
from roots_compress.families.written import write_gpt2, write_llama, write_rotary

Fields = dict[str, Any]
Transform = Literal["copy", "transpose", "split", "transpose_split", "add_one"]
"""What is done to a source tensor: `split` cuts its first axis into equal parts, one per target, `add_one`
adds 1 to every element, and `transpose` swaps the axes before anything else."""


@dataclass(frozen=True)
class Rule:
    """One source tensor, and the ROOTS tensors it becomes."""

    source: str
    targets: tuple[str, ...]
    transform: Transform = "copy"


@dataclass(frozen=True)
class Family:
    """How one `model_type` maps to ROOTS."""

    model_type: str
    architecture: str
    read: Callable[[Switches], Fields]
    write: Callable[[Fields], Fields]
    rules: tuple[Rule, ...]
    prefix: str = "model."
    ignored: tuple[str, ...] = ()
    """Tensors that old checkpoints carry and nothing reads: masks and frequency tables."""


def _same(*names: str, transform: Transform = "copy") -> tuple[Rule, ...]:
    return tuple(Rule(name, (f"model.{name}",), transform) for name in names)


def _both(stem: str, *targets: str, weight: Transform, bias: Transform) -> tuple[Rule, Rule]:
    """Return the rules of a module's weight and its bias."""
    return (
        Rule(f"{stem}.weight", tuple(f"model.{target}.weight" for target in targets), weight),
        Rule(f"{stem}.bias", tuple(f"model.{target}.bias" for target in targets), bias),
    )


_PROJECTIONS = tuple(
    f"layers.{{}}.{module}.{part}"
    for module in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    )
    for part in ("weight", "bias")
)  # fmt: skip
_NORMS = {
    "layers.{}.input_layernorm.weight": "layers.{}.self_attn_pre_norm.weight",
    "layers.{}.post_attention_layernorm.weight": "layers.{}.mlp_pre_norm.weight",
    "norm.weight": "norm.weight",
}


def _norms(transform: Transform) -> tuple[Rule, ...]:
    return tuple(Rule(name, (f"model.{target}",), transform) for name, target in _NORMS.items())


_HEAD = Rule("lm_head.weight", ("lm_head.weight",))
_EMBEDDING = _same("embed_tokens.weight")
_LLAMA_RULES = (*_EMBEDDING, *_same(*_PROJECTIONS), *_norms("copy"), _HEAD)
_GEMMA_RULES = (*_EMBEDDING, *_same(*_PROJECTIONS), *_norms("add_one"), _HEAD)
_QWEN3_RULES = (
    *_LLAMA_RULES, *_same("layers.{}.self_attn.q_norm.weight", "layers.{}.self_attn.k_norm.weight")
)  # fmt: skip
_GPT2_RULES = (
    Rule("wte.weight", ("model.embed_tokens.weight",)),
    Rule("wpe.weight", ("model.embed_positions.weight",)),
    *_both("h.{}.ln_1", "layers.{}.self_attn_pre_norm", weight="copy", bias="copy"),
    *_both(
        "h.{}.attn.c_attn",
        "layers.{}.self_attn.q_proj", "layers.{}.self_attn.k_proj", "layers.{}.self_attn.v_proj",
        weight="transpose_split", bias="split",
    ),
    *_both("h.{}.attn.c_proj", "layers.{}.self_attn.o_proj", weight="transpose", bias="copy"),
    *_both("h.{}.ln_2", "layers.{}.mlp_pre_norm", weight="copy", bias="copy"),
    *_both("h.{}.mlp.c_fc", "layers.{}.mlp.up_proj", weight="transpose", bias="copy"),
    *_both("h.{}.mlp.c_proj", "layers.{}.mlp.down_proj", weight="transpose", bias="copy"),
    *_both("ln_f", "norm", weight="copy", bias="copy"),
    _HEAD,
)  # fmt: skip
_OLD_ROTARY = ("layers.{}.self_attn.rotary_emb.inv_freq",)

GPT2_SPELLINGS = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
"""Second names of GPT-2's keys, which transformers' class takes for the first."""

Windows = Literal["none", "all", "by_layer"]
Biases = Literal["none", "qkv", "qkvo"]


def _read_rotary(
    switches: Switches,
    *,
    windows: Windows = "none",
    biases: Biases | None = None,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    head_dim: int | None = None,
    null_head_dim: bool = False,
    kv_heads: int | None = None,
    null_kv_heads: bool = False,
    whole_heads: bool = False,
    context: int,
    tied: bool = False,
    activation: Mapping[str, str] = ACTIVATIONS,
    default_activation: str = "silu",
) -> Fields:
    """Read the configuration of a Llama-like decoder.

    Args:
        switches: the configuration; `finish` is left to the caller.
        windows: whether there are no sliding windows, one for all layers unless they are told apart, or
            Qwen's choice by layer.
        biases: which projections always have biases; None where `attention_bias` decides over all four.
        mlp_bias: whether there is such a switch.
        qk_norm: whether queries and keys are normed.
        head_dim: the default; None for hidden size over heads.
        null_head_dim: whether null means hidden size over heads; else it is refused, as by transformers.
        kv_heads: the default; None for as many as query heads.
        null_kv_heads: whether null means as many as query heads; else it is refused.
        whole_heads: whether the family's class wants a hidden size that is a multiple of the heads.
        context: the default of `max_position_embeddings`.
        tied: the default of `tie_word_embeddings`.
        activation: the family's reading of activation names.
        default_activation: the activation where none is named.
    """
    hidden, layers = switches.number("hidden_size"), switches.number("num_hidden_layers", most=MOST_LAYERS)
    heads = switches.number("num_attention_heads")
    if whole_heads and hidden % heads:
        switches.refuse(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    derived = hidden // heads if hidden % heads == 0 else None
    size = switches.number("head_dim", head_dim or derived, null=derived if null_head_dim else None)
    kv_count = switches.number(
        "num_key_value_heads", kv_heads or heads, null=heads if null_kv_heads else None
    )
    if heads % kv_count:
        switches.refuse(f"num_key_value_heads {kv_count} does not divide num_attention_heads {heads}")
    if size % 2:
        switches.refuse(f"the head size {size} is odd; rotary positions need it even")
    each: list[int | None] = [None] * layers
    if windows == "none":
        switches.no_windows(layers)
    else:
        each = switches.windows(layers, by_default=windows == "all")
    biased = switches.flag("attention_bias", False) if biases is None else biases != "none"
    if biases == "qkv":
        switches.same("attention_bias", True)
        switches.same("qkv_bias", True)
    if qk_norm:
        switches.same("use_qk_norm", True)
    function = switches.activation("hidden_act", default_activation, activation)
    switches.same("hidden_activation", *(name for name, ours in activation.items() if ours == function))
    return {
        "vocab_size": switches.number("vocab_size"),
        "hidden_size": hidden,
        "max_position_embeddings": switches.number("max_position_embeddings", context),
        "layers": uniform_layers(each, heads, kv_count, size, switches.number("intermediate_size")),
        "norm": "rms_norm",
        "norm_eps": switches.positive("rms_norm_eps", 1e-6),
        "position": "rotary",
        "rope_parameters": read_rope(switches),
        "activation": function,
        "gated_mlp": True,
        "attention_bias": biased,
        "attention_output_bias": biased and biases != "qkv",
        "mlp_bias": switches.flag("mlp_bias", False) if mlp_bias else False,
        "qk_norm": qk_norm,
        "tie_word_embeddings": switches.flag("tie_word_embeddings", tied),
    }


def _read_gemma(switches: Switches) -> Fields:
    # transformers reads Gemma's "gelu" as its tanh form, which the weights were trained with.
    activation = {**ACTIVATIONS, "gelu": "gelu_tanh"}
    fields = _read_rotary(
        switches,
        head_dim=256,
        kv_heads=16,
        context=8192,
        tied=True,
        activation=activation,
        default_activation="gelu_pytorch_tanh",
    )
    return {**fields, "embedding_scale": fields["hidden_size"] ** 0.5}


def _read_gpt2(switches: Switches) -> Fields:
    for spelling, key in GPT2_SPELLINGS.items():
        switches.renamed(spelling, key)
    hidden, heads = switches.number("n_embd"), switches.number("n_head")
    if hidden % heads:
        switches.refuse(f"n_embd {hidden} is not a multiple of n_head {heads}")
    intermediate = switches.number("n_inner", 4 * hidden, null=4 * hidden)
    layers = switches.number("n_layer", most=MOST_LAYERS)
    switches.no_windows(layers)
    no_windows: list[int | None] = [None] * layers
    return {
        "vocab_size": switches.number("vocab_size"),
        "hidden_size": hidden,
        "max_position_embeddings": switches.number("n_positions", 1024),
        "layers": uniform_layers(no_windows, heads, heads, hidden // heads, intermediate),
        "norm": "layer_norm",
        "norm_eps": switches.positive("layer_norm_epsilon", 1e-5),
        "position": "learned",
        "activation": switches.activation("activation_function", "gelu_new"),
        "gated_mlp": False,
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
        "attention_scale": None if switches.flag("scale_attn_weights", True) else 1.0,
        "tie_word_embeddings": switches.flag("tie_word_embeddings", True),
    }


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "llama", "LlamaForCausalLM",
            partial(
                _read_rotary, mlp_bias=True, null_head_dim=True, null_kv_heads=True, whole_heads=True,
                context=2048,
            ),
            write_llama, _LLAMA_RULES, ignored=_OLD_ROTARY,
        ),
        Family(
            "mistral", "MistralForCausalLM",
            partial(
                _read_rotary, windows="all", biases="none", kv_heads=8, null_head_dim=True, context=131072
            ),
            partial(write_rotary, windows="all"), _LLAMA_RULES, ignored=_OLD_ROTARY,
        ),
        Family(
            "qwen2", "Qwen2ForCausalLM",
            partial(
                _read_rotary, windows="by_layer", biases="qkv", kv_heads=32, null_kv_heads=True, context=32768
            ),
            partial(write_rotary, windows="by_layer"), _LLAMA_RULES,
        ),
        Family(
            "qwen3", "Qwen3ForCausalLM",
            partial(
                _read_rotary, windows="by_layer", qk_norm=True, head_dim=128, kv_heads=32, null_kv_heads=True,
                context=32768,
            ),
            partial(write_rotary, windows="by_layer", attention_bias=True), _QWEN3_RULES,
        ),
        Family(
            "gemma", "GemmaForCausalLM", _read_gemma,
            partial(write_rotary, attention_bias=True), _GEMMA_RULES,
        ),
        Family(
            "gpt2", "GPT2LMHeadModel", _read_gpt2, write_gpt2, _GPT2_RULES, prefix="transformer.",
            ignored=("h.{}.attn.bias", "h.{}.attn.masked_bias"),
        ),
    )
}  # fmt: skip


def read_fields(family: Family, switches: Switches) -> Fields:
    """Return the fields of `RootsConfig` that a family's configuration asks for.

    Raises:
        InputError: a key is unknown or absent, a value is impossible, or a switch is beyond ROOTS.
    """
    fields = family.read(switches)
    switches.finish()
    return fields
