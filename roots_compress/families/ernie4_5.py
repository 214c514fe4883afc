"""ERNIE 4.5, dense and with experts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import first_blocks, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import TRAINING, Shared, with_shared
from roots_compress.families.routed import (
    CHANNELS,
    NAMES,
    dense_channels,
    routed_blocks,
    shared_mlp,
    sharing,
    sparse_layers,
)
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import ONE_ROW
from roots_compress.families.values import shown
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Activation
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec


def _read_ernie4_5(switches: Switches) -> ModelSpec:
    bias = switches.flag("use_bias", False)
    return read_decoder(
        switches,
        biases=(bias, bias),
        mlp_bias=bias,
        theta=500_000.0,
        head_dim=128,
        null_head_dim=True,
        kv_heads=2,
        null_kv_heads=True,
        context=131072,
        tied=True,
        eps=1e-5,
    )


def paired_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of a Llama whose adjacent channels are turned."""
    return decoder_rules(spec, paired=True)


ERNIE4_5 = Family(
    "ernie4_5",
    "Ernie4_5ForCausalLM",
    _read_ernie4_5,
    partial(write_decoder, mlp_bias="use_bias"),
    paired_rules,
    variants=(
        {},
        {"use_bias": True, "num_key_value_heads": 1, "tie_word_embeddings": False},
        {"head_dim": 16, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    ),
)
"""ERNIE 4.5 (dense): a Llama whose adjacent channels are turned."""


EXPERTS, CHOSEN, SHARED = "moe_num_experts", "moe_k", "moe_num_shared_experts"
FIRST, LAST, STEP = "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"
BIAS = "mlp.moe_statics.e_score_correction_bias"
UNREAD = ("moe_capacity", "moe_gate", "moe_use_aux_free", "num_nextn_predict_layers")
"""Keys of published configurations that transformers' class does not read."""


def _read_ernie4_5_moe(switches: Switches) -> ModelSpec:
    switches.leave(*TRAINING, *UNREAD)
    switches.renamed("num_experts", EXPERTS)
    switches.renamed("num_experts_per_tok", CHOSEN)
    bias = switches.flag("use_bias", False)
    spec = read_decoder(
        switches,
        biases=(bias, bias),
        mlp_bias=bias,
        theta=500_000.0,
        kv_heads=4,
        context=131072,
        tied=True,
        eps=1e-5,
        head=LmHead(bias=bias),
    )
    activation = first_blocks(spec)[1].activation
    moe = _experts(switches, activation)
    one_for_all = None
    if switches.said(SHARED, 2) == 0:
        switches.take(SHARED)
    else:
        one_for_all = shared_mlp(switches, moe.channels, activation, SHARED, 2, bias=bias)
    sparse = _sparse(switches, len(spec.layers))
    return spec.with_layers(with_shared(spec.layers, Shared(moe, one_for_all), sparse))


def _experts(switches: Switches, activation: Activation) -> Moe:
    return Moe(
        experts=switches.number(EXPERTS, 64),
        chosen=switches.number(CHOSEN, 6),
        channels=switches.number(CHANNELS, 1536),
        activation=activation,
        selection_bias=True,
        least_sum=switches.positive("moe_norm_min", 1e-12),
    )


def _sparse(switches: Switches, layers: int) -> list[bool]:
    """Take which layers have experts: every so-manieth between the first and the last."""
    first, last = switches.take(FIRST, 1), switches.take(LAST, -1)
    if type(first) is not int or type(last) is not int:
        switches.refuse(f"{FIRST} is {shown(first)}, and {LAST} {shown(last)}; they must be whole numbers")
    last = layers - 1 if last == -1 else last
    found = _every(switches.number(STEP, 1), first, last, layers)
    if not any(found):
        switches.refuse(f"{FIRST} and {LAST} leave no layer with experts")
    return found


def _every(step: int, first: int, last: int, layers: int) -> list[bool]:
    return [(index + 1) % step == 0 and first <= index <= last for index in range(layers)]


def _write(spec: ModelSpec) -> dict[str, Any]:
    moe, shared = routed_blocks(spec)
    sparse = sparse_layers(spec)
    places = [index for index, each in enumerate(sparse) if each]
    steps = range(1, len(sparse) + 1)
    step = next((n for n in steps if _every(n, places[0], places[-1], len(sparse)) == sparse), 1)
    return {
        **write_decoder(spec, mlp_bias="use_bias"),
        **dense_channels(spec),
        "use_bias": spec.attentions()[0].bias,
        EXPERTS: moe.experts,
        CHOSEN: moe.chosen,
        CHANNELS: moe.channels,
        SHARED: 0 if shared is None else sharing(moe, shared),
        "moe_norm_min": moe.least_sum,
        FIRST: places[0],
        LAST: places[-1],
        STEP: step,
    }


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    for rule in decoder_rules(spec, names={**NAMES, "mlp.selection_bias": BIAS}, paired=True):
        one_row = rule.source.endswith(BIAS)
        yield Rule(rule.source, rule.targets, ONE_ROW) if one_row else rule
    if not isinstance(spec.head, LmHead) or spec.head.bias:
        yield Rule("lm_head.bias", ("logits_bias",))


ERNIE4_5_MOE = Family(
    "ernie4_5_moe",
    "Ernie4_5_MoeForCausalLM",
    _read_ernie4_5_moe,
    _write,
    _rules,
    variants=(
        {},
        {"use_bias": True, "num_key_value_heads": 1, "tie_word_embeddings": False},
        {"moe_layer_start_index": 0, "moe_num_shared_experts": 1, "moe_k": 4},
        {"num_hidden_layers": 4, "moe_layer_interval": 2, "moe_layer_start_index": 0},
        {"num_hidden_layers": 3, "moe_layer_end_index": 1, "moe_k": 1},
        {"moe_num_shared_experts": 0, "moe_norm_min": 0.5, "head_dim": 16},
        {"moe_num_experts": 7, "moe_intermediate_size": 20, "hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    ),
)
"""ERNIE 4.5 with experts: a softmax weighs them, numbers of each count in the choice alone."""
