"""Falcon: layer norms, both blocks of a layer reading one stream, query heads that share keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, QKV, decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.spec import ModelSpec, Norm

NAMES = {
    **NORM_NAMES,
    **dict.fromkeys(QKV, "self_attention.query_key_value"),
    "self_attn.o_proj": "self_attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}
TWO_NORMS = {"self_attn_pre_norm": "ln_attn", "mlp_pre_norm": "ln_mlp"}
OUTER = {"embed_tokens": "word_embeddings", "layers": "h", "norm": "ln_f"}
GROUPED, SHARED, PARALLEL = "new_decoder_architecture", "multi_query", "parallel_attn"
NORMS, EPS_KEY = "num_ln_in_parallel_attn", "layer_norm_epsilon"
SPELLED = {
    "intermediate_size": "ffn_hidden_size",
    "hidden_act": "activation",
    "attention_bias": "bias",
    "num_key_value_heads": "num_kv_heads",
}


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("n_embed", "hidden_size")
    for key in ("alibi", "apply_residual_connection_post_layernorm"):
        switches.same(key, False)
    for key in ("intermediate_size", "num_key_value_heads"):  # The class has them under other names.
        switches.same(key)
    if switches.has("head_dim"):
        switches.refuse("head_dim is given, and the family's class takes hidden_size over the heads alone")
    grouped, parallel = switches.flag(GROUPED, False), switches.flag(PARALLEL, True)
    shared = switches.flag(SHARED, True)
    norms = switches.take(NORMS)
    if grouped and not parallel:
        switches.refuse(f"{GROUPED} is true and {PARALLEL} false, which no published model has")
    if norms not in ((None, 1, 2) if grouped else (None, 1)):
        switches.refuse(f"{NORMS} is {shown(norms)}, which no published model has")
    width, heads = switches.width_and_heads()
    given = switches.optional_number("num_kv_heads")
    kv_heads = (given or heads) if grouped else 1 if shared else heads
    if not grouped and not shared and given not in (None, heads):
        switches.refuse(f"num_kv_heads is {given}, and each of {heads} query heads has its own")
    channels = switches.optional_number("ffn_hidden_size")
    bias = switches.flag("bias", False)
    for key, value in (
        ("hidden_size", width),
        ("num_attention_heads", heads),
        ("num_key_value_heads", kv_heads),
        ("intermediate_size", channels or 4 * width),
    ):
        switches.put(key, value)
    return read_decoder(
        switches,
        biases=(bias, bias),
        mlp_bias=bias,
        gated=False,
        parallel=parallel,
        one_norm=not grouped or norms == 1,
        own_heads=False,
        whole_heads=True,
        context=2048,
        tied=True,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
        activation_key="activation",
        activation="gelu",
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, mlp = spec.layers[0]
    written = write_decoder(spec, attention_bias=True, own_heads=False, eps_key=EPS_KEY)
    for ours, theirs in SPELLED.items():
        written[theirs] = written.pop(ours)
    heads, kv_heads = written["num_attention_heads"], written["num_kv_heads"]
    two = attention.parallel and not mlp.shares_norm
    grouped = attention.parallel and (two or kv_heads not in (1, heads))
    norms = {NORMS: 2 if two else 1} if grouped else {}
    return {**written, GROUPED: grouped, SHARED: kv_heads == 1, PARALLEL: attention.parallel, **norms}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    attention, mlp = spec.layers[0]
    two = attention.parallel and not mlp.shares_norm
    return decoder_rules(spec, names=NAMES | (TWO_NORMS if two else {}), outer=OUTER, by_head=True)


FALCON = Family(
    "falcon",
    "FalconForCausalLM",
    _read,
    _write,
    _rules,
    prefix="transformer.",
    variants=(
        {},
        {GROUPED: True, "num_kv_heads": 2, "bias": True},
        {GROUPED: True, "num_kv_heads": 2, NORMS: 1, "tie_word_embeddings": False},
        {SHARED: False, PARALLEL: False, "ffn_hidden_size": None, "activation": "relu"},
    ),
)
