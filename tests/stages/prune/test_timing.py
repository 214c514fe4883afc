"""Times from shapes: the fit against planted times, the choice against exhaustive search, the corrections."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from roots_compress.models.spec import Layer
from roots_compress.stages.prune.plan import LayerTarget, narrowed
from roots_compress.stages.prune.targets.meet_time import TimeModel, fit_times, meet_time, probes
from roots_compress.stages.prune.targets.shapes import choose_shapes
from tests.specs import SPECS
from tests.stages.prune.shapes import costs_of, narrow, shape
from tests.tiny import tiny_config, tiny_layer

WIDE = tiny_layer(num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536)
(WHOLE,) = tiny_config(layers=[WIDE]).spec.layers
FULL = [WHOLE] * 30


def time_model(base: float, layer: float, head: float, group: float, channel: float) -> TimeModel:
    return TimeModel(base, layer, {"queries": head, "kv_groups": group, "mlp_channels": channel})


def parts_of(times: TimeModel) -> list[float]:
    return [times.base, times.layer, *times.units.values()]


def reached(layer: Layer, target: LayerTarget | None) -> Layer | None:
    return None if target is None else narrowed(layer, target)


PLANTED = time_model(base=3.0, layer=0.05, head=0.02, group=0.03, channel=0.0004)


def test_a_models_time_is_the_sum_of_its_parts() -> None:
    shapes = [narrow(WHOLE, 2, 3, 10), None, narrow(WHOLE, 1, 1, 5)]
    expected = 3.0 + 2 * 0.05 + 7 * 0.02 + 3 * 0.03 + 15 * 0.0004
    assert PLANTED.total(shapes) == pytest.approx(expected)
    full, half = narrow(WHOLE, 2, 3, 10), narrow(WHOLE, 1, 2, 5)
    assert PLANTED.saves(full, half) == pytest.approx(1e6 * (4 * 0.02 + 0.03 + 5 * 0.0004), abs=1)
    assert PLANTED.saves(full, None) == pytest.approx(1e6 * PLANTED.of_layer(full), abs=1)
    assert PLANTED.units_above([full], PLANTED.total([full]) - 0.5) == pytest.approx(5e5, abs=1)


def test_the_probes_tell_all_parts_apart() -> None:
    models = probes(FULL, 16)
    assert models[0] == FULL
    found = fit_times(models, [PLANTED.total(shapes) for shapes in models])
    assert parts_of(found) == pytest.approx(parts_of(PLANTED))


def test_experts_and_their_channels_have_parts_of_their_own() -> None:
    (layer, _) = SPECS["experts"]["spec"].layers
    models = probes([layer] * 8, 8)
    planted = TimeModel(
        3.0, 0.05, {"queries": 0.02, "kv_groups": 0.03, "experts": 0.0, "expert_channels": 0.01}
    )
    found = fit_times(models, [planted.total(shapes) for shapes in models])
    assert parts_of(found) == pytest.approx(parts_of(planted))


def test_probes_of_the_narrowest_model_are_the_model_alone() -> None:
    least = [narrow(WHOLE, 1, 1, 16)]
    assert probes(least, 16) == [least]
    assert fit_times([least], [2.0]).total(least) == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(5))
def test_noise_never_makes_a_part_negative_and_barely_moves_the_whole(seed: int) -> None:
    source = random.Random(seed)
    models = probes(FULL, 16)
    times = [PLANTED.total(shapes) * source.uniform(0.97, 1.03) for shapes in models]
    found = fit_times(models, times)
    assert min(parts_of(found)) >= 0
    for shapes, time in zip(models, times, strict=True):
        assert found.total(shapes) == pytest.approx(time, rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_the_least_squares_solution_without_negative_parts(seed: int) -> None:
    """By the conditions that hold there and nowhere else (Karush, Kuhn and Tucker)."""
    generator = np.random.default_rng(seed)
    many = tiny_layer(num_attention_heads=16, num_key_value_heads=4)
    (few,) = tiny_config(layers=[many]).spec.layers
    models = [
        [narrow(few, *(int(each) for each in generator.integers(1, 5, 3)))] * int(generator.integers(1, 5))
        for _ in range(12)
    ]
    times = generator.uniform(1, 3, 12)
    parts = np.array(parts_of(fit_times(models, times.tolist())))
    unit = [time_model(*row) for row in np.eye(5)]
    rows = np.array([[part.total(shapes) for part in unit] for shapes in models]) / times[:, None]
    gradient = rows.T @ (rows @ parts - 1)
    assert (parts >= 0).all()
    assert gradient[parts > 0] == pytest.approx(0, abs=1e-9)
    assert (gradient[parts == 0] >= -1e-9).all()


def test_the_shapes_chosen_in_time_are_the_cheapest_of_all() -> None:
    layers = tiny_config().spec.layers
    source = random.Random(0)
    heads, widths = [(2, 2), (2, 1), (1, 2), (1, 1)], [48, 32, 16]
    costs = [
        costs_of(
            {each: 0.0 if each == (2, 2) else source.random() for each in heads},
            {width: 0.0 if width == 48 else source.random() for width in widths},
        )
        for _ in layers
    ]
    times = time_model(base=1.0, layer=0.2, head=0.1, group=0.15, channel=0.01)
    limit = 0.75 * times.total(layers)

    def cut(shapes: Sequence[LayerTarget | None]) -> list[Layer | None]:
        return [reached(layer, each) for layer, each in zip(layers, shapes, strict=True)]

    def price(shapes: Sequence[LayerTarget]) -> float:
        return sum(
            block.costs[tuple(each[name].values())]
            for cost, each in zip(costs, shapes, strict=True)
            for name, block in cost.items()
        )

    found, paid = choose_shapes(
        layers,
        costs,
        times.units_above(layers, limit),
        saves=lambda layer, each: times.saves(layer, reached(layer, each)),
        divergences=None,
        uniform=False,
    )
    shapes = [shape(*each, width) for each in heads for width in widths]
    every = [pair for pair in product(shapes, repeat=2) if times.total(cut(pair)) <= limit]
    assert times.total(cut(found)) <= limit
    assert paid == pytest.approx(min(map(price, every)))


class Machine:
    """Shapes are numbers: the milliseconds that the time model holds them to take."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        """By how much the machine is slower than the model of it."""
        self.timed: list[float] = []

    def meet(self, target: float, fastest: float = 0.0) -> tuple[float, float]:
        def choose(milliseconds: float) -> float:
            if milliseconds < fastest:
                raise ValueError("nothing is that fast")
            return milliseconds

        def measure(choice: float) -> float:
            self.timed.append(choice)
            return self.factor * choice

        timed = meet_time(target, choose, measure, cost=lambda choice: -choice)
        return timed.choice, timed.milliseconds


def test_what_is_chosen_is_timed_and_corrected() -> None:
    right, slow, fast = Machine(1.01), Machine(1.25), Machine(0.8)
    assert right.meet(4.0) == pytest.approx((4.0, 4.04))
    assert right.timed == [4.0]
    assert slow.meet(4.0)[1] == pytest.approx(4.0)
    assert slow.timed == [4.0, pytest.approx(3.2)]
    # Faster than was asked for costs more than need be.
    assert fast.meet(4.0) == pytest.approx((5.0, 4.0))


def test_where_the_target_is_not_met_the_fastest_is_taken() -> None:
    assert Machine(1.25).meet(4.0, fastest=3.5) == (4.0, 5.0)
    with pytest.raises(ValueError, match="that fast"):
        Machine(1.25).meet(3.0, fastest=3.5)
