"""GPT-2: layer norms, learned positions, matrices stored the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import pre_norm_layer
from roots_compress.families.decoder_config import first_blocks
from roots_compress.families.encoder import linear_rules
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.transforms import Rows
from roots_compress.families.values import older_activation_name
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack

SPELLINGS = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
"""Second names of GPT-2's keys, which transformers' class takes for the first."""


def read_gpt(
    switches: Switches,
    attention: Callable[[int, int], Attention],
    *,
    context: int,
    positions: bool = True,
    activation: str = "gelu_new",
    tied: bool = True,
    parallel: bool = False,
    head: LmHead | None = None,
) -> ModelSpec:
    """Read a configuration with GPT-2's keys.

    Args:
        switches: the configuration; `finish` is left to the caller.
        attention: makes the attention of so many heads of a size.
        context: the default of `n_positions`.
        positions: whether they are learned.
        activation: the default of `activation_function`.
        tied: the default of `tie_word_embeddings`.
        parallel: whether both blocks of a layer read the same stream.
        head: of the logits.
    """
    switches.require_writer()
    for spelling, key in SPELLINGS.items():
        switches.renamed(spelling, key)
    width, heads = switches.width_and_heads("n_embd", "n_head")
    mlp = Mlp(
        channels=switches.number("n_inner", 4 * width, null=4 * width),
        activation=switches.activation("activation_function", activation),
        gated=False,
        bias=True,
    )
    count = switches.number("n_layer", most=MOST_LAYERS)
    switches.no_windows(count)
    length = switches.number("n_positions", context)
    norm = Norm(kind="layer_norm", eps=switches.positive("layer_norm_epsilon", 1e-5))
    layer = pre_norm_layer(attention(heads, width // heads), mlp, norm, parallel=parallel)
    return ModelSpec(
        stacks={"decoder": Stack(layers=(layer,) * count, final_norm=norm)},
        embeddings=Embeddings(
            vocabulary=switches.number("vocab_size"), width=width, positions=length if positions else None
        ),
        head=head or LmHead(),
        tied=switches.flag("tie_word_embeddings", tied),
        max_positions=length,
    )


def write_gpt(spec: ModelSpec) -> dict[str, Any]:
    """Return the keys that `read_gpt` reads."""
    attention, mlp = first_blocks(spec)
    return {
        "vocab_size": spec.embeddings.vocabulary,
        "n_embd": spec.width,
        "n_positions": spec.max_positions,
        "n_layer": len(spec.layers),
        "n_head": attention.heads,
        "n_inner": mlp.channels,
        "layer_norm_epsilon": (spec.stack.final_norm or Norm()).eps,
        "activation_function": older_activation_name(mlp.activation),
        "tie_word_embeddings": spec.tied,
    }


def read_score_factor(switches: Switches) -> float | None:
    """Take whether scores are divided by the root of the heads' size; None where they are."""
    return None if switches.flag("scale_attn_weights", True) else 1.0


def _read(switches: Switches) -> ModelSpec:
    scale = read_score_factor(switches)
    return read_gpt(
        switches,
        lambda heads, size: Attention(
            heads=heads, kv_heads=heads, head_dim=size, scale=scale, bias=True, output_bias=True
        ),
        context=1024,
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_gpt(spec), "scale_attn_weights": first_blocks(spec)[0].scale is None}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield Rule("wte.weight", ("model.embed_tokens.weight",))
    yield Rule("wpe.weight", ("model.embed_positions.weight",))
    for index, layer in enumerate(spec.layers):
        attention, mlp = (sublayer.op.matrices(spec.width) for sublayer in layer)
        ours = f"model.layers.{index}."
        qkv = [f"{ours}self_attn.{name}_proj" for name in "qkv"]
        sizes = tuple(attention[f"{name}_proj"].rows for name in "qkv")
        yield from linear_rules(f"h.{index}.ln_1", f"{ours}self_attn_pre_norm")
        yield from _linear(f"h.{index}.attn.c_attn", qkv, sizes)
        yield from _linear(f"h.{index}.attn.c_proj", [f"{ours}self_attn.o_proj"], (spec.width,))
        yield from linear_rules(f"h.{index}.ln_2", f"{ours}mlp_pre_norm")
        yield from _linear(f"h.{index}.mlp.c_fc", [f"{ours}mlp.up_proj"], (mlp["up_proj"].rows,))
        yield from _linear(f"h.{index}.mlp.c_proj", [f"{ours}mlp.down_proj"], (spec.width,))
    yield from linear_rules("ln_f", "model.norm")
    yield Rule("lm_head.weight", ("lm_head.weight",))


def _linear(source: str, targets: list[str], sizes: tuple[int, ...]) -> Iterator[Rule]:
    """Yield the rules of a `Conv1D`, whose weight has its inputs first."""
    yield Rule(f"{source}.weight", tuple(f"{each}.weight" for each in targets), Rows(sizes, transposed=True))
    yield Rule(f"{source}.bias", tuple(f"{each}.bias" for each in targets), Rows(sizes))


FAMILY = Family(
    "gpt2",
    "GPT2LMHeadModel",
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
