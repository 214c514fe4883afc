"""The maths of charts: scales, fronts, bars, and places of labels."""

from __future__ import annotations

import math

import pytest

from roots_compress.report.charts.bars import stacked, waterfall
from roots_compress.report.charts.frame import NARROW, WIDE, Axis
from roots_compress.report.charts.labels import Box, place, spread
from roots_compress.report.charts.lines import Mark, Series, lines, thinned
from roots_compress.report.charts.plane import Spot, front, plane
from roots_compress.report.charts.scale import Scale, names, short


def test_equal_ratios_are_of_equal_length_on_a_logarithmic_axis() -> None:
    scale = Scale.over([10, 1000], 0, 100, logarithmic=True)
    assert scale.at(100) == pytest.approx(50)
    assert 0 < scale.at(10) < scale.at(100) < scale.at(1000) < 100
    assert scale.ticks() == pytest.approx([10, 30, 100, 300, 1000])


@pytest.mark.parametrize(
    "values", [[0.0], [5.0, 5.0], [-1.0, 3.0], [1e-300, 1e300], [math.nan, math.inf], []]
)
@pytest.mark.parametrize("logarithmic", [False, True])
def test_any_values_have_an_axis_with_round_ticks(values: list[float], logarithmic: bool) -> None:
    scale = Scale.over(values, 0, 100, logarithmic=logarithmic)
    assert scale.low < scale.high
    assert len(scale.ticks()) <= 12
    assert all(-1e-6 <= scale.at(tick) <= 100 + 1e-6 for tick in scale.ticks())


def test_ticks_are_named_shortly() -> None:
    assert list(map(short, (0, 0.05, 12.5, 1200, 2e6, 1e-7))) == [
        "0",
        "0.05",
        "12.5",
        "1,200",
        "2e+06",
        "1e-07",
    ]


def test_ticks_that_lie_close_are_told_apart() -> None:
    assert names([1.45, 1.455, 1.46]) == ["1.45", "1.455", "1.46"]


def test_the_front_holds_what_nothing_beats_in_both_figures() -> None:
    spots = [Spot("a", 1, 4), Spot("b", 2, 2), Spot("c", 3, 3), Spot("d", 4, 2)]
    assert front(spots, lower_is_better=True) == [True, True, False, False]
    assert front(spots, lower_is_better=False) == [True, False, False, False]


def test_a_plane_names_its_stages_and_shows_their_intervals() -> None:
    spots = [Spot("00-baseline", 8, 20, y_bounds=(19, 21)), Spot("control", 2, 22, role="control")]
    for width in (WIDE, NARROW):
        drawn = plane(
            "x", spots, Axis("MB", logarithmic=True), Axis("ppl"), lower_is_better=True, width=width
        )
        assert drawn.count('class="bounds"') == 1
        assert "00-baseline<title>" in drawn
        assert "<rect" in drawn
        assert f'viewBox="0 0 {width} ' in drawn


def test_a_waterfall_begins_and_ends_with_totals() -> None:
    steps = waterfall(["a", "b", "c"], [8.0, 2.0, 4.0])
    assert [(step.kind, step.start, step.length, step.value) for step in steps] == [
        ("total", 0, 100, 8),
        ("less", 25, 75, -6),
        ("more", 25, 25, 2),
        ("total", 0, 50, 4),
    ]


def test_stacked_bars_share_a_scale_and_small_groups_are_summed() -> None:
    groups, rows = stacked([{"a": 3.0, "b": 1.0}, {"a": 1.0, "c": 1.0}])
    assert groups == ["a", "b", "c"]
    assert [(part.group, part.length, part.colour) for part in rows[1]] == [("a", 25, 0), ("c", 25, 2)]
    groups, rows = stacked([{f"g{index:02d}": 20.0 - index for index in range(12)}])
    assert len(groups) == 8
    assert rows[0][-1].group == "other"
    assert sum(part.length for part in rows[0]) == pytest.approx(100)


def test_a_long_line_keeps_its_ends_and_extremes() -> None:
    marks = [Mark(step, 100.0 if step == 577 else step % 7) for step in range(5000)]
    kept = thinned(marks)
    assert len(kept) <= 240
    assert marks[577] in kept
    assert (kept[0], kept[-1]) == (marks[0], marks[-1])
    assert [mark.x for mark in kept] == sorted(mark.x for mark in kept)


def test_a_single_value_is_a_dot() -> None:
    assert "<circle" in lines("x", [Series("loss", (Mark(1, 2.0),))], Axis("steps"), Axis("loss"), width=WIDE)


def test_labels_keep_their_distance() -> None:
    assert spread([10, 11, 50], 14, 0, 100) == [10, 24, 50]
    assert spread([95, 96, 97], 14, 0, 100) == [72, 86, 100]
    assert spread([5, 5, 5], 14, 0, 20) == [0, 10, 20]


def test_a_label_goes_where_nothing_is() -> None:
    bounds = Box(0, 0, 200, 200)
    assert place(100, 100, 40, 14, [], bounds).left > 100
    assert place(100, 100, 40, 14, [Box(105, 90, 160, 110)], bounds).right < 100
    assert place(195, 100, 40, 14, [], bounds).right < 195


def test_a_label_is_nearest_to_its_own_point() -> None:
    bounds, mine, other = Box(0, 0, 200, 200), (100.0, 100.0), (100.0, 118.0)
    above = [Box(0, 0, 200, 95), Box(105, 90, 200, 110), Box(0, 90, 95, 110)]
    box = place(*mine, 40, 14, above, bounds, [other])
    assert box.gap(*mine) < box.gap(*other)
    box = place(*mine, 40, 14, above, bounds)
    assert box.gap(*mine) > box.gap(*other), "it would lie next to the other"
