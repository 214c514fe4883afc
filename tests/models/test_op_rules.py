"""Fields of blocks, stacks and models that do not fit together are refused, in words that say why."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from roots_compress.models.config import RootsConfig
from roots_compress.models.ops.attention import Attention, Latent, LongRopeScaling, QkNorm, Rope, TopM
from roots_compress.models.ops.heads import LabelHead
from roots_compress.models.ops.linear_attention import GatedDeltaNet
from roots_compress.models.ops.mlp import LayerInput, Mlp
from roots_compress.models.ops.moe import Clamp, Groups, Moe
from roots_compress.models.ops.positions import Disentangled, Relative
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.ops.stream import LayerInputs
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack
from roots_compress.models.version1 import spec_of
from tests.models.test_spec import VERSION_1

NORM, MLP = Norm(), Mlp(channels=4)
ATTENTION: dict[str, Any] = {"heads": 4, "kv_heads": 4, "head_dim": 8}
BOTH_SIDES: dict[str, Any] = {**ATTENTION, "causal": False}
FACTORS = LongRopeScaling(
    short_factor=(1.0,), long_factor=(1.0,), original_max_position_embeddings=8, attention_factor=1.0
)
LATENT = {"latent": Latent(rank=4, value_dim=6), "rope": Rope(rotary_dim=4)}
LONG = Rope(scaling=FACTORS)
AFTER, VALUES = QkNorm(after_rope=True), QkNorm(values=True)


def stack(*layer: Sublayer) -> Stack:
    return Stack(layers=(layer,))


def model(*layer: Sublayer, **embeddings: Any) -> ModelSpec:
    return ModelSpec(
        stacks={"decoder": stack(*layer)},
        embeddings=Embeddings(vocabulary=8, width=4, **embeddings),
        max_positions=8,
    )


def version_1(**fields: Any) -> ModelSpec:
    return spec_of({**json.loads(VERSION_1), **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({**ATTENTION, "qk_norm": AFTER}, "qk_norm.after_rope is for norms of each head"),
        ({**BOTH_SIDES, "source": "cross", "qk_norm": VALUES}, "qk_norm.values is for norms of each head"),
        (
            {**ATTENTION, "sharing": "gives", "qk_norm": AFTER, "rope": Rope()},
            "sharing is for attention whose norms come before positions",
        ),
        ({**ATTENTION, "keys_as_values": True}, "keys_as_values is for attention whose qk_norm has values"),
        ({**BOTH_SIDES, "sinks": True}, "sinks are for dense causal attention"),
        ({**ATTENTION, "sharing": "takes", "sinks": True}, "sharing is for dense causal attention without"),
        ({**ATTENTION, "relative": Relative(), "softcap": 2.0}, "relative is for dense attention without a"),
        (
            {**ATTENTION, "relative": Relative(buckets=32, max_distance=16)},
            "relative.max_distance must be above 16",
        ),
        ({**ATTENTION, "disentangled": Disentangled(rows=8)}, "disentangled is for dense attention to both"),
        ({**BOTH_SIDES, "gated": True}, "gated is for causal attention only"),
        ({**BOTH_SIDES, **LATENT}, "latent is for causal attention"),
        ({**ATTENTION, **LATENT, "kv_heads": 2}, "latent is for causal attention"),
        ({**ATTENTION, **LATENT, "window": 3}, "latent is for causal attention"),
        (
            {**ATTENTION, **LATENT, "rope": None},
            "latent is for heads of whose 8 channels",
        ),
        (
            {**ATTENTION, **LATENT, "head_dim": 4},
            "latent is for heads of whose 4 channels",
        ),
        ({**BOTH_SIDES, "source": "cross", "window": 3}, "cross-attention is dense"),
        ({**ATTENTION, "sparse": TopM(keys=2), "sinks": True}, "sinks are for dense causal attention"),
        ({**ATTENTION, "rope": LONG}, "rope.scaling.short_factor has 1 numbers for 4 turned pairs"),
    ],
)
def test_attention_whose_fields_do_not_fit_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Attention(**fields)


PARALLEL = Sublayer(op=Attention(**ATTENTION), pre_norm=NORM, parallel=True)
READS = Sublayer(op=LayerInput(channels=3))
MADE: list[tuple[Callable[[], Any], str]] = [
    (lambda: Disentangled(rows=5), "disentangled.rows is odd"),
    (lambda: Disentangled(rows=16, max_distance=5), "disentangled.max_distance must be above 5"),
    (lambda: Disentangled(rows=8, queries=False, keys=False), "disentangled needs queries or keys"),
    (lambda: LabelHead(labels=2, names=("a",)), "names has 1 names for 2 labels"),
    (
        lambda: GatedDeltaNet(key_heads=2, value_heads=3, key_dim=4, value_dim=4, kernel=2),
        "2 key heads do not divide 3 value heads",
    ),
    (
        lambda: Moe(experts=6, chosen=1, channels=4, groups=Groups(count=4, chosen=1)),
        "6 experts do not make 4 equal groups, of which 1 are chosen",
    ),
    (
        lambda: Moe(experts=4, chosen=3, channels=4, groups=Groups(count=2, chosen=1)),
        "4 experts in 2 groups are too few: groups have at least 3",
    ),
    (
        lambda: Moe(experts=2, chosen=1, channels=4, activation="relu", clamp=Clamp(limit=1.0, alpha=1.0)),
        "clamp is for experts whose activation is silu",
    ),
    (
        lambda: Sublayer(op=MLP, parallel=True, stream_norm=NORM),
        "a parallel block adds nothing",
    ),
    (lambda: stack(Sublayer(op=MLP, parallel=True)), "the last block of layers.0 is parallel"),
    (lambda: stack(Sublayer(op=MLP, joint_norm=NORM)), "mlp of layers.0 has a joint_norm, and gives alone"),
    (
        lambda: stack(Sublayer(op=MLP, shares_norm=True)),
        "mlp of layers.0 shares the norm of",
    ),
    (
        lambda: stack(PARALLEL, Sublayer(op=MLP, pre_norm=Norm(eps=1.0), shares_norm=True)),
        "mlp of layers.0 shares a norm that is not its pre_norm",
    ),
    (
        lambda: stack(Sublayer(op=Attention(**ATTENTION, sharing="takes"))),
        "layers.0 takes keys and values, and no layer before it gives any",
    ),
    (lambda: model(Sublayer(op=MLP), tables=3), "embeddings.tables is for an encoder alone"),
    (lambda: model(Sublayer(op=MLP), layer_inputs=LayerInputs(channels=3)), "each layer of which reads them"),
    (lambda: model(READS, layer_inputs=LayerInputs(channels=2)), "a layer reads other layer_inputs than"),
    (
        lambda: RootsConfig(spec=model(Sublayer(op=MLP)), bos_token_id="1"),  # type: ignore[arg-type]
        "bos_token_id is '1'",
    ),
    (lambda: version_1(gated_mlp="no"), "gated_mlp is 'no': input should be a valid boolean"),
    (lambda: version_1(layers=[3]), "layers.0 is 3: input should be an object"),
    (lambda: version_1(attention=["dense"]), "attention is ['dense']; it must be an object"),
    (lambda: version_1(rope_parameters=[1]), "rope_parameters is [1]; it must be an object"),
]


@pytest.mark.parametrize(("make", "words"), MADE, ids=[words for _, words in MADE])
def test_what_does_not_fit_together_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make()
