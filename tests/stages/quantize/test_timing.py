"""Timing both forms for real on tiny models, and how parts of large ones are counted up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.evaluation.speed import Speeds
from roots_compress.events import Events
from roots_compress.results import Speed
from roots_compress.stages.quantize.products import timing
from roots_compress.stages.quantize.products.choice import FormTimes
from roots_compress.stages.quantize.products.timing import Part, layer_weights, part_of, time_here
from tests.specs import with_experts
from tests.tiny import tiny_config, tiny_layer, tiny_model

SETTINGS = QuantizeConfig(group_size=16)


def timed(
    tmp_path: Path, settings: QuantizeConfig = SETTINGS, *, portable: bool = False, **shape: Any
) -> FormTimes:
    events = Events()
    return time_here(tiny_config(**shape), settings, tmp_path / "graphs", portable=portable, events=events)


@pytest.mark.parametrize(
    ("portable", "shape"),
    [
        (False, {}),
        (True, {"tie_word_embeddings": False, "gated_mlp": False, "position": "learned"}),
        (False, {"max_position_embeddings": 8, "layers": [tiny_layer(head_dim=16)]}),
    ],
    ids=["plain", "portable", "a short context and an int8 cache"],
)
def test_both_forms_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portable: bool, shape: dict[str, Any]
) -> None:
    monkeypatch.setattr(timing, "REPEATS", 1)
    settings = QuantizeConfig(group_size=16, cache="int8" if "layers" in shape else "float")
    before = torch.random.get_rng_state()
    found = timed(tmp_path, settings, portable=portable, **shape)
    assert torch.equal(torch.random.get_rng_state(), before)
    for each in (found.integer, found.floating):
        assert 0 < each.read < 1000
        assert 0 < each.write < 1000
    assert f"{torch.get_num_threads()} thread" in found.source
    assert not (tmp_path / "graphs").exists()


def test_the_weights_of_a_layer_are_those_of_its_projections() -> None:
    for gated in (True, False):
        model = tiny_model(gated_mlp=gated, layers=[tiny_layer(), tiny_layer(intermediate_size=16)])
        counted = [
            sum(each.numel() for each in layer.parameters() if each.ndim == 2) for layer in model.model.layers
        ]
        assert layer_weights(model.config) == counted


def test_an_expert_counts_as_the_share_of_tokens_that_it_gets() -> None:
    counted = layer_weights(tiny_model(spec=with_experts(experts=4, chosen=2, channels=24)).config)
    assert counted == [32 * (32 + 16 + 16 + 32) + 2 * 3 * 32 * 24] * 2


def test_large_models_are_timed_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(layers=[tiny_layer()] * 12)
    assert part_of(config) == Part(tuple(range(12)), config.vocab_size)
    monkeypatch.setattr(timing, "LAYER_WEIGHTS", 4 * layer_weights(config)[0])
    monkeypatch.setattr(timing, "TABLE_WEIGHTS", 100 * config.hidden_size)
    assert part_of(config) == Part((0, 3, 6, 9), 100)
    monkeypatch.setattr(timing, "LAYER_WEIGHTS", 1)
    assert part_of(config).layers == (0, 6)
    single = tiny_config(layers=[tiny_layer()])
    assert part_of(single) == Part((0, 0), 100)
    monkeypatch.undo()
    assert part_of(single) == Part((0,), single.vocab_size)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_parts_are_counted_up_to_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A table of 300 rows takes 3 ms, a layer 1 ms with integers and 2 without."""
    layers = [tiny_layer()] * count
    monkeypatch.setattr(timing, "TABLE_WEIGHTS", 100 * 32)
    monkeypatch.setattr(timing, "LAYER_WEIGHTS", 4 * layer_weights(tiny_config(layers=layers))[0])

    def measure(folders: dict[str, Path], **_: Any) -> dict[str, Speeds]:
        shapes = {label: json.loads((path / "config.json").read_text()) for label, path in folders.items()}
        assert len({shape["num_hidden_layers"] for shape in shapes.values()}) == 2
        rates = {
            label: 1000 / (shape["num_hidden_layers"] * (1.0 if label == "integer" else 2.0) + 1.0)
            for label, shape in shapes.items()
        }
        speeds = {label: (Speed(8, rate, rate, rate),) for label, rate in rates.items()}
        return {label: {"prefill": each, "decode": each} for label, each in speeds.items()}

    monkeypatch.setattr(timing, "measure_speed", measure)
    found = timed(tmp_path, layers=layers)
    assert found.integer.write == pytest.approx(count * 1.0 + 3.0)
    assert found.floating.write == pytest.approx(count * 2.0 + 3.0)
