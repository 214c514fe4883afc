"""Phi-1 to Phi-2: layer norms, both blocks of a layer reading one norm of one stream, biases everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.spec import ModelSpec, Norm

EPS_KEY = "layer_norm_eps"
NAMES = {
    "self_attn_pre_norm": "input_layernorm",
    "self_attn.o_proj": "self_attn.dense",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from decoder_rules(spec, names=NAMES, outer={"norm": "final_layernorm"})
    yield Rule("lm_head.bias", ("logits_bias",))


PHI = Family(
    "phi",
    "PhiForCausalLM",
    partial(
        read_decoder,
        biases=(True, True),
        mlp_bias=True,
        gated=False,
        partial=0.5,
        parallel=True,
        head=LmHead(bias=True),
        activation="gelu_new",
        null_kv_heads=True,
        context=2048,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
    ),
    partial(write_decoder, partial=True, eps_key=EPS_KEY),
    _rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "tie_word_embeddings": True, "head_dim": 16},
        {
            "hidden_act": "relu",
            "rope_theta": 100.0,
            "partial_rotary_factor": 1.0,
        },
    ),
)
