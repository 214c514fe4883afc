"""Cohere (Command R, Aya): both blocks of a layer read one layer norm; adjacent channels are turned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import ReadWindows, read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import DEFAULT_THETA
from roots_compress.families.switches import Switches
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.spec import ModelSpec, Norm

EPS_KEY, SCALE = "layer_norm_eps", "logit_scale"


def read_cohere(
    switches: Switches, *, windows: ReadWindows = Switches.no_windows, theta: float = DEFAULT_THETA
) -> ModelSpec:
    """Return what a configuration says, with positions in all layers.

    Args:
        switches: the configuration.
        windows: as `read_decoder` takes them.
        theta: the default of the positions' base.
    """
    return read_decoder(
        switches,
        windows=windows,
        theta=theta,
        parallel=True,
        head=LmHead(scale=switches.positive(SCALE, 0.0625)),
        null_kv_heads=True,
        context=8192,
        tied=True,
        norm=Norm(kind="layer_norm", bias=False),
        eps=1e-5,
        eps_key=EPS_KEY,
    )


def write_cohere(spec: ModelSpec) -> dict[str, Any]:
    """Return what the configurations of Cohere and Cohere 2 have in common."""
    return {**write_decoder(spec, attention_bias=True, eps_key=EPS_KEY), SCALE: spec.lm_head.scale}


def cohere_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of a model of Cohere or Cohere 2."""
    return decoder_rules(spec, paired=True)


def _read(switches: Switches) -> ModelSpec:
    if switches.take("use_qk_norm"):
        switches.refuse("use_qk_norm is true: layer norms of each head's queries and keys are not supported")
    return read_cohere(switches, theta=500_000.0)


FAMILY = Family(
    "cohere",
    "CohereForCausalLM",
    _read,
    write_cohere,
    cohere_rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "attention_bias": True, "tie_word_embeddings": False, "logit_scale": 0.5},
        {"hidden_act": "gelu", "head_dim": 16},
    ),
)
