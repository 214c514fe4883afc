"""GPT-J: both blocks of a layer read one layer norm; adjacent channels of a head's first part are turned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder_config import first_blocks
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.gpt2 import read_gpt, write_gpt
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention, Rope
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.spec import ModelSpec

NAMES = {
    "self_attn_pre_norm": "ln_1",
    **{f"self_attn.{name}_proj": f"attn.{name}_proj" for name in "qkv"},
    "self_attn.o_proj": "attn.out_proj",
    "mlp.up_proj": "mlp.fc_in",
    "mlp.down_proj": "mlp.fc_out",
}
OUTER = {"embed_tokens": "wte", "layers": "h", "norm": "ln_f"}
TURNED = "rotary_dim"


def _read(switches: Switches) -> ModelSpec:
    for key in ("rotary", "scale_attn_weights"):  # Published, and not read by transformers' class.
        switches.same(key, True)
    turned = switches.number(TURNED, 64)

    def attention(heads: int, size: int) -> Attention:
        rope = Rope(rotary_dim=None if turned == size else turned)
        return Attention(heads=heads, kv_heads=heads, head_dim=size, rope=rope)

    head = LmHead(bias=True)
    return read_gpt(switches, attention, context=2048, positions=False, tied=False, parallel=True, head=head)


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, _ = first_blocks(spec)
    return {**write_gpt(spec), TURNED: (attention.rope or Rope()).rotary_dim or attention.head_dim}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from decoder_rules(spec, names=NAMES, outer=OUTER, paired=True)
    yield Rule("lm_head.bias", ("logits_bias",))


FAMILY = Family(
    "gptj",
    "GPTJForCausalLM",
    _read,
    _write,
    _rules,
    prefix="transformer.",
    ignored=("h.{}.attn.bias", "h.{}.attn.masked_bias"),
    variants=(
        {"rotary_dim": 4},
        {"rotary_dim": 8, "n_inner": 40, "tie_word_embeddings": True},
        {"rotary_dim": 2, "n_head": 2, "activation_function": "relu"},
    ),
)
