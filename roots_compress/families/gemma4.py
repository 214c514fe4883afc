"""Gemma 4 (text): heads of two sizes, norms of values, and layers that read the keys and values of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import BOTH, Shape, decoder_spec, pre_norm_layer, read_shape
from roots_compress.families.decoder_config import first_blocks, typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.gemma import HEADS, NORM_NAMES, softcap
from roots_compress.families.gemma4_experts import experts_beside
from roots_compress.families.rope import FULL, SLIDING, ropes_by_type, written_ropes
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import Attention, QkNorm
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import LayerInput, Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.ops.stream import LayerInputs
from roots_compress.models.spec import ModelSpec

WINDOW, GLOBAL_HEAD = 512, 512
ROPES: dict[str, tuple[str | None, float]] = {FULL: (None, 1_000_000.0), SLIDING: (None, 10_000.0)}
PROPORTIONAL = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0}
DEFAULT_ROPES = {FULL: PROPORTIONAL, SLIDING: {"rope_type": "default", "rope_theta": 10_000.0}}
OVERRIDES = ("head_dim", "num_key_value_heads")
"""What `per_layer_config` may say of a layer."""
SHARED, WIDE = "num_kv_shared_layers", "use_double_wide_mlp"
PER_LAYER, PER_LAYER_VOCABULARY = "hidden_size_per_layer_input", "vocab_size_per_layer_input"
NAMES = {
    **NORM_NAMES,
    "layer_input.gate_proj": "per_layer_input_gate",
    "layer_input.out_proj": "per_layer_projection",
    "layer_input_post_norm": "post_per_layer_input_norm",
}
MOE = {"experts": "num_experts", "chosen": "top_k_experts", "channels": "moe_intermediate_size"}
MOE_NAMES = {
    "mlp_post_norm": "post_feedforward_layernorm_1",
    "moe_post_norm": "post_feedforward_layernorm_2",
    "moe_joint_norm": "post_feedforward_layernorm",
}
TABLES = {
    "embed_tokens_per_layer": "table",
    "per_layer_model_projection": "projection",
    "per_layer_projection_norm": "norm",
}
"""Modules of per-layer embeddings, and their names in ours."""


def _read(switches: Switches) -> ModelSpec:
    shape = read_shape(switches, context=131_072, **HEADS)
    switches.same("use_bidirectional_attention", None, "vision")  # Of images alone.
    window = switches.optional_number("sliding_window", WINDOW)
    slides = [bool((index + 1) % 6) for index in range(shape.layers)]
    # transformers makes the last layer attend to everything, whatever is said.
    windows = [*switches.typed_windows(window, shape.layers, slides)[:-1], None]
    shares_values = switches.flag("attention_k_eq_v", False)
    sizes = _sizes(switches, windows, (shape.head_dim, shape.kv_heads), shares_values)
    if switches.null("rope_parameters"):
        switches.put("rope_parameters", DEFAULT_ROPES)
    ropes = ropes_by_type(switches, shape.max_positions, ROPES)
    bias = switches.flag("attention_bias", False)
    taking = _taking(switches, windows)
    inputs, moe = _layer_inputs(switches, shape), _moe(switches, shape)
    mlp = Mlp(channels=shape.channels, activation=shape.activation)
    wide = changed(mlp, channels=2 * shape.channels) if switches.flag(WIDE, False) else mlp
    layers = []
    for index, (each, (head_dim, kv_heads)) in enumerate(zip(windows, sizes, strict=True)):
        takes = index >= shape.layers - taking
        if shape.heads % kv_heads:
            switches.refuse(f"{kv_heads} key/value heads do not divide num_attention_heads {shape.heads}")
        attention = Attention(
            heads=shape.heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            rope=ropes[FULL if each is None else SLIDING],
            window=each,
            qk_norm=QkNorm(eps=shape.norm.eps, values=True),
            scale=1.0,
            bias=bias,
            output_bias=bias,
            keys_as_values=shares_values and each is None and not takes,
            sharing=None if not taking else "takes" if takes else "gives",
        )
        layer = pre_norm_layer(attention, wide if takes else mlp, shape.norm, norms=BOTH)
        if moe is not None:
            norm = shape.norm
            experts = Sublayer(op=moe, pre_norm=norm, post_norm=norm, joint_norm=norm)
            layer = (layer[0], changed(layer[1], parallel=True), experts)
        if inputs is not None:
            block = LayerInput(channels=inputs.channels, activation=shape.activation)
            layer = (*layer, Sublayer(op=block, post_norm=shape.norm))
        layers.append((*layer[:-1], changed(layer[-1], stream_scale=True)))
    head = LmHead(softcap=softcap(switches, "final_logit_softcapping", None))
    return decoder_spec(shape, layers, scale=shape.width**0.5, head=head, layer_inputs=inputs)


def _sizes(
    switches: Switches, windows: Sequence[int | None], usual: tuple[int, int], shares_values: bool
) -> list[tuple[int, int]]:
    """Take what is said of layers that attend to everything; return each layer's head size and key heads.

    Published files name the size of their heads, transformers writes what is unlike the others by layer.
    """
    size = switches.number("global_head_dim", GLOBAL_HEAD)
    heads = switches.optional_number("num_global_key_value_heads")
    wide = size, heads if heads is not None and shares_values else usual[1]
    found = [wide if window is None else usual for window in windows]
    given = switches.take("per_layer_config")
    if given is None:
        return found
    if not isinstance(given, Mapping) or not all(isinstance(each, Mapping) for each in given.values()):
        switches.refuse(f"per_layer_config is {shown(given)}; it must hold an object by layers' numbers")
    found = [usual] * len(windows)
    for name, values in given.items():
        index = int(name) if str(name).isdecimal() else -1
        if not 0 <= index < len(found) or values.keys() - {*OVERRIDES}:
            switches.refuse(f"per_layer_config[{name!r}] names no layer, or says more than {OVERRIDES}")
        numbers = tuple(values.get(key, default) for key, default in zip(OVERRIDES, usual, strict=True))
        if not all(type(number) is int and number >= 1 for number in numbers):
            switches.refuse(f"per_layer_config[{name!r}] is {shown(values)}; it must hold whole numbers")
        found[index] = numbers[0], numbers[1]
    return found


def _taking(switches: Switches, windows: Sequence[int | None]) -> int:
    """Take how many of the last layers read the keys and values of others."""
    count = switches.take(SHARED, 0)
    if type(count) is not int or not 0 <= count < len(windows):
        switches.refuse(f"{SHARED} is {shown(count)}; it must be a number of layers that leaves others")
    if {*windows} != {*windows[: len(windows) - count]}:
        switches.refuse(f"{SHARED} {count} leaves no layer of one kind that makes keys and values")
    return count


def _layer_inputs(switches: Switches, shape: Shape) -> LayerInputs | None:
    """Take what is said of per-layer embeddings; 0 channels are none."""
    channels, rows = switches.take(PER_LAYER, 256), switches.take(PER_LAYER_VOCABULARY, 262_144)
    if channels in (0, None):
        return None
    if type(channels) is not int or channels < 0:
        switches.refuse(f"{PER_LAYER} is {shown(channels)}; it must be a whole number")
    if rows != shape.vocabulary:
        switches.refuse(f"{PER_LAYER_VOCABULARY} is {shown(rows)}, and vocab_size {shape.vocabulary}")
    return LayerInputs(channels=channels, eps=shape.norm.eps)


def _moe(switches: Switches, shape: Shape) -> Moe | None:
    """Take what is said of experts beside the feed-forward block of each layer."""
    if not switches.flag("enable_moe_block", False):
        switches.leave(*MOE.values())
        return None
    count, chosen, channels = (switches.number(key) for key in MOE.values())
    return Moe(experts=count, chosen=chosen, channels=channels, activation=shape.activation, beside_mlp=True)


def _write(spec: ModelSpec) -> dict[str, Any]:
    attentions = spec.attentions()
    sliding = next((each for each in attentions if each.window is not None), attentions[0])
    full = next((each for each in attentions if each.window is None), attentions[0])
    taking = sum(each.sharing == "takes" for each in attentions)
    _, mlp = first_blocks(spec)
    last = spec.layers[-1][1].op
    moe = next((op for _, op in spec.blocks() if isinstance(op, Moe)), None)
    written = write_decoder(spec, attention_bias=True)
    written["hidden_activation"] = written.pop("hidden_act")
    return {
        **written,
        **typed_windows(spec, WINDOW),
        "rope_parameters": written_ropes(attentions, ROPES),
        "head_dim": sliding.head_dim,
        "num_key_value_heads": sliding.kv_heads,
        "global_head_dim": full.head_dim,
        "num_global_key_value_heads": full.kv_heads if full.keys_as_values else None,
        "attention_k_eq_v": full.keys_as_values,
        SHARED: taking,
        "enable_moe_block": moe is not None,
        **{key: getattr(moe, ours) for ours, key in MOE.items() if moe is not None},
        PER_LAYER: 0 if spec.embeddings.layer_inputs is None else spec.embeddings.layer_inputs.channels,
        PER_LAYER_VOCABULARY: spec.embeddings.vocabulary,
        WIDE: isinstance(last, Mlp) and last.channels == 2 * mlp.channels,
        "final_logit_softcapping": spec.lm_head.softcap,
    }


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    beside = any(isinstance(op, Moe) for _, op in spec.blocks())
    names = NAMES | (MOE_NAMES if beside else {})
    yield from decoder_rules(spec, names=names, computed=experts_beside(spec))
    for theirs, ours in TABLES.items() if spec.embeddings.layer_inputs else ():
        yield Rule(f"{theirs}.weight", (f"model.embed_layers.{ours}.weight",))
    for index, layer in enumerate(spec.layers):
        ours = f"model.layers.{index}.{layer[-1].name}_stream_scale"
        yield Rule(f"layers.{index}.layer_scalar", (ours,))


GEMMA4 = Family(
    "gemma4_text",
    "Gemma4ForCausalLM",
    _read,
    _write,
    _rules,
    # Layers that read the keys of others have these in published files, and transformers passes them over.
    ignored=tuple(
        f"layers.{{}}.self_attn.{name}"
        for name in ("k_proj.weight", "v_proj.weight", "k_norm.weight", "k_proj.bias", "v_proj.bias")
    ),
    computed=lambda spec, _config: experts_beside(spec),
    variants=(
        {"layer_types": [SLIDING, FULL], "sliding_window": 5},
        {
            "layer_types": [SLIDING, FULL],
            "sliding_window": 5,
            "enable_moe_block": True,
            "num_experts": 5,
            "top_k_experts": 2,
            "moe_intermediate_size": 24,
        },
        {
            "layer_types": [SLIDING, FULL],
            "sliding_window": 7,
            "attention_k_eq_v": True,
            "num_key_value_heads": 4,
            "num_global_key_value_heads": 1,
        },
        {"layer_types": [FULL, FULL], "attention_bias": True, "final_logit_softcapping": 3.0},
        {
            "layer_types": [SLIDING, FULL] * 3,
            "num_hidden_layers": 6,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "sliding_window": 5,
            PER_LAYER: 4,
            "rope_parameters": {FULL: {**PROPORTIONAL, "partial_rotary_factor": 0.5, "rope_theta": 100.0}}
            | {SLIDING: DEFAULT_ROPES[SLIDING]},
        },
        {"layer_types": [SLIDING, FULL], "tie_word_embeddings": False, PER_LAYER: 4},
        {
            "layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL],
            "num_hidden_layers": 5,
            "num_kv_shared_layers": 2,
            "hidden_activation": "silu",
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "sliding_window": 4,
            PER_LAYER: 6,
        },
        {"num_hidden_layers": 7, "sliding_window": 9, "global_head_dim": 8, "num_key_value_heads": 4},
        {"layer_types": [SLIDING, SLIDING], "sliding_window": 30, "rms_norm_eps": 1e-3, PER_LAYER: 2},
    ),
)
