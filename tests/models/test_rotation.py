"""The residual stream in other axes gives the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.mlp import LayerInput
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.ops.stream import LayerInputs, Norm
from roots_compress.models.rotation import is_rotatable, rotate_stream
from tests.specs import SPECS, one_norm
from tests.tiny import tiny_config, tiny_layer, tiny_model, tiny_tokens

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"attention_bias": True},
    "qwen3": {"qk_norm": True, "layers": [tiny_layer(), tiny_layer(num_key_value_heads=4)]},
    "gemma": {"activation": "gelu_tanh", "embedding_scale": 32**0.5, "logit_scale": 0.5},
    "every bias": {"attention_bias": True, "attention_output_bias": True, "mlp_bias": True},
    "learned positions, no gate": {"position": "learned", "gated_mlp": False},
    "sparse": {"attention": {"kind": "top_m", "top_m": 3}},
}


def logits(model: RootsForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(tiny_tokens()).logits
    return found


def rotation(channels: int = 32) -> torch.Tensor:
    """Return orthonormal axes that mix the first channels and leave the others as they are."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(32, dtype=torch.float64)
    mixed = torch.randn(channels, channels, dtype=torch.float64, generator=generator)
    axes[:channels, :channels] = torch.linalg.qr(mixed).Q
    return axes


def assert_alike(model: RootsForCausalLM, expected: torch.Tensor) -> None:
    assert float((logits(model) - expected).norm() / expected.norm()) < 1e-4


UNTIED = {name: {**each, "tie_word_embeddings": False} for name, each in FAMILIES.items()}
UNTIED["one norm of two blocks"] = {"spec": changed(one_norm(), tied=False)}


@pytest.mark.parametrize("overrides", UNTIED.values(), ids=UNTIED.keys())
def test_an_untied_model_gives_the_same_logits(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    expected, before = logits(model), model.model.embed_tokens.weight.clone()
    rotate_stream(model, rotation())
    assert_alike(model, expected)
    assert not torch.allclose(model.model.embed_tokens.weight, before, rtol=0.1)


TIED = {**FAMILIES, "experts": SPECS["experts"]}


@pytest.mark.parametrize("overrides", TIED.values(), ids=TIED.keys())
def test_a_tied_model_does_where_channels_of_equal_gain_mix(overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    with torch.no_grad():
        model.model.norm.weight[:20] = 1.7
    expected = logits(model)
    rotate_stream(model, rotation(20))
    assert_alike(model, expected)
    assert model.lm_head is not None
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("kind", ["norms of outputs", "norms of the stream"])
def test_norms_in_other_places_hold_the_stream_to_its_channels(kind: str) -> None:
    assert not is_rotatable(SPECS[kind]["spec"])


def test_what_embeddings_hold_besides_does_too() -> None:
    spec = tiny_config().spec
    assert is_rotatable(spec)
    assert not is_rotatable(spec.with_embeddings(token_types=2))
    read = Sublayer(op=LayerInput(channels=4), pre_norm=Norm())
    stack = changed(spec.stack, layers=tuple((*layer, read) for layer in spec.layers))
    embeddings = changed(spec.embeddings, layer_inputs=LayerInputs(channels=4))
    assert not is_rotatable(changed(spec, stacks={"decoder": stack}, embeddings=embeddings))
