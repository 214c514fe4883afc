"""Which products int8 gets: the rule, what it goes by, and that a choice once made is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.quantize import Products, QuantizeConfig, WorkloadConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.events import Events
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.quantize import stage as stages
from roots_compress.stages.quantize.plan import RoundingPlan
from roots_compress.stages.quantize.products import times
from roots_compress.stages.quantize.products.choice import Choice, FormTimes, TokenTimes, choose, integers_pay
from roots_compress.stages.quantize.products.measured import MEASURED, measured_times
from roots_compress.system.machine import own_instruction_set, processor_class
from tests.stages.quantize.choices import INTEGERS_WIN, WEIGHTS_ONLY_WINS, integers_win, timings_give
from tests.tiny import TEXT, tiny_checkpoint

HERE = processor_class(own_instruction_set())
READS_ONLY = WorkloadConfig(read=512, write=0)


def form_times(read: float, write: float) -> FormTimes:
    """Return the times of integer products beside 1 ms a token read and 10 a token written."""
    return FormTimes("avx2", "said by a test", TokenTimes(read, write), TokenTimes(1.0, 10.0))


def test_a_workload_takes_what_its_tokens_take() -> None:
    assert TokenTimes(0.5, 10.0).of(WorkloadConfig()) == 512 * 0.5 + 128 * 10
    assert TokenTimes(0.5, 10.0).of(READS_ONLY) == 256


@pytest.mark.parametrize(
    ("read", "write", "workload", "pays"),
    [
        (0.5, 10.0, WorkloadConfig(), True),
        (0.5, 14.0, WorkloadConfig(), False),
        (0.5, 14.0, WorkloadConfig(read=4096, write=128), True),
        (0.96, 10.0, READS_ONLY, False),  # Faster, but by less than timings repeat to.
        (0.94, 10.0, READS_ONLY, True),
    ],
)
def test_integer_products_pay_where_the_workload_takes_clearly_less_time(
    read: float, write: float, workload: WorkloadConfig, pays: bool
) -> None:
    assert integers_pay(form_times(read, write), workload) is pays


def plans(expected_loss: float, share: float) -> tuple[Any, list[Products]]:
    made: list[Products] = []

    def plan(products: Products) -> RoundingPlan:
        made.append(products)
        if products == "float":
            return RoundingPlan("w8", {}, ())
        return RoundingPlan("w8a8", {}, ("an input",), expected_loss, share)

    return plan, made


def test_what_integers_would_cost_is_looked_into_only_where_they_may_pay() -> None:
    plan, made = plans(0.004, 1.0)
    found, choice = choose(QuantizeConfig(), "avx2", form_times(1.0, 12.0), plan)
    assert (found.usual, choice.products, made) == ("w8", "float", ["float"])
    assert choice.expected_loss is None


def test_integer_products_are_chosen_within_the_loss_allowed_and_both_are_said() -> None:
    plan, made = plans(0.004, 0.9)
    found, choice = choose(QuantizeConfig(), "avx2", form_times(0.25, 10.0), plan)
    assert (found.usual, choice.products, made) == ("w8a8", "integer", ["integer"])
    said: Any = choice.to_json()
    assert (said["expected_loss"], said["allowed_loss"]) == (0.004, 0.005)
    assert said["milliseconds"]["float"] == 512 + 1280
    assert said["milliseconds"]["integer"] == pytest.approx(512 * (1 - 0.9 * 0.75) + 1280)


def test_where_the_loss_leaves_too_few_integer_products_to_pay_weights_only_is_chosen() -> None:
    plan, made = plans(0.005, 0.1)
    found, choice = choose(QuantizeConfig(), "avx2", form_times(0.25, 10.0), plan)
    assert (found.usual, choice.products, made) == ("w8", "float", ["integer", "float"])
    assert choice.expected_loss == 0.005


def test_an_unmeasured_processor_gets_weights_only_and_no_figures() -> None:
    plan, _ = plans(0.004, 1.0)
    _, choice = choose(QuantizeConfig(serve_on="arm"), "arm", None, plan)
    said = choice.to_json()
    assert choice.products == "float"
    assert said["source"] == "no measurement of arm is shipped"
    assert "milliseconds" not in said


@pytest.mark.parametrize("processor", MEASURED)
def test_times_of_other_processors_are_scaled_from_the_shipped_ones(processor: str) -> None:
    found = measured_times(processor, layer_weights=106_168_320, table_weights=28_311_552)
    twice = measured_times(processor, layer_weights=212_336_640, table_weights=56_623_104)
    assert found is not None
    assert twice is not None
    assert found.integer.read == pytest.approx(1000 / MEASURED[processor].integer.read)
    assert found.floating.write == pytest.approx(1000 / MEASURED[processor].floating.write)
    assert twice.integer.write == pytest.approx(2 * found.integer.write)
    assert MEASURED[processor].date in found.source
    assert MEASURED[processor].command in found.source


def test_nothing_is_measured_of_arm() -> None:
    assert measured_times("arm", layer_weights=1, table_weights=1) is None


@pytest.mark.parametrize(
    ("processor", "workload", "products"),
    [
        ("avx2", WorkloadConfig(), "integer"),
        ("avx512-vnni", WorkloadConfig(), "float"),
        ("avx512-vnni", WorkloadConfig(read=4096, write=64), "integer"),
        ("amx", WorkloadConfig(), "float"),
        ("amx", WorkloadConfig(read=2048, write=64), "integer"),
        ("avx2", WorkloadConfig(read=64, write=512), "float"),
    ],
)
def test_what_the_shipped_figures_choose(
    processor: str, workload: WorkloadConfig, products: Products
) -> None:
    found = measured_times(processor, layer_weights=106_168_320, table_weights=28_311_552)
    assert found is not None
    assert integers_pay(found, workload) is (products == "integer")


# The stage.


def run(work: Path, chosen: Any = None, **settings: Any) -> StageOutcome:
    config = QuantizeConfig(
        calibration=CalibrationConfig(windows=8, block_size=32), group_size=16, own_windows=0, **settings
    )
    text = TextSplit((Document.plain(TEXT * 8),), (), "a few lines")
    work.mkdir(exist_ok=True)
    return stages.quantize(
        config,
        tiny_checkpoint(),
        StageContext(text, "cpu", 0, work, Events(), chosen=chosen),
    )


def formats(outcome: StageOutcome) -> set[str]:
    chosen = outcome.checkpoint.model.config.quantization["formats"]  # type: ignore[index]
    return {chosen[name] for name in chosen if "proj" in name}


@pytest.mark.parametrize(
    ("found", "products", "expected"),
    [(INTEGERS_WIN, "integer", "w8a8"), (WEIGHTS_ONLY_WINS, "float", "w8")],
    ids=["integers win", "weights only wins"],
)
def test_the_stage_makes_what_the_timing_chooses_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: FormTimes, products: str, expected: str
) -> None:
    timings_give(monkeypatch, found)
    outcome = run(tmp_path / "work", activation_loss=10.0)
    assert formats(outcome) == {expected}
    assert outcome.chosen is not None
    notes: Any = outcome.notes["choice"]
    assert {**outcome.chosen, "bytes": notes["bytes"]} == notes
    assert notes["products"] == products
    assert notes["processor"] == HERE
    assert notes["workload"] == {"read": 512, "write": 128}
    assert notes["milliseconds"] == {
        "integer": found.integer.of(WorkloadConfig()),
        "float": found.floating.of(WorkloadConfig()),
    }
    forced: dict[str, Any] = {"products": "float"}
    if products == "float":
        forced = {"products": "integer", "activation_loss": None}
    other = run(tmp_path / "other", **forced)
    assert notes["bytes"][products] == outcome.notes["bytes"]
    assert notes["bytes"]["float" if products == "integer" else "integer"] == other.notes["bytes"]


def test_the_other_form_spares_the_inputs_that_its_times_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Integer products would pay by far if they had more than a share of the weights.
    timings_give(monkeypatch, FormTimes("avx2", "by a test", TokenTimes(1.0, 10.0), TokenTimes(1.07, 10.0)))
    outcome = run(tmp_path / "work", activation_loss=3e-4, workload=READS_ONLY)
    notes: Any = outcome.notes["choice"]
    assert notes["products"] == "float"
    assert 0 < notes["integer_share"] < 1
    forced = run(tmp_path / "forced", products="integer", activation_loss=3e-4)
    assert notes["bytes"]["integer"] == forced.notes["bytes"]


def test_a_forced_form_is_neither_timed_nor_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = integers_win(monkeypatch)
    for products in ("integer", "float"):
        outcome = run(tmp_path / products, products=products)
        assert outcome.chosen is None
        assert "choice" not in outcome.notes
    assert timed == []


def test_another_processor_is_not_timed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = integers_win(monkeypatch)
    for processor in ("avx2", "avx512-vnni", "amx", "arm"):
        if processor != HERE:
            outcome = run(tmp_path / processor, serve_on=processor)
            assert outcome.chosen is not None
            assert outcome.chosen["processor"] == processor
    assert timed == []
    if HERE in ("avx2", "avx512-vnni", "amx", "arm"):
        run(tmp_path / "own", serve_on=HERE)
        assert len(timed) == 1


def test_the_stage_begun_anew_goes_by_what_was_timed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    integers_win(monkeypatch)
    with monkeypatch.context() as killed:
        killed.setattr(stages, "round_layers", None)
        with pytest.raises(TypeError):
            run(tmp_path / "work", activation_loss=10.0)
    timed = timings_give(monkeypatch, WEIGHTS_ONLY_WINS)
    outcome = run(tmp_path / "work", activation_loss=10.0)
    assert formats(outcome) == {"w8a8"}
    assert timed == []
    undisturbed = run(tmp_path / "elsewhere", activation_loss=10.0)
    assert formats(undisturbed) == {"w8"}


def test_the_stage_made_again_goes_by_what_it_chose_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    integers_win(monkeypatch)
    before = run(tmp_path / "work", activation_loss=10.0).chosen
    timed = timings_give(monkeypatch, WEIGHTS_ONLY_WINS)
    again = run(tmp_path / "new", chosen=json.loads(json.dumps(before)), activation_loss=10.0)
    assert again.chosen == before
    assert timed == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"content": {"integer": {}}, "sha256": "0"}'])
def test_a_record_that_cannot_be_read_is_timed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    timed = integers_win(monkeypatch)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / times.NAME).write_text(text)
    run(tmp_path / "work")
    assert len(timed) == 1


@pytest.mark.parametrize(
    "spoilt",
    [
        None,
        {},
        {"integer": {"read": 1.0, "write": 0.0}},
        {"float": {"read": "1", "write": 1.0}},
        {"integer": {"read": float("nan"), "write": 1.0}},
        {"integer": {"read": True, "write": 1.0}},
    ],
)
def test_times_that_are_none_are_not_read(spoilt: Any) -> None:
    good = INTEGERS_WIN.to_json()
    assert FormTimes.from_json(good) == INTEGERS_WIN
    with pytest.raises((ValueError, TypeError, KeyError)):
        FormTimes.from_json({**good, **spoilt} if spoilt else spoilt)


def test_a_choice_is_json_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Choice("integer", WorkloadConfig(), "avx2", INTEGERS_WIN, 0.5, 0.004, None).to_json()
    assert json.loads(json.dumps(said, allow_nan=False)) == said


@pytest.mark.parametrize("scheme", ["fp16", "int4"])
def test_defaults_of_runs_from_before_the_choice_are_read(scheme: str) -> None:
    """A run's resolved recipe holds every default of its time."""
    read = QuantizeConfig.model_validate({"scheme": scheme, "activations": "auto", "group_size": 64})
    assert (read.scheme, read.products) == (scheme, "auto")
