"""GPT-2, and what has its keys: GPT-BigCode and GPT-J."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import positioned_decoder, pre_norm_layer
from roots_compress.families.decoder_config import first_blocks
from roots_compress.families.decoder_tensors import QKV, decoder_rules
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.transforms import Rows
from roots_compress.families.values import older_activation_name
from roots_compress.models.ops.attention import Attention, Rope
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm

SPELLINGS = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
"""Second names of GPT-2's keys, which transformers' class takes for the first."""


def read_gpt(
    switches: Switches,
    attention: Callable[[int, int], Attention],
    *,
    context: int,
    positions: bool = True,
    activation: str = "gelu_new",
    tied: bool = True,
    parallel: bool = False,
    head: LmHead | None = None,
) -> ModelSpec:
    """Read a configuration with GPT-2's keys.

    Args:
        attention: makes the attention of so many heads of a size.
        parallel: whether both blocks of a layer read the same stream.
    """
    switches.require_writer()
    switches.all_renamed(SPELLINGS)
    width, heads = switches.width_and_heads("n_embd", "n_head")
    mlp = Mlp(
        channels=switches.number("n_inner", 4 * width, null=4 * width),
        activation=switches.activation("activation_function", activation),
        gated=False,
        bias=True,
    )
    count = switches.number("n_layer", most=MOST_LAYERS)
    switches.no_windows(count)
    length = switches.number("n_positions", context)
    norm = Norm(kind="layer_norm", eps=switches.positive("layer_norm_epsilon", 1e-5))
    layer = pre_norm_layer(attention(heads, width // heads), mlp, norm, parallel=parallel)
    return positioned_decoder(
        switches,
        [layer] * count,
        norm,
        width=width,
        positions=length,
        learned=positions,
        head=head,
        tied=tied,
    )


def write_gpt(spec: ModelSpec) -> dict[str, Any]:
    """Return the keys that `read_gpt` reads."""
    attention, mlp = first_blocks(spec)
    return {
        "vocab_size": spec.embeddings.vocabulary,
        "n_embd": spec.width,
        "n_positions": spec.max_positions,
        "n_layer": len(spec.layers),
        "n_head": attention.heads,
        "n_inner": mlp.channels,
        "layer_norm_epsilon": (spec.stack.final_norm or Norm()).eps,
        "activation_function": older_activation_name(mlp.activation),
        "tie_word_embeddings": spec.tied,
    }


def _attention(switches: Switches, kv_heads: int | None = None) -> Callable[[int, int], Attention]:
    """Take whether scores are divided by the root of the heads' size, and return what makes attention."""
    scale = None if switches.flag("scale_attn_weights", True) else 1.0

    def made(heads: int, size: int) -> Attention:
        own = kv_heads or heads
        return Attention(heads=heads, kv_heads=own, head_dim=size, scale=scale, bias=True, output_bias=True)

    return made


def _read_gpt2(switches: Switches) -> ModelSpec:
    return read_gpt(switches, _attention(switches), context=1024)


def _write_gpt2(spec: ModelSpec) -> dict[str, Any]:
    return {**write_gpt(spec), "scale_attn_weights": first_blocks(spec)[0].scale is None}


NAMES = {
    "self_attn_pre_norm": "ln_1",
    "mlp_pre_norm": "ln_2",
    **dict.fromkeys(QKV, "attn.c_attn"),
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}
OUTER = {"embed_tokens": "wte", "embed_positions": "wpe", "layers": "h", "norm": "ln_f"}
MASKS = ("h.{}.attn.bias", "h.{}.attn.masked_bias")
"""Buffers of published files."""
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"n_inner": 40, "tie_word_embeddings": False, "scale_attn_weights": False},
    {"activation_function": "relu", "n_head": 2},
)


