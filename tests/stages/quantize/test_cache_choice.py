"""Whether the cache is in int8: when it is timed, the rule, the bound on the loss, and what a report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.quantize import QuantizeConfig, WorkloadConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.evaluation.speed import measure_speed
from roots_compress.events import Events
from roots_compress.models.blocks.attention import AttentionBlock
from roots_compress.models.quantized import CacheRounding, has_int8_cache
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.quantize import cache_choice
from roots_compress.stages.quantize import stage as stages
from roots_compress.stages.quantize.cache_choice import cache_loss, may_gain, with_cache
from roots_compress.stages.quantize.products import times, timing
from roots_compress.stages.quantize.products.caption import choice_caption
from roots_compress.stages.quantize.products.choice import FormTimes, TokenTimes
from roots_compress.stages.quantize.products.timing import time_caches
from roots_compress.stages.quantize.protocol import QuantizeStage
from roots_compress.system.machine import own_instruction_set, processor_class
from tests.stages.quantize.windows import random_windows
from tests.tiny import TEXT, tiny_checkpoint, tiny_config, tiny_layer, tiny_model

HERE = processor_class(own_instruction_set())
ELSEWHERE = next(each for each in ("avx2", "amx", "arm") if each != HERE)
LONG = WorkloadConfig(read=1500, write=500)
FASTER = FormTimes(HERE, "said by a test", TokenTimes(1.0, 8.0), TokenTimes(1.0, 10.0))
"""Reading as fast, writing 20% faster."""
SLOWER = FormTimes(HERE, "said by a test", TokenTimes(1.1, 9.9), TokenTimes(1.0, 10.0))
LAYERS = [tiny_layer(head_dim=16)] * 2


def config(**settings: Any) -> QuantizeConfig:
    return QuantizeConfig.model_validate({"workload": LONG, "products": "float", **settings})


@pytest.mark.parametrize(
    ("settings", "shape", "portable", "expected"),
    [
        ({}, {}, False, True),
        ({"scheme": "int4", "products": "auto"}, {}, False, True),
        ({"cache": "float", "workload": WorkloadConfig()}, {}, False, False),
        ({"scheme": "fp16", "products": "auto", "workload": WorkloadConfig()}, {}, False, False),
        ({"workload": WorkloadConfig()}, {}, False, False),
        ({"workload": WorkloadConfig(read=4096, write=0)}, {}, False, False),
        ({}, {"max_position_embeddings": 1000}, False, False),
        ({}, {"layers": [tiny_layer()]}, False, False),
        ({"serve_on": ELSEWHERE}, {}, False, False),
        ({}, {}, True, False),
    ],
    ids=["int8", "int4", "forced", "fp16", "short", "unwritten", "context", "heads", "elsewhere", "portable"],
)
def test_a_cache_in_int8_is_timed_where_it_can_gain(
    settings: dict[str, Any], shape: dict[str, Any], portable: bool, expected: bool
) -> None:
    model = tiny_config(**{"max_position_embeddings": 2048, "layers": LAYERS, **shape})
    assert may_gain(config(**settings), model, portable=portable) is expected


def test_the_faster_cache_is_made_if_none_is_asked_for() -> None:
    assert with_cache(config(), FASTER).cache == "int8"
    assert with_cache(config(), SLOWER).cache == "float"
    assert with_cache(config(), None).cache == "float"
    assert with_cache(config(cache="int8", workload=WorkloadConfig()), None).cache == "int8"
    reading = config(workload=WorkloadConfig(read=100_000, write=500))
    assert with_cache(reading, FASTER).cache == "float"  # One hundredth of the time.


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_both_caches_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    asked: list[Any] = []

    def watched(folders: Any, **settings: Any) -> Any:
        asked.append(settings["contexts"])
        graphs = {label: onnx.load(path / "model.onnx").graph.input for label, path in folders.items()}
        caches = {label: [each for each in inputs if "key" in each.name] for label, inputs in graphs.items()}
        asked.append({label: each[0].type.tensor_type.elem_type for label, each in caches.items()})
        return measure_speed(folders, **settings)

    monkeypatch.setattr(timing, "measure_speed", watched)
    monkeypatch.setattr(timing, "REPEATS", 1)
    settings = config(
        scheme=scheme, products="auto", group_size=16, workload=WorkloadConfig(read=40, write=20)
    )
    found = time_caches(
        tiny_config(max_position_embeddings=64, layers=LAYERS), settings, tmp_path / "graphs", events=Events()
    )
    assert asked == [[50], {"integer": onnx.TensorProto.INT8, "float": onnx.TensorProto.FLOAT}]
    for each in (found.integer, found.floating):
        assert 0 < each.read < 1000
        assert 0 < each.write < 1000
    assert found.integer != found.floating
    assert not (tmp_path / "graphs").exists()


def quantized(**scale: float) -> Any:
    torch.manual_seed(0)
    model = tiny_model(layers=LAYERS)
    for block in model.modules():
        if isinstance(block, AttentionBlock):
            block.cache_rounding = CacheRounding(2, 16)
            block.cache_rounding.key_scale.fill_(scale["key"])
            block.cache_rounding.value_scale.fill_(scale["value"])
    return model


def test_the_loss_is_the_divergence_from_a_cache_of_floats() -> None:
    windows = random_windows(3, 16)
    model = quantized(key=0.5, value=0.5)
    ids = torch.from_numpy(windows.input_ids[:2])
    with torch.no_grad():
        rounded = model(input_ids=ids).logits.log_softmax(-1)
        for block in model.modules():
            if isinstance(block, AttentionBlock):
                block.cache_rounding = None
        exact = model(input_ids=ids).logits.log_softmax(-1)
    expected = float((exact.exp() * (exact - rounded)).sum(-1).mean())
    model = quantized(key=0.5, value=0.5)
    found = cache_loss(model, windows)
    assert found == pytest.approx(expected, rel=1e-3)
    assert found > 1e-6
    assert all(each.cache_rounding for each in model.modules() if isinstance(each, AttentionBlock))
    assert cache_loss(quantized(key=0.05, value=0.05), windows) < found / 20


# The stage.


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have a timing find what the last entry names; each timing adds to the list."""
    named = ["FASTER"]

    def time_caches(*_: Any, **__: Any) -> FormTimes:
        found = {"FASTER": FASTER, "SLOWER": SLOWER}[named[-1]]
        named.append(named[-1])
        return found

    monkeypatch.setattr(times, "time_caches", time_caches)
    monkeypatch.setattr(cache_choice, "LONG", 32)
    return named


