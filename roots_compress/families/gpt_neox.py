"""GPT-NeoX and Pythia: layer norms, both blocks of a layer reading one stream, heads turned in part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, QKV, decoder_rules
from roots_compress.families.rope import DEFAULT_THETA, PARTIAL
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec, Norm

EPS_KEY, PARALLEL = "layer_norm_eps", "use_parallel_residual"
NAMES = {
    **NORM_NAMES,
    **dict.fromkeys(QKV, "attention.query_key_value"),
    "self_attn.o_proj": "attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}
OUTER = {"embed_tokens": "embed_in", "norm": "final_layer_norm", "lm_head": "embed_out"}
SHARE, BASE = 0.25, ("rotary_emb_base", "rope_theta", DEFAULT_THETA)


def _read(switches: Switches) -> ModelSpec:
    for spelling, key, default in (BASE, ("rotary_pct", PARTIAL, SHARE)):
        # transformers reads these under their own names only.
        switches.same(key, switches.said(spelling, default))
        switches.renamed(spelling, key)
    bias = switches.flag("attention_bias", True)
    switches.same("num_key_value_heads", switches.said("num_attention_heads", None))
    return read_decoder(
        switches,
        biases=(bias, bias),
        mlp_bias=True,
        gated=False,
        partial=SHARE,
        parallel=switches.flag(PARALLEL, True),
        one_norm=False,
        activation="gelu",
        own_heads=False,
        whole_heads=True,
        context=2048,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = write_decoder(spec, attention_bias=True, partial=True, own_heads=False, eps_key=EPS_KEY)
    if written.pop("num_key_value_heads") != written["num_attention_heads"]:
        raise ValueError("its query heads share keys and values")
    return {**written, PARALLEL: spec.layers[0][0].parallel}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    return decoder_rules(spec, names=NAMES, outer=OUTER, by_head=True)


GPT_NEOX = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    _read,
    _write,
    _rules,
    prefix="gpt_neox.",
    headed=("embed_out.",),
    ignored=tuple(f"layers.{{}}.attention.{name}" for name in ("bias", "masked_bias")),
    variants=(
        {},
        {"use_parallel_residual": False, "tie_word_embeddings": True, "num_attention_heads": 2},
        {"attention_bias": False, "hidden_act": "gelu_fast", "rotary_pct": 1.0, "rotary_emb_base": 100},
    ),
)
