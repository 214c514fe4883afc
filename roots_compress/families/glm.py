"""GLM-4 to GLM-4.7."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import BOTH, Norms, decoder_spec, read_decoder
from roots_compress.families.decoder_config import first_blocks, write_decoder
from roots_compress.families.decoder_tensors import GATE_UP, NORM_NAMES, decoder_rules
from roots_compress.families.deepseek import VARIANTS as DEEPSEEK_VARIANTS
from roots_compress.families.deepseek import read_interleaved
from roots_compress.families.experts import with_shared
from roots_compress.families.latent import TURNED, latent_layers, latent_rules, read_latent, write_latent
from roots_compress.families.routed import NAMES as ROUTED_NAMES
from roots_compress.families.routed import read_leading, read_routed, sparse_layers, write_routed
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.spec import ModelSpec

NAMES = {**NORM_NAMES, **dict.fromkeys(GATE_UP, "mlp.gate_up_proj")}


def _read_glm(switches: Switches, norms: Norms = ("pre_norm",)) -> ModelSpec:
    return read_decoder(
        switches,
        biases=(switches.flag("attention_bias", True), False),
        partial=0.5,
        head_dim=128,
        kv_heads=2,
        context=131072,
        eps=1.5625e-07,
        norms=norms,
    )


def _write_glm(spec: ModelSpec) -> dict[str, Any]:
    return write_decoder(spec, attention_bias=True, partial=True)


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"attention_bias": False, "num_key_value_heads": 1, "tie_word_embeddings": True},
    {"head_dim": 16, "rope_theta": 100.0, "partial_rotary_factor": 1.0},
)
GLM_RULES = partial(decoder_rules, names=NAMES, paired=True)
GLM = Family("glm", "GlmForCausalLM", _read_glm, _write_glm, GLM_RULES, variants=VARIANTS)
"""GLM-4 as first published: fused feed-forward blocks, adjacent channels of half a head turned."""


POST_NORMS = {"self_attn_post_norm": "post_self_attn_layernorm", "mlp_post_norm": "post_mlp_layernorm"}
GLM4 = Family(
    "glm4",
    "Glm4ForCausalLM",
    partial(_read_glm, norms=BOTH),
    _write_glm,
    partial(decoder_rules, names={**NAMES, **POST_NORMS}, paired=True),
    variants=VARIANTS,
)
"""GLM-4-0414: GLM-4 with norms after its blocks too."""


def _read_glm4_moe(switches: Switches) -> ModelSpec:
    bias = switches.flag("attention_bias", False)
    spec = read_decoder(
        switches,
        biases=(bias, False),
        qk_norm=QkNorm() if switches.flag("use_qk_norm", False) else None,
        partial=0.5,
        kv_heads=8,
        context=131072,
        eps=1e-5,
    )
    shared = read_routed(
        switches,
        first_blocks(spec)[1].activation,
        experts=128,
        chosen=8,
        channels=1408,
        shared=1,
        renormalise=True,
    )
    sparse = read_leading(switches, len(spec.layers), 1)
    return spec.with_layers(with_shared(spec.layers, shared, sparse))


def _write_glm4_moe(spec: ModelSpec) -> dict[str, Any]:
    written = write_decoder(spec, attention_bias=True, partial=True)
    normed = spec.attentions()[0].qk_norm is not None
    return {**written, **write_routed(spec), "use_qk_norm": normed}


GLM4_MOE = Family(
    "glm4_moe",
    "Glm4MoeForCausalLM",
    _read_glm4_moe,
    _write_glm4_moe,
    partial(decoder_rules, names=ROUTED_NAMES),
    variants=(
        {},
        {"use_qk_norm": True, "attention_bias": True, "first_k_dense_replace": 0},
        {"n_group": 3, "topk_group": 2, "num_experts_per_tok": 4, "routed_scaling_factor": 2.5},
        {"n_group": 2, "topk_group": 1, "num_experts_per_tok": 3, "norm_topk_prob": False},
        {"n_shared_experts": 2, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {"partial_rotary_factor": 1.0, "head_dim": 16, "num_experts_per_tok": 1},
        {"num_hidden_layers": 3, "first_k_dense_replace": 2, "rms_norm_eps": 1e-3},
        {"n_routed_experts": 7, "moe_intermediate_size": 20, "hidden_act": "gelu"},
    ),
)
"""GLM-4.5, 4.6 and 4.7: a sigmoid router, shared experts, and rotary positions on half of each head."""


TYPES, DENSE, SPARSE, LEADING = "mlp_layer_types", "dense", "sparse", "first_k_dense_replace"


def _read_glm4_moe_lite(switches: Switches) -> ModelSpec:
    read_interleaved(switches)
    switches.renamed("head_dim", TURNED)
    shape, attention = read_latent(
        switches, query_rank=768, plain=192, values=256, kv_heads=20, context=202752, eps=1e-5
    )
    shared = read_routed(
        switches,
        shape.activation,
        experts=64,
        chosen=4,
        channels=1536,
        shared=1,
        renormalise=True,
        scale=1.8,
    )
    types = switches.take(TYPES)
    types = [DENSE] + [SPARSE] * (shape.layers - 1) if types is None else types
    if not isinstance(types, list) or len(types) != shape.layers or not {*map(str, types)} <= {DENSE, SPARSE}:
        switches.refuse(f"{TYPES} is {shown(types)}; it must name {DENSE} or {SPARSE} for each layer")
    if SPARSE not in types:
        switches.refuse(f"{TYPES} names no layer with experts")
    # Published configurations have it; transformers' class does not read it.
    switches.same(LEADING, types.index(SPARSE))
    layers = latent_layers(shape, attention, shared, [each == SPARSE for each in types])
    return decoder_spec(shape, layers)


def _write_glm4_moe_lite(spec: ModelSpec) -> dict[str, Any]:
    written = {**write_latent(spec), **write_routed(spec)}
    del written[LEADING]
    return {**written, TYPES: [SPARSE if each else DENSE for each in sparse_layers(spec)]}


GLM4_MOE_LITE = Family(
    "glm4_moe_lite",
    "Glm4MoeLiteForCausalLM",
    _read_glm4_moe_lite,
    _write_glm4_moe_lite,
    latent_rules,
    variants=(
        *DEEPSEEK_VARIANTS,
        {"num_hidden_layers": 3, TYPES: [SPARSE, DENSE, SPARSE], "rms_norm_eps": 1e-2},
    ),
)
"""GLM-4.7-Flash: DeepSeek-V3's layers in a smaller model."""