def run(work: Path, chosen: Any = None, **settings: Any) -> StageOutcome:
    work.mkdir(exist_ok=True)
    calibration = CalibrationConfig(windows=8, block_size=32)
    text = TextSplit((Document.plain(TEXT * 8),), (), "a few lines")
    model = tiny_model(layers=LAYERS)
    return stages.quantize(
        config(calibration=calibration, group_size=16, own_windows=0, **settings),
        Checkpoint(model, tiny_checkpoint().tokenizer),
        StageContext(text, "cpu", 0, work, Events(), chosen=chosen),
    )


@pytest.mark.parametrize("settings", [{}, {"scheme": "int4", "products": "auto"}], ids=["int8", "int4"])
def test_the_stage_makes_the_faster_cache_and_says_so(
    tmp_path: Path, timed: list[str], settings: dict[str, Any]
) -> None:
    outcome = run(tmp_path / "faster", **settings)
    assert has_int8_cache(outcome.checkpoint.model.config)
    notes: Any = outcome.notes
    assert notes["cache"] == "int8"
    assert outcome.chosen == {"cache": "int8", "cache_choice": notes["cache_choice"]}
    assert json.loads(json.dumps(outcome.chosen, allow_nan=False)) == outcome.chosen
    assert 0 < notes["cache_choice"]["added_loss"] < cache_choice.MOST_LOST
    said = choice_caption(notes)
    assert said is not None
    assert said.startswith(
        "Keys and values are cached as int8, chosen for 1,500 tokens read and 500 written. "
        "This takes 5,500 ms; float would take 6,500 ms (said by a test); int8 adds "
    )
    forced = run(tmp_path / "forced", cache="int8", workload=WorkloadConfig(), **settings)
    state = forced.checkpoint.model.state_dict()
    for name, tensor in outcome.checkpoint.model.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert forced.chosen is None
    settled = QuantizeStage().settled(config(**settings), outcome.chosen)
    assert (settled.cache, settled.workload) == ("int8", WorkloadConfig())


def test_a_slower_cache_is_not_made(tmp_path: Path, timed: list[str]) -> None:
    timed.append("SLOWER")
    outcome = run(tmp_path / "work")
    assert not has_int8_cache(outcome.checkpoint.model.config)
    notes: Any = outcome.notes
    assert (notes["cache"], notes["cache_choice"]["added_loss"]) == ("float", None)
    assert "cached as float" in str(choice_caption(notes))


def test_a_cache_that_loses_too_much_is_not_made(
    tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MOST_LOST", 1e-9)
    outcome = run(tmp_path / "work")
    assert not has_int8_cache(outcome.checkpoint.model.config)
    assert not any("cache_rounding" in name for name in outcome.checkpoint.model.state_dict())
    notes: Any = outcome.notes
    assert notes["cache"] == notes["cache_choice"]["cache"] == "float"
    assert notes["cache_choice"]["added_loss"] > 1e-9
    plain = run(tmp_path / "plain", cache="float", workload=WorkloadConfig()).checkpoint.model.state_dict()
    for name, tensor in outcome.checkpoint.model.state_dict().items():
        assert torch.equal(tensor, plain[name])


def test_the_stage_begun_anew_or_made_again_goes_by_the_first_timing(
    tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(stages, "round_layers", None)
        with pytest.raises(TypeError):
            run(tmp_path / "work")
    timed.append("SLOWER")
    before = len(timed)
    outcome = run(tmp_path / "work")
    assert has_int8_cache(outcome.checkpoint.model.config)
    again = run(tmp_path / "elsewhere", chosen=json.loads(json.dumps(outcome.chosen)))
    assert again.chosen == outcome.chosen
    assert len(timed) == before


def test_both_choices_are_made_at_once(
    tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    products = FormTimes(HERE, "said by a test", TokenTimes(1.0, 10.0), TokenTimes(2.0, 10.0))
    monkeypatch.setattr(times, "time_here", lambda *_, **__: products)
    outcome = run(tmp_path / "work", products="auto", activation_loss=10.0)
    assert outcome.chosen is not None
    assert (outcome.chosen["products"], outcome.chosen["cache"]) == ("integer", "int8")
    said = str(choice_caption(outcome.notes))
    assert said.startswith("integer products chosen for")
    assert ". Keys and values are cached as int8" in said
    settled = QuantizeStage().settled(config(products="auto"), outcome.chosen)
    assert (settled.products, settled.cache, settled.workload) == ("integer", "int8", WorkloadConfig())


@pytest.mark.parametrize("spoilt", [3, [], {}, {"cache": "x"}, {"cache": "int8", "milliseconds": 3}])
def test_notes_of_a_cache_that_hold_something_else_are_passed_over(spoilt: Any) -> None:
    assert choice_caption({"cache_choice": spoilt}) is None
