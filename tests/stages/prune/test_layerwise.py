"""Cutting layer by layer: what stays, what the refit repairs, and what is measured on the way."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from roots_compress.configs.prune import Score
from roots_compress.data.windows import PackedWindows, following
from roots_compress.errors import StageError
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.spec import Place
from roots_compress.stages.prune.layerwise import (
    LayerErrors,
    LayerwiseCutter,
    first_order_contributions,
)
from roots_compress.stages.prune.plan import LayerTarget, shape_of
from tests.specs import SPECS, with_experts
from tests.stages.prune.shapes import shape
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

SCORES: tuple[Score, ...] = get_args(Score)
WIDE = shape(kv_groups=2, queries=2, mlp_channels=48)


def make_windows() -> PackedWindows:
    ids = tiny_tokens(12, 32).numpy()
    return PackedWindows(ids, following(ids, ids >= 0), ids * 0)


def cut(
    model: RootsForCausalLM,
    targets: list[LayerTarget],
    *,
    score: Score = "activation",
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
    assert errors == [{"self_attn": None, "mlp": None}] * 2
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
        cut(model, [shape(2, 2, 24)] * 2, score="magnitude", refitted=refitted)
        return model

    assert distance(build_cut(refitted=True), build()) < 0.01
    assert distance(build_cut(refitted=False), build()) > 0.03


@pytest.mark.parametrize("target", [shape(2, 2, 32), shape(1, 2, 48)], ids=["channels", "heads"])
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
    cut(by_activation, [shape(2, 2, 32)] * 2, score="activation", refitted=False)
    cut(by_magnitude, [shape(2, 2, 32)] * 2, score="magnitude", refitted=False)
    assert distance(by_activation, original) < 1e-5
    assert distance(by_magnitude, original) > 0.01


def test_errors_are_those_of_the_cut_halves_alone() -> None:
    errors = cut(tiny_model(), [shape(1, 2, 48), shape(2, 2, 32)])
    assert errors[0]["mlp"] is errors[1]["self_attn"] is None
    assert 0 < (errors[0]["self_attn"] or 0) < 1


def test_a_silent_channel_is_the_first_to_go_and_a_dead_layer_stays_finite() -> None:
    original = tiny_model()
    with torch.no_grad():
        original.model.layers[0].mlp.up_proj.weight.zero_()
    model = tiny_model()
    model.load_state_dict(original.state_dict())
    errors = cut(model, [shape(2, 2, 16), WIDE])
    assert errors[0]["mlp"] == 0.0
    assert distance(model, original) < 1e-5


def test_infinite_activations_are_refused() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0] = torch.inf
    with pytest.raises(StageError, match=r"layer 1's mlp\.down_proj"):
        cut(model, [shape(2, 2, 32)] * 2)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(StageError, match="loss of calibration window 0 is NaN or infinite"):
        cut(model, [shape(2, 2, 32)] * 2, score="taylor")
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("score", SCORES)
def test_a_dead_layer_can_be_cut_by_every_score(score: Score) -> None:
    model, original = tiny_model(), tiny_model()
    for each in (model, original):
        with torch.no_grad():
            each.model.layers[0].mlp.up_proj.weight.zero_()
            each.model.layers[0].self_attn.v_proj.weight.zero_()
    errors = cut(model, [shape(1, 1, 16), WIDE], score=score)
    assert errors[0] == {"self_attn": 0.0, "mlp": 0.0}
    assert distance(model, original) < 1e-5


@pytest.mark.parametrize("score", SCORES)
def test_every_score_cuts_every_axis_at_once(score: Score) -> None:
    model = tiny_model(layers=[tiny_layer(num_attention_heads=6), tiny_layer(num_attention_heads=6)])
    errors = cut(model, [shape(1, 2, 20), shape(2, 1, 32)], score=score)
    assert list(map(shape_of, model.config.spec.layers)) == [shape(1, 2, 20), shape(2, 1, 32)]
    assert logits(model).isfinite().all()
    assert all(0 < (error or 0) < 1 for layer in errors for error in layer.values())


def test_the_surgeon_keeps_one_of_each_pair_of_duplicates() -> None:
    def build() -> RootsForCausalLM:
        model = tiny_model()
        with torch.no_grad():
            for layer in model.model.layers:
                for projection in (layer.mlp.up_proj, layer.mlp.gate_proj):
                    projection.weight[24:] = projection.weight[:24]
        return model

    def build_cut(score: Score) -> RootsForCausalLM:
        model = build()
        cut(model, [shape(2, 2, 24)] * 2, score=score)
        return model

    assert distance(build_cut("obs"), build()) < 0.02
    assert min(distance(build_cut(score), build()) for score in SCORES if score != "obs") > 0.05


def test_of_duplicate_heads_the_surgeon_keeps_one() -> None:
    layers = [tiny_layer(num_attention_heads=4, num_key_value_heads=2)]
    original = tiny_model(layers=layers)
    attention = original.model.layers[0].self_attn
    with torch.no_grad():  # In each group the second query head asks what the first does.
        for group in (0, 1):
            first = slice(16 * group, 16 * group + 8)
            attention.q_proj.weight[16 * group + 8 : 16 * group + 16] = attention.q_proj.weight[first]
    model = tiny_model(layers=layers)
    model.load_state_dict(original.state_dict())
    cut(model, [shape(2, 1, 48)], score="obs")
    assert distance(model, original) < 0.02


def test_first_order_contributions_are_what_the_loss_loses_per_step_towards_zero() -> None:
    model, windows = tiny_model(), make_windows()
    found = first_order_contributions(model, windows, device="cpu")
    assert found["model.layers.1.mlp.down_proj"].shape == (12, 48)
    step = 1e-2

    @torch.no_grad()
    def losses(scale: float, channel: int) -> torch.Tensor:
        weight = model.model.layers[1].mlp.down_proj.weight
        weight[:, channel] *= scale
        scored = model(torch.from_numpy(windows.input_ids)).logits.double()[:, :-1].log_softmax(-1)
        weight[:, channel] /= scale
        labels = torch.from_numpy(windows.input_ids)[:, 1:, None]
        found_N: torch.Tensor = -scored.gather(2, labels).squeeze(2).sum(1)
        return found_N

    for channel in (0, 17):
        slope = (losses(1 + step, channel) - losses(1 - step, channel)) / (2 * step)
        torch.testing.assert_close(
            found["model.layers.1.mlp.down_proj"][:, channel].double(), slope, rtol=1e-2, atol=1e-3
        )
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["norms of outputs", "norms of the stream", "norms over the projection"])
def test_the_refit_helps_wherever_the_norms_are(kind: str) -> None:
    original, plain, refitted = (tiny_model(**SPECS[kind]) for _ in range(3))
    targets = [shape(1, 2, 32), shape(2, 1, 32)]
    cut(plain, targets, refitted=False)
    cut(refitted, targets, refitted=True)
    assert distance(refitted, original) < distance(plain, original)


@pytest.mark.parametrize("score", ["activation", "magnitude", "taylor", "obs"])
def test_each_expert_keeps_the_channels_that_matter_to_it(score: Score) -> None:
    """Other channels of each give nothing: without them the model is the same, whatever is refitted."""
    original, model = tiny_model(**SPECS["experts"]), tiny_model(**SPECS["experts"])
    for each in (original, model):
        with torch.no_grad():
            for layer in each.model.layers:
                for number in range(4):
                    gone = slice(number, number + 8)
                    layer.mlp.linear(f"experts.{number}.down_proj").weight[:, gone] = 0
                    for name in ("gate_proj", "up_proj"):
                        layer.mlp.linear(f"experts.{number}.{name}").weight[gone] = 0
    kept = {**WIDE, "mlp": {"experts": 4, "expert_channels": 16}}
    errors = cut(model, [kept, kept], score=score)
    assert [axis.units for axis in model.config.spec.op(Place(0, "mlp")).axes()] == [4, 16]
    torch.testing.assert_close(logits(model), logits(original), atol=1e-4, rtol=1e-4)
    assert all((error["mlp"] or 0) < 1e-4 for error in errors)


def test_experts_that_give_least_go() -> None:
    original, model = tiny_model(**SPECS["experts"]), tiny_model(**SPECS["experts"])
    for each in (original, model):
        with torch.no_grad():
            for layer in each.model.layers:  # Two experts give nothing, however often they are chosen.
                for number in (0, 2):
                    layer.mlp.linear(f"experts.{number}.down_proj").weight.zero_()
    kept = {**WIDE, "mlp": {"experts": 2, "expert_channels": 24}}
    errors = cut(model, [kept, kept])
    for layer, whole in zip(model.model.layers, original.model.layers, strict=True):
        for number, old in enumerate((1, 3)):
            assert torch.equal(
                layer.mlp.linear(f"experts.{number}.up_proj").weight,
                whole.mlp.linear(f"experts.{old}.up_proj").weight,
            )
    assert all(error["self_attn"] is None and (error["mlp"] or 0) > 0 for error in errors)
    assert logits(model).isfinite().all()


@torch.no_grad()
def test_an_expert_that_no_token_chose_is_refitted_on_all_of_them() -> None:
    model = tiny_model(spec=with_experts(experts=4, chosen=1, channels=24))
    block = model.model.layers[0].mlp
    block.router.weight[1:] = 0
    block.router.weight[1] = -block.router.weight[0]
    for name in ("gate_proj", "up_proj"):
        weight = block.linear(f"experts.3.{name}").weight
        weight[12:] = weight[:12]
    rows = torch.randn(64, model.config.hidden_size)
    before = block.expert(3, rows)
    kept = {**WIDE, "mlp": {"experts": 4, "expert_channels": 12}}
    cut(model, [kept, kept], score="obs")
    assert float((block.expert(3, rows) - before).norm() / before.norm()) < 0.02


@pytest.mark.parametrize("kind", [*SPECS, None])
def test_a_cut_in_bfloat16_loses_what_one_in_float32_does(
    kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> RootsForCausalLM:
        return tiny_model(**SPECS.get(kind or "", {}))

    targets = [
        {half: {axis: max(1, each // 2) for axis, each in units.items()} for half, units in target.items()}
        for target in map(shape_of, build().config.spec.layers)
    ]
    original, cuts = build(), []
    for extensions in ({}, {"avx512_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=extensions: found)
        model = build()
        cutter = LayerwiseCutter(model, make_windows(), score="obs", refitted=True, device="cpu")
        list(cutter.cut(targets))
        assert all(each.dtype == torch.float32 for each in (*model.parameters(), *cutter.stream.hidden))
        cuts.append(model)
    assert distance(*cuts) > 0, "the second was computed in bfloat16"
    # Other units may stay where two are worth about the same.
    exact, rounded = (distance(model, original) for model in cuts)
    assert rounded == pytest.approx(exact, rel=0.1)
