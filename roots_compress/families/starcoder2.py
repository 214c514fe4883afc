"""StarCoder 2: layer norms, biases everywhere, no gate."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import one_window, read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec, Norm

EPS_KEY = "norm_epsilon"
NAMES = {**NORM_NAMES, "mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}
UNREAD = """
    activation_function attention_softmax_in_fp32 embedding_dropout layer_norm_epsilon mlp_type norm_type
    residual_dropout scale_attention_softmax_in_fp32
    """.split()  # noqa: SIM905
"""Keys of published configurations that transformers' class does not read, or only while it trains."""


def _read(switches: Switches) -> ModelSpec:
    switches.leave(*UNREAD)
    switches.same("scale_attn_weights", True)
    bias = switches.flag("use_bias", True)
    return read_decoder(
        switches,
        windows=one_window,
        biases=(bias, bias),
        mlp_bias=bias,
        gated=False,
        activation="gelu_pytorch_tanh",
        null_head_dim=True,
        kv_heads=2,
        context=4096,
        tied=True,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
    )


STARCODER2 = Family(
    "starcoder2",
    "Starcoder2ForCausalLM",
    _read,
    partial(write_decoder, windows="all", eps_key=EPS_KEY, mlp_bias="use_bias"),
    partial(decoder_rules, names=NAMES),
    variants=(
        {},
        {"use_bias": False, "num_key_value_heads": 1, "tie_word_embeddings": False},
        {"sliding_window": 5, "hidden_act": "gelu", "head_dim": 16},
    ),
)
