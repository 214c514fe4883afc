"""GPT-BigCode (StarCoder, SantaCoder): GPT-2 with one head of keys and values, and plain matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder_config import first_blocks
from roots_compress.families.decoder_tensors import QKV, decoder_rules
from roots_compress.families.gpt2 import read_gpt, read_score_factor, write_gpt
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention
from roots_compress.models.spec import ModelSpec

NAMES = {
    "self_attn_pre_norm": "ln_1",
    "mlp_pre_norm": "ln_2",
    **dict.fromkeys(QKV, "attn.c_attn"),
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}
OUTER = {"embed_tokens": "wte", "layers": "h", "norm": "ln_f"}
UNREAD = """
    attention_softmax_in_fp32 inference_runner max_batch_size pad_key_length pre_allocate_kv_cache
    scale_attention_softmax_in_fp32 validate_runner_input
    """.split()  # noqa: SIM905
"""Keys that say how the model is computed."""


def _read(switches: Switches) -> ModelSpec:
    for key in UNREAD:
        switches.take(key)
    if not switches.flag("multi_query", True):
        switches.refuse("multi_query is false: only models of one head of keys and values can be imported")
    switches.same("num_key_value_heads", 1)
    scale = read_score_factor(switches)
    return read_gpt(
        switches,
        lambda heads, size: Attention(
            heads=heads, kv_heads=1, head_dim=size, scale=scale, bias=True, output_bias=True
        ),
        context=1024,
        activation="gelu_pytorch_tanh",
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    scaled = first_blocks(spec)[0].scale is None
    return {**write_gpt(spec), "scale_attn_weights": scaled, "multi_query": True}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from decoder_rules(spec, names=NAMES, outer=OUTER)
    yield Rule("wpe.weight", ("model.embed_positions.weight",))


FAMILY = Family(
    "gpt_bigcode",
    "GPTBigCodeForCausalLM",
    _read,
    _write,
    _rules,
    prefix="transformer.",
    ignored=("h.{}.attn.bias", "h.{}.attn.masked_bias"),
    variants=(
        {},
        {"n_inner": 40, "tie_word_embeddings": False, "scale_attn_weights": False},
        {"activation_function": "relu", "n_head": 2},
    ),
)
