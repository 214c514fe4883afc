"""From a target to shapes: what must go, what each shape saves, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from roots_compress.configs.prune import PruneConfig, TargetConfig
from roots_compress.errors import InputError
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.resizing import keep_units
from roots_compress.models.spec import Layer, Place
from roots_compress.stages.prune.plan import LayerTarget, shape_of
from roots_compress.stages.prune.sensitivity import LayerCosts
from roots_compress.stages.prune.targets.shapes import choose_shapes, make_plan, saved
from tests.stages.prune.shapes import costs_of, shape
from tests.tiny import tiny_layer, tiny_model

THIRDS = tiny_layer(num_attention_heads=6, num_key_value_heads=2)


def to_save(model: RootsForCausalLM, *, uniform: bool = True, **target: Any) -> int:
    config = PruneConfig(target=TargetConfig(**target), multiple_of=4, uniform=uniform)
    needed = make_plan(config, model.config.spec).needed
    assert needed is not None
    return needed


def lost(layer: Layer, target: LayerTarget | None) -> int:
    return saved(layer, target, width=32)


choose = partial(choose_shapes, saves=lost)


def linear_costs(attention: float, mlp: float) -> LayerCosts:
    """Return costs in proportion to what a shape removes of a layer of six heads and 48 channels."""
    return costs_of(
        {(g, q): attention * (6 - g * q) for g in (2, 1) for q in (3, 2, 1)},
        {width: mlp * (48 - width) for width in range(48, 0, -4)},
    )


@pytest.mark.parametrize(
    "overrides",
    [{}, {"gated_mlp": False}, {"attention_bias": True, "mlp_bias": True, "attention_output_bias": True}],
)
def test_a_shape_saves_what_the_cut_takes_away(overrides: dict[str, Any]) -> None:
    model = tiny_model(layers=[THIRDS, THIRDS], **overrides)
    layer, before = model.config.spec.layers[1], model.num_parameters()
    assert shape_of(layer) == shape(2, 3, 48)
    keep_units(model, Place(1, "self_attn"), "kv_groups", [1])
    keep_units(model, Place(1, "self_attn"), "queries", [0, 2])
    keep_units(model, Place(1, "mlp"), "mlp_channels", list(range(20)))
    assert before - model.num_parameters() == lost(layer, shape(1, 2, 20))
    assert shape_of(model.config.spec.layers[1]) == shape(1, 2, 20)


def test_a_fraction_counts_what_lies_outside_the_embeddings() -> None:
    model = tiny_model()
    body = model.num_parameters() - model.model.embed_tokens.weight.numel()
    assert to_save(model, parameters=0.75) == pytest.approx(body / 4, abs=1)
    untied = tiny_model(tie_word_embeddings=False)
    assert to_save(untied, parameters=0.75) == to_save(model, parameters=0.75)


def test_bytes_count_everything() -> None:
    model = tiny_model()
    assert to_save(model, bytes=4 * model.num_parameters() - 4000) == 1000


def test_a_target_that_is_already_met_is_refused() -> None:
    with pytest.raises(InputError, match="no more than"):
        to_save(tiny_model(), bytes=10**9)


def test_a_target_beyond_every_legal_shape_names_the_nearest() -> None:
    model = tiny_model()
    with pytest.raises(InputError, match=r"nearest legal one is 0\.\d+ of the parameters") as caught:
        to_save(model, parameters=0.01)
    named = float(str(caught.value).split("legal one is ")[1].split(" ")[0])
    assert to_save(model, parameters=named) > 0, "the target it names is legal"
    with pytest.raises(InputError, match=r"nearest legal one is \d+ bytes") as caught:
        to_save(model, bytes=1000)
    named_bytes = int(str(caught.value).split("legal one is ")[1].split(" ")[0])
    assert to_save(model, bytes=named_bytes) > 0


def test_equal_widths_cannot_be_had_where_layers_differ() -> None:
    model = tiny_model(layers=[tiny_layer(), tiny_layer(intermediate_size=32)])
    with pytest.raises(InputError, match="layer by layer"):
        to_save(model, parameters=0.75)
    assert to_save(model, parameters=0.75, uniform=False) > 0


def test_the_cheap_layer_gives_and_the_dear_one_keeps() -> None:
    layers = tiny_model(layers=[THIRDS, THIRDS]).config.spec.layers
    costs = [linear_costs(9.0, 1.0), linear_costs(9.0, 2.0)]
    needed = lost(layers[0], shape(2, 3, 24))
    chosen, paid = choose(layers, costs, needed, divergences=None, uniform=False)
    assert chosen == [shape(2, 3, 24), shape(2, 3, 48)]
    assert paid == pytest.approx(24.0)


def test_equal_layers_weigh_one_axis_against_the_other() -> None:
    layers = tiny_model(layers=[THIRDS, THIRDS]).config.spec.layers
    needed = 2 * lost(layers[0], shape(1, 3, 48))
    heads, _ = choose(layers, [linear_costs(0.1, 9.0)] * 2, needed, divergences=None, uniform=True)
    assert heads == [shape(1, 3, 48)] * 2
    channels, _ = choose(layers, [linear_costs(9.0, 0.1)] * 2, needed, divergences=None, uniform=True)
    assert {
        (target["self_attn"]["kv_groups"], target["self_attn"]["queries"]) for target in channels if target
    } == {(2, 3)}


@pytest.mark.parametrize("uniform", [True, False])
def test_a_layer_that_nobody_misses_is_dropped_and_the_last_never(uniform: bool) -> None:
    layers = tiny_model(layers=[THIRDS] * 3).config.spec.layers
    needed = lost(layers[0], None) - 10
    costs = [linear_costs(1.0, 1.0)] * 3
    chosen, paid = choose(layers, costs, needed, divergences=[5.0, 0.01, 5.0], uniform=uniform)
    assert chosen == [shape(2, 3, 48), None, shape(2, 3, 48)]
    assert paid == pytest.approx(0.01)
    chosen, _ = choose(layers, costs, 2 * needed, divergences=[0.0, 0.0, 0.0], uniform=uniform)
    assert sum(target is not None for target in chosen) == 1


@pytest.mark.parametrize("uniform", [True, False])
def test_a_layer_that_nobody_asked_to_drop_stays(uniform: bool) -> None:
    """With biases savings share no divisor, and the coarse grid hides the one choice that saves enough."""
    layer = tiny_layer(num_attention_heads=6, num_key_value_heads=2, intermediate_size=256)
    biased = {"attention_bias": True, "mlp_bias": True, "attention_output_bias": True}
    layers = tiny_model(layers=[layer] * 3, **biased).config.spec.layers
    narrow = shape(1, 1, 15)
    heads = {(g, q): 6.0 - g * q for g in (2, 1) for q in (3, 2, 1)}
    costs = costs_of(heads, {width: 256.0 - width for width in (256, *range(240, 0, -15))})
    needed = 3 * lost(layers[0], narrow)
    chosen, paid = choose(layers, [costs] * 3, needed, divergences=None, uniform=uniform)
    assert chosen == [narrow] * 3
    assert paid == pytest.approx(3 * (5 + 241))


def test_axes_that_are_not_named_stay_whole() -> None:
    layers = tiny_model(layers=[THIRDS, THIRDS]).config.spec.layers
    chosen, _ = choose(
        layers,
        [linear_costs(1.0, 0.0)] * 2,
        1000,
        axes=["kv_groups"],
        divergences=None,
        uniform=False,
    )
    assert {
        (target["self_attn"]["queries"], target["mlp"]["mlp_channels"]) for target in chosen if target
    } == {(3, 48)}