def _rules_gpt2(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor. The matrices of layers have their inputs first."""
    rows = {f"{name}.weight": each.rows for name, each in spec.matrices().items() if ".layers." in name}
    for rule in decoder_rules(spec, names=NAMES, outer=OUTER):
        turned = all(target in rows for target in rule.targets)
        sizes = tuple(rows[target] for target in rule.targets if turned)
        yield replace(rule, transform=Rows(sizes, transposed=True)) if turned else rule


GPT2 = Family(
    "gpt2",
    "GPT2LMHeadModel",
    _read_gpt2,
    _write_gpt2,
    _rules_gpt2,
    prefix="transformer.",
    ignored=MASKS,
    variants=VARIANTS,
)
"""GPT-2: layer norms, learned positions, matrices stored the other way round."""


UNREAD = """
    attention_softmax_in_fp32 inference_runner max_batch_size pad_key_length pre_allocate_kv_cache
    scale_attention_softmax_in_fp32 validate_runner_input
    """.split()  # noqa: SIM905
"""Keys that say how the model is computed."""


def _read_gpt_bigcode(switches: Switches) -> ModelSpec:
    switches.leave(*UNREAD)
    if not switches.flag("multi_query", True):
        switches.refuse("multi_query is false: only models of one head of keys and values can be imported")
    switches.same("num_key_value_heads", 1)
    return read_gpt(switches, _attention(switches, 1), context=1024, activation="gelu_pytorch_tanh")


def _write_gpt_bigcode(spec: ModelSpec) -> dict[str, Any]:
    scaled = first_blocks(spec)[0].scale is None
    return {**write_gpt(spec), "scale_attn_weights": scaled, "multi_query": True}


GPT_BIGCODE = Family(
    "gpt_bigcode",
    "GPTBigCodeForCausalLM",
    _read_gpt_bigcode,
    _write_gpt_bigcode,
    partial(decoder_rules, names=NAMES, outer=OUTER),
    prefix="transformer.",
    ignored=MASKS,
    variants=VARIANTS,
)
"""GPT-BigCode (StarCoder, SantaCoder): GPT-2 with one head of keys and values, and plain matrices."""


GPTJ_NAMES = {
    "self_attn_pre_norm": "ln_1",
    **{f"self_attn.{name}_proj": f"attn.{name}_proj" for name in "qkv"},
    "self_attn.o_proj": "attn.out_proj",
    "mlp.up_proj": "mlp.fc_in",
    "mlp.down_proj": "mlp.fc_out",
}
TURNED = "rotary_dim"


def _read_gptj(switches: Switches) -> ModelSpec:
    for key in ("rotary", "scale_attn_weights"):  # Published, and not read by transformers' class.
        switches.same(key, True)
    turned = switches.number(TURNED, 64)

    def attention(heads: int, size: int) -> Attention:
        rope = Rope(rotary_dim=None if turned == size else turned)
        return Attention(heads=heads, kv_heads=heads, head_dim=size, rope=rope)

    head = LmHead(bias=True)
    return read_gpt(switches, attention, context=2048, positions=False, tied=False, parallel=True, head=head)


def _write_gptj(spec: ModelSpec) -> dict[str, Any]:
    attention, _ = first_blocks(spec)
    return {**write_gpt(spec), TURNED: (attention.rope or Rope()).rotary_dim or attention.head_dim}


def _rules_gptj(spec: ModelSpec) -> Iterator[Rule]:
    yield from decoder_rules(spec, names=GPTJ_NAMES, outer=OUTER, paired=True)
    yield Rule("lm_head.bias", ("logits_bias",))


GPTJ = Family(
    "gptj",
    "GPTJForCausalLM",
    _read_gptj,
    _write_gptj,
    _rules_gptj,
    prefix="transformer.",
    ignored=MASKS,
    variants=(
        {"rotary_dim": 4},
        {"rotary_dim": 8, "n_inner": 40, "tie_word_embeddings": True},
        {"rotary_dim": 2, "n_head": 2, "activation_function": "relu"},
    ),
)
"""GPT-J: both blocks of a layer read one layer norm; adjacent channels of a head's first part are turned."""
