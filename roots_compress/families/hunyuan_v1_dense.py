"""Hunyuan (dense) and HY-MT: norms of queries and keys that their positions have turned."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.rope import DEFAULT_THETA
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive
from roots_compress.models.ops.attention import QkNorm, Rope
from roots_compress.models.spec import ModelSpec

NAMES = {
    **NORM_NAMES,
    "self_attn.q_norm": "self_attn.query_layernorm",
    "self_attn.k_norm": "self_attn.key_layernorm",
}
UNREAD = """
    add_classification_head attention_head_dim cla_share_factor class_num dense_list eod_token_id
    group_limited_greedy im_end_id im_newline_id im_start_id mask_init_id norm_type num_shared_expert
    org_vocab_size pad_id pool_type routed_scaling_factor text_end_id text_start_id topk_group
    """.split()  # noqa: SIM905
"""Keys of published configurations that transformers' class does not read."""
SAID = {
    "use_rotary_pos_emb": True,
    "position_embedding_xdrope": False,
    "use_cla": False,
    "use_mla": False,
    "num_experts": 1,
}
"""Others, and what its models do."""


def _fixed_rope(switches: Switches) -> Rope | None:
    """Take positions whose base is fixed by `alpha`, which configurations call dynamic; None for others."""
    for key in ("rope_scaling", "rope_parameters"):
        given = switches.said(key, None)
        if not isinstance(given, dict) or given.get("rope_type", given.get("type")) != "dynamic":
            continue
        alpha, width = given.get("alpha"), switches.said("head_dim", None)
        theta = given.get("rope_theta", switches.take("rope_theta", DEFAULT_THETA))
        if is_positive(alpha) and is_positive(theta) and type(width) is int and width > 2:
            switches.take(key)
            return Rope(theta=float(theta) * float(alpha or 1) ** (width / (width - 2)))
    return None


def read_hunyuan(switches: Switches) -> ModelSpec:
    """Return what a configuration says of all but experts."""
    for key in UNREAD:
        switches.take(key)
    for key, does in SAID.items():
        switches.same(key, does)
    return read_decoder(
        switches,
        rope=_fixed_rope(switches),
        qk_norm=QkNorm(after_rope=True),
        stated_head_dim=True,
        null_kv_heads=True,
        context=2048,
        eps=1e-5,
    )


FAMILY = Family(
    "hunyuan_v1_dense",
    "HunYuanDenseV1ForCausalLM",
    read_hunyuan,
    partial(write_decoder, attention_bias=True),
    partial(decoder_rules, names=NAMES),
    variants=(
        {},
        {
            "rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 100.0},
            "num_key_value_heads": 1,
        },
        {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True},
    ),
)
