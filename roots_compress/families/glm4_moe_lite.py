"""GLM-4.7-Flash: DeepSeek-V3's layers in a smaller model."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec
from roots_compress.families.deepseek_v3 import VARIANTS, read_interleaved
from roots_compress.families.latent import TURNED, latent_layers, latent_rules, read_latent, write_latent
from roots_compress.families.routed import read_routed, sparse_layers, write_routed
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.spec import ModelSpec

TYPES, DENSE, SPARSE, LEADING = "mlp_layer_types", "dense", "sparse", "first_k_dense_replace"


def _read(switches: Switches) -> ModelSpec:
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


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = {**write_latent(spec), **write_routed(spec)}
    del written[LEADING]
    return {**written, TYPES: [SPARSE if each else DENSE for each in sparse_layers(spec)]}


FAMILY = Family(
    "glm4_moe_lite",
    "Glm4MoeLiteForCausalLM",
    _read,
    _write,
    latent_rules,
    variants=(
        *VARIANTS,
        {"num_hidden_layers": 3, TYPES: [SPARSE, DENSE, SPARSE], "rms_norm_eps": 1e-2},
    ),
)
