"""Cutting layer by layer: what stays, what the refit repairs, and what is measured on the way."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from roots_compress.data.windows import PackedWindows
from roots_compress.errors import StageError
from roots_compress.model.modeling import RootsForCausalLM
from roots_compress.model.surgery import keep_layers
from roots_compress.prune.layerwise import (
    LayerErrors,
    LayerTarget,
    LayerwiseCutter,
    layer_influences,
    unit_shares,
)
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

WIDE = LayerTarget(kv_groups=2, mlp_channels=48)


def make_windows() -> PackedWindows:
    ids = tiny_tokens(12, 32).numpy()
    return PackedWindows(input_ids=ids, labels=ids, segment_ids=ids * 0)


def cut(
    model: RootsForCausalLM,
    targets: list[LayerTarget],
    *,
    score: Literal["activation", "magnitude"] = "activation",
    refitted: bool = True,
) -> list[LayerErrors]:
    cutter = LayerwiseCutter(
        model,
        make_windows(),
        score=score,
        refitted=refitted,
        device="cpu",
    )
    return list(cutter.cut(targets))


def logits(model: RootsForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.from_numpy(make_windows().input_ids)).logits
    return found


def distance(model: RootsForCausalLM, original: RootsForCausalLM) -> float:
    return float((logits(model) - logits(original)).norm() / logits(original).norm())


def test_full_targets_change_nothing() -> None:
    model, original = tiny_model(), tiny_model()
    errors = cut(model, [WIDE, WIDE])
    assert errors == [LayerErrors(None, None)] * 2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original.parameters(), strict=True))


@pytest.mark.parametrize("overrides", [{}, {"mlp_bias": True}, {"gated_mlp": False, "norm": "layer_norm"}])
def test_what_duplicate_channels_gave_is_added_to_those_that_stay(overrides: dict[str, Any]) -> None:
    def build() -> RootsForCausalLM:
        model = tiny_model(**overrides)
        with torch.no_grad():
            for layer in model.model.layers:
                for projection in (layer.mlp.up_proj, getattr(layer.mlp, "gate_proj", layer.mlp.up_proj)):
                    for parameter in projection.parameters():
                        parameter[24:] = parameter[:24]
                layer.mlp.down_proj.weight /= layer.mlp.down_proj.weight.norm(dim=0)
                layer.mlp.down_proj.weight[:, :24] *= 10  # By magnitude the first of each pair stays.
        return model

    def build_cut(*, refitted: bool) -> RootsForCausalLM:
        model = build()
        cut(model, [LayerTarget(2, 24)] * 2, score="magnitude", refitted=refitted)
        return model

    assert distance(build_cut(refitted=True), build()) < 0.01
    assert distance(build_cut(refitted=False), build()) > 0.03


@pytest.mark.parametrize("target", [LayerTarget(2, 32), LayerTarget(1, 48)], ids=["channels", "heads"])
def test_the_refit_brings_the_model_nearer_to_the_original(target: LayerTarget) -> None:
    original, plain, refitted = tiny_model(), tiny_model(), tiny_model()
    cut(plain, [target, target], refitted=False)
    cut(refitted, [target, target], refitted=True)
    assert distance(refitted, original) < 0.9 * distance(plain, original)


def test_the_activation_score_spares_the_channels_that_work() -> None:
    def build() -> RootsForCausalLM:
        model = tiny_model()
        with torch.no_grad():
            for layer in model.model.layers:
                # Large weights behind a gate that stays shut: worth nothing, and most by magnitude.
                layer.mlp.gate_proj.weight[:16] = 0
                layer.mlp.up_proj.weight[:16] *= 10
        return model

    original, by_activation, by_magnitude = build(), build(), build()
    cut(by_activation, [LayerTarget(2, 32)] * 2, score="activation", refitted=False)
    cut(by_magnitude, [LayerTarget(2, 32)] * 2, score="magnitude", refitted=False)
    assert distance(by_activation, original) < 1e-5
    assert distance(by_magnitude, original) > 0.01


def test_errors_are_those_of_the_cut_halves_alone() -> None:
    errors = cut(tiny_model(), [LayerTarget(1, 48), LayerTarget(2, 32)])
    assert errors[0].mlp is None
    assert errors[1].attention is None
    assert errors[0].attention is not None
    assert 0 < errors[0].attention < 1


def test_a_layer_that_does_nothing_has_no_influence_and_can_go() -> None:
    layers = [tiny_layer(), tiny_layer(), tiny_layer()]
    original = tiny_model(layers=layers)
    with torch.no_grad():  # The middle layer does nothing, so that dropping it loses nothing.
        original.model.layers[1].self_attn.o_proj.weight.zero_()
        original.model.layers[1].mlp.down_proj.weight.zero_()
    model = tiny_model(layers=layers)
    model.load_state_dict(original.state_dict())
    influences = layer_influences(model, make_windows(), device="cpu")
    assert influences[1] == pytest.approx(0.0, abs=1e-6)
    assert min(influences[0], influences[2]) > 0.01
    keep_layers(model, [0, 2])
    cut(model, [LayerTarget(2, 40)] * 2)
    assert distance(model, original) < 0.3


def test_a_silent_channel_is_the_first_to_go_and_a_dead_layer_stays_finite() -> None:
    original = tiny_model()
    with torch.no_grad():
        original.model.layers[0].mlp.up_proj.weight.zero_()
    model = tiny_model()
    model.load_state_dict(original.state_dict())
    errors = cut(model, [LayerTarget(2, 16), WIDE])
    assert errors[0].mlp == 0.0
    assert distance(model, original) < 1e-5


def test_infinite_activations_are_refused() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0] = torch.inf
    with pytest.raises(StageError, match="layer 1's down_proj"):
        cut(model, [LayerTarget(2, 32)] * 2)


def test_shares_compare_units_of_all_layers() -> None:
    groups, channels = unit_shares(tiny_model(), make_windows(), score="activation", device="cpu")
    assert [len(share) for share in groups] == [2, 2]
    assert [len(share) for share in channels] == [48, 48]
    assert [float(share.sum()) for share in (*groups, *channels)] == pytest.approx([1.0] * 4)
