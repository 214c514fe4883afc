"""The prune stage as the pipeline calls it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.export import ExportConfig
from roots_compress.configs.prune import PruneConfig, RecoveryConfig, TargetConfig
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.packing import pack
from roots_compress.errors import InputError, StageError
from roots_compress.evaluation.size import graph_bytes
from roots_compress.evaluation.speed import Speeds
from roots_compress.events import Events
from roots_compress.export.exporter import export_checkpoint
from roots_compress.models.ops.moe import Moe
from roots_compress.results import Speed
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.prune.plan import shape_of
from roots_compress.stages.prune.stage import prune
from roots_compress.stages.prune.targets import allocate, decode_time
from roots_compress.stages.prune.targets.decode_time import DecodeTimer
from roots_compress.stages.prune.targets.meet_time import NOISE
from tests.heard import Heard
from tests.specs import SPECS, with_experts
from tests.stages.prune.shapes import shape
from tests.tiny import TEXT, tiny_checkpoint, tiny_config, tiny_layer, tiny_tokenizer, tiny_tokens

CALIBRATION = CalibrationConfig(windows=8, block_size=32)
SPLIT = TextSplit(tuple(Document.plain(f"{TEXT} {number}") for number in range(8)), (), "tiny")


def run(
    tmp_path: Path,
    checkpoint: Checkpoint,
    text: TextSplit = SPLIT,
    events: Events | None = None,
    **settings: Any,
) -> StageOutcome:
    config = PruneConfig(**{"calibration": CALIBRATION, "own_windows": 0, "multiple_of": 4, **settings})
    return prune(config, checkpoint, StageContext(text, "cpu", 0, tmp_path, events or Events()))


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = checkpoint.model(tiny_tokens()).logits
    return found


def test_every_axis_at_once_gives_the_widths_asked_for(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer()] * 4)
    before = [parameter.clone() for parameter in checkpoint.model.parameters()]
    outcome = run(tmp_path, checkpoint, ratio=0.25, head_ratio=0.5, layer_ratio=0.25)
    pruned = outcome.checkpoint
    assert list(map(shape_of, pruned.model.config.spec.layers)) == [shape(1, 2, 36)] * 3
    assert not pruned.model.training
    assert logits(pruned).isfinite().all()
    after = list(checkpoint.model.parameters())
    assert all(torch.equal(a, b) and b.requires_grad for a, b in zip(before, after, strict=True))


def test_the_result_comes_back_from_disk_with_equal_logits(tmp_path: Path) -> None:
    pruned = run(tmp_path, tiny_checkpoint(), head_ratio=0.5).checkpoint
    save_checkpoint(pruned, tmp_path / "checkpoint")
    torch.testing.assert_close(logits(load_checkpoint(tmp_path / "checkpoint")), logits(pruned))


def test_text_of_the_models_own_is_measured_beside_the_given(tmp_path: Path) -> None:
    given, both = (run(tmp_path, tiny_checkpoint(), own_windows=count) for count in (0, 4))
    assert given.notes["calibration_tokens"] == 256
    assert both.notes["calibration_tokens"] == 256 + 4 * 32
    assert not torch.equal(logits(both.checkpoint), logits(given.checkpoint))


def test_the_notes_say_what_was_decided(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer()] * 3)
    outcome = run(tmp_path, checkpoint, ratio=0.25, layer_ratio=0.34)
    notes = json.loads(json.dumps(outcome.notes, allow_nan=False))
    assert notes["parameters_before"] == checkpoint.model.num_parameters()
    assert notes["parameters_after"] == outcome.checkpoint.model.num_parameters() < notes["parameters_before"]
    assert notes["intermediate_size_before"] == [48, 48, 48]
    assert notes["intermediate_size_after"] == [36, 36]
    assert len(notes["dropped_layers"]) == 1
    assert notes["calibration_tokens"] == 256
    assert notes["attention_errors"] == [None, None]
    assert all(0 < error < 1 for error in notes["mlp_errors"])


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    first, second = (run(tmp_path, tiny_checkpoint(), head_ratio=0.5).checkpoint.model for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_widths_ranked_over_the_model_have_the_uniform_total(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():  # Half of the first layer's channels do next to nothing.
        checkpoint.model.model.layers[0].mlp.down_proj.weight[:, :24] *= 1e-3
    widths = run(tmp_path, checkpoint, uniform=False).notes["intermediate_size_after"]
    assert isinstance(widths, list)
    assert sum(int(str(width)) for width in widths) == 72
    assert widths[0] == 24


@pytest.mark.parametrize("uniform", [True, False])
def test_a_target_is_met_and_by_little(tmp_path: Path, uniform: bool) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer()] * 3)
    before = checkpoint.model.num_parameters()
    body = before - checkpoint.model.model.embed_tokens.weight.numel()
    outcome = run(tmp_path, checkpoint, target=TargetConfig(parameters=0.8), uniform=uniform, score="obs")
    saved = before - outcome.checkpoint.model.num_parameters()
    step = 3 * 4 * 32 * (3 if uniform else 1)  # Four channels of three matrices, in all layers or in one.
    assert 0.2 * body <= saved < 0.2 * body + step
    cost = outcome.notes["estimated_divergence"]
    assert isinstance(cost, float)
    assert cost > 0
    assert logits(outcome.checkpoint).isfinite().all()


def test_a_target_takes_from_where_it_costs_least(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer()] * 3)
    with torch.no_grad():  # Half of the last layer's channels, and one of its heads, do next to nothing.
        layer = checkpoint.model.model.layers[2]
        layer.mlp.down_proj.weight[:, :24] *= 1e-3
        layer.self_attn.o_proj.weight[:, 16:] *= 1e-3
    saved = 24 * 3 * 32 + 16 * 2 * 32 + 8 * 2 * 32
    bytes_left = 4 * (checkpoint.model.num_parameters() - saved)
    pruned = run(
        tmp_path, checkpoint, target=TargetConfig(bytes=bytes_left), uniform=False, score="obs"
    ).checkpoint
    assert 4 * pruned.model.num_parameters() == bytes_left
    assert shape_of(pruned.model.config.spec.layers[2]) == shape(1, 2, 24)
    assert float((logits(pruned) - logits(checkpoint)).norm() / logits(checkpoint).norm()) < 0.01


def test_a_target_that_no_shape_meets_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nearest legal one is 0\.\d+ of the parameters"):
        run(tmp_path, tiny_checkpoint(), target=TargetConfig(parameters=0.01))


def by_size(folders: Mapping[str, Path], **_: Any) -> dict[str, Speeds]:
    """Time graphs on a machine that takes a millisecond for each 100,000 bytes, whatever else it is doing."""
    rates = {label: 1000 / (graph_bytes(folder) / 1e5) for label, folder in folders.items()}
    return {label: {"decode": (Speed(128, rate, rate, rate),)} for label, rate in rates.items()}


@pytest.mark.parametrize("uniform", [True, False])
def test_a_time_is_met_by_shapes_that_were_timed(
    uniform: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_time, "measure_speed", by_size)
    checkpoint = tiny_checkpoint(layers=[tiny_layer()] * 8)
    target = TargetConfig(decode_ms=2.4)
    outcome = run(tmp_path, checkpoint, target=target, uniform=uniform, score="obs")
    times = outcome.notes["decode_ms"]
    assert isinstance(times, dict)
    assert times["target"] == 2.4
    assert times["before"] == pytest.approx(3.26, rel=0.01), "what its graph holds"
    assert times["after"] == pytest.approx(2.4, rel=NOISE)
    assert times["met"] is True
    folder = tmp_path / "pruned"
    folder.mkdir()
    export_checkpoint(outcome.checkpoint, folder, ExportConfig())
    assert graph_bytes(folder) / 1e5 == pytest.approx(times["after"], rel=0.001), "the shapes timed are these"
    assert (len(set(outcome.checkpoint.model.config.spec.layers)) == 1) == uniform
    assert logits(outcome.checkpoint).isfinite().all()
    assert not (tmp_path / "timing").exists()


def test_a_time_that_what_was_timed_does_not_meet_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_floor(folders: Mapping[str, Path], **options: Any) -> dict[str, Speeds]:
        slow: Speeds = {"decode": (Speed(128, 1000 / 2.6, 1000 / 2.6, 1000 / 2.6),)}
        speeds = by_size(folders, **options)
        return {label: slow if label == "chosen" else each for label, each in speeds.items()}

    monkeypatch.setattr(decode_time, "measure_speed", with_a_floor)
    checkpoint, said = tiny_checkpoint(layers=[tiny_layer()] * 8), Heard()
    outcome = run(tmp_path, checkpoint, events=said, target=TargetConfig(decode_ms=2.4), score="obs")
    times = outcome.notes["decode_ms"]
    assert isinstance(times, dict)
    assert times["after"] == pytest.approx(2.6)
    assert times["met"] is False, "a run with this stage misses a gate"
    assert "takes 2.6 ms a token in the fastest shapes timed, and the target is 2.4" in said.text


def test_a_time_that_no_shape_meets_or_that_is_met_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_time, "measure_speed", by_size)
    checkpoint = tiny_checkpoint(layers=[tiny_layer()])
    with pytest.raises(InputError, match=r"nearest legal one is about \d") as caught:
        run(tmp_path, checkpoint, target=TargetConfig(decode_ms=1e-6))
    nearest = float(str(caught.value).split("is about ")[1].split(" ")[0]) * 1.001
    assert run(tmp_path, checkpoint, target=TargetConfig(decode_ms=nearest)).notes["decode_ms"]
    with pytest.raises(InputError, match="ms a token already"):
        run(tmp_path, checkpoint, target=TargetConfig(decode_ms=1e6))
    assert not (tmp_path / "timing").exists()


def test_the_timer_times_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_time, "REPEATS", 2)
    events = Events()
    with DecodeTimer(tiny_config(), tmp_path / "timing", multiple_of=4, events=events) as timer:
        assert timer.whole_ms > 0
        assert timer.measure([timer.whole[0], None]) > 0
        # What the fit makes of a busy machine's timings is not bounded; that it holds time at all is.
        assert timer.times.total(timer.whole) > 0
    assert not (tmp_path / "timing").exists()


def test_a_time_for_layers_of_unequal_widths_needs_unequal_widths(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer(), tiny_layer(intermediate_size=32)])
    with pytest.raises(InputError, match="layer by layer"):
        run(tmp_path, checkpoint, target=TargetConfig(decode_ms=1.0))


def test_query_heads_go_alone(tmp_path: Path) -> None:
    pruned = run(tmp_path, tiny_checkpoint(), ratio=0.0, query_ratio=0.5).checkpoint
    assert list(map(shape_of, pruned.model.config.spec.layers)) == [shape(2, 1, 48)] * 2


def test_the_residual_stream_narrows_with_all_other_axes(tmp_path: Path) -> None:
    outcome = run(tmp_path, tiny_checkpoint(), ratio=0.25, query_ratio=0.5, residual_ratio=0.25)
    model = outcome.checkpoint.model
    assert model.config.hidden_size == outcome.notes["hidden_size_after"] == 24
    assert list(map(shape_of, model.config.spec.layers)) == [shape(2, 1, 36)] * 2
    assert len(json.loads(json.dumps(outcome.notes))["residual_errors"]) == 4
    save_checkpoint(outcome.checkpoint, tmp_path / "checkpoint")
    torch.testing.assert_close(logits(load_checkpoint(tmp_path / "checkpoint")), logits(outcome.checkpoint))
    folder = tmp_path / "onnx"
    folder.mkdir()
    report = export_checkpoint(outcome.checkpoint, folder, ExportConfig())
    assert all(case.passed for case in report.parity)


@pytest.mark.parametrize("ratio", [0.01, 0.99])
def test_a_residual_width_without_a_legal_shape_is_refused(tmp_path: Path, ratio: float) -> None:
    nearest = {0.01: "0.1250, which keeps 28", 0.99: "0.8750, which keeps 4"}[ratio]
    with pytest.raises(InputError, match=f"nearest legal residual_ratio is {nearest}"):
        run(tmp_path, tiny_checkpoint(), ratio=0.0, residual_ratio=ratio)


def test_a_residual_refit_needs_text(tmp_path: Path) -> None:
    few = CalibrationConfig(windows=2, block_size=16)
    with pytest.raises(InputError, match="needs 48 tokens"):
        run(tmp_path, tiny_checkpoint(), ratio=0.0, residual_ratio=0.25, calibration=few)


def test_half_precision_is_pruned_in_float32(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.model.half()
    pruned = run(tmp_path, checkpoint).checkpoint
    assert pruned.model.dtype == torch.float32
    assert checkpoint.model.dtype == torch.float16


def test_recovery_brings_the_model_nearer_to_its_teacher(tmp_path: Path) -> None:
    tokens = torch.from_numpy(pack(SPLIT.train, tiny_tokenizer(), 32, seed=0).input_ids)

    @torch.no_grad()
    def divergence(pruned: Checkpoint) -> float:
        teacher = tiny_checkpoint().model(tokens).logits.log_softmax(-1)
        student = pruned.model(tokens).logits.log_softmax(-1)
        return float((teacher.exp() * (teacher - student)).sum(-1).mean())

    recovery = RecoveryConfig(
        loss=DistillLossConfig(cross_entropy_weight=0.0, divergence_weight=1.0, temperature=1.0),
        training=TrainingConfig(steps=30, batch_size=4, block_size=32, learning_rate=3e-3),
    )
    plain = run(tmp_path, tiny_checkpoint(), ratio=0.5)
    recovered = run(tmp_path, tiny_checkpoint(), ratio=0.5, recovery=recovery)
    assert divergence(recovered.checkpoint) < 0.9 * divergence(plain.checkpoint)
    notes = recovered.notes["recovery"]
    assert isinstance(notes, dict)
    assert notes["steps"] == 30


def test_recovery_by_updates_of_low_rank_gives_an_ordinary_checkpoint(tmp_path: Path) -> None:
    recovery = RecoveryConfig(training=TrainingConfig(steps=4, batch_size=4, block_size=32), rank=2)
    plain = run(tmp_path, tiny_checkpoint(), ratio=0.5).checkpoint
    recovered = run(tmp_path, tiny_checkpoint(), ratio=0.5, recovery=recovery).checkpoint
    expected = plain.model.state_dict()
    found = recovered.model.state_dict()
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in expected.items()
    }
    changed = {name for name, value in found.items() if not torch.equal(value, expected[name])}
    assert changed == {name for name in found if "_proj.weight" in name}
    save_checkpoint(recovered, tmp_path / "checkpoint")
    torch.testing.assert_close(logits(load_checkpoint(tmp_path / "checkpoint")), logits(recovered))


def test_a_recovery_of_too_high_a_rank_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Set rank below 16") as caught:
        run(tmp_path, tiny_checkpoint(), recovery=RecoveryConfig(rank=16))
    assert caught.value.where == "recovery.rank"


@pytest.mark.parametrize(
    ("loss", "training", "key"),
    [
        ({}, {"block_size": 256}, "recovery.training.block_size"),
        ({"top_k": 3500}, {"block_size": 32}, "recovery.loss.top_k"),
    ],
)
def test_what_a_recovery_cannot_do_is_named_with_the_way_to_it(
    loss: dict[str, Any], training: dict[str, Any], key: str, tmp_path: Path
) -> None:
    recovery = RecoveryConfig(loss=DistillLossConfig(**loss), training=TrainingConfig(**training))
    with pytest.raises(InputError) as caught:
        run(tmp_path, tiny_checkpoint(), recovery=recovery)
    assert caught.value.where == key


def test_recovery_learns_from_a_cached_teacher_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    recovery = RecoveryConfig(
        loss=DistillLossConfig(top_k=8, cache=tmp_path / "caches"),
        training=TrainingConfig(steps=4, batch_size=4, block_size=32),
    )
    checkpoint = tiny_checkpoint()
    notes = run(tmp_path, checkpoint, ratio=0.5, recovery=recovery).notes["recovery"]
    assert isinstance(notes, dict)
    assert isinstance(notes["losses"], dict)
    assert "divergence" in notes["losses"]
    assert len(list((tmp_path / "caches").iterdir())) == 1
    expected = tiny_checkpoint().model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in checkpoint.model.state_dict().items())


def test_a_ratio_without_a_legal_shape_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nearest legal head_ratio is 0\.5000"):
        run(tmp_path, tiny_checkpoint(), head_ratio=0.1)


def test_too_few_calibration_windows_are_refused_with_their_number(tmp_path: Path) -> None:
    few = CalibrationConfig(windows=2, block_size=16)
    with pytest.raises(InputError, match=r"needs 72 tokens.*\n.*calibration\.windows to 5 or more"):
        run(tmp_path, tiny_checkpoint(), calibration=few)
    assert run(tmp_path, tiny_checkpoint(), calibration=few, refit=False).notes["calibration_tokens"] == 32


@pytest.mark.parametrize(
    ("settings", "wanted_by", "remedy"),
    [
        ({}, "a stable least-squares refit", "set refit to false"),
        ({"refit": False, "score": "obs"}, "the score obs", "choose another score"),
        ({"refit": False, "uniform": False}, "measuring what widths cost", "set uniform to true"),
        (
            {"refit": False, "target": TargetConfig(parameters=0.8)},
            "measuring what shapes cost",
            "give ratios in place of the target",
        ),
        (
            {"score": "obs"},
            "a stable least-squares refit and the score obs",
            "set refit to false and choose another score",
        ),
    ],
)
def test_what_needs_more_calibration_text_is_named_with_the_way_without(
    tmp_path: Path, settings: dict[str, Any], wanted_by: str, remedy: str
) -> None:
    few = CalibrationConfig(windows=2, block_size=16)
    with pytest.raises(InputError, match=f"too few for {wanted_by}; the widest") as caught:
        run(tmp_path, tiny_checkpoint(), calibration=few, **settings)
    assert str(caught.value).endswith(f", raise own_windows, or {remedy}.")


def test_experts_need_text_by_the_share_of_it_that_each_reads(tmp_path: Path) -> None:
    few = CalibrationConfig(windows=8, block_size=16)
    checkpoint = tiny_checkpoint(spec=with_experts(experts=8, chosen=1))
    with pytest.raises(InputError, match="the widest projection needs 192 tokens"):
        run(tmp_path, checkpoint, calibration=few, ratio=0.5, multiple_of=4)


@pytest.mark.parametrize("ratio", ["layer_ratio", "residual_ratio"])
def test_where_no_width_may_differ_nothing_is_measured(
    tmp_path: Path, ratio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocate, "layer_costs", lambda *_, **__: pytest.fail("layers are measured"))
    settings: dict[str, Any] = {ratio: 0.5}
    differing = run(tmp_path, tiny_checkpoint(), uniform=False, **settings)
    assert "estimated_divergence" not in differing.notes
    equal = run(tmp_path, tiny_checkpoint(), **settings)
    assert torch.equal(logits(differing.checkpoint), logits(equal.checkpoint))


def test_text_of_the_models_own_counts_as_calibration_text(tmp_path: Path) -> None:
    few = CalibrationConfig(windows=2, block_size=16)
    with pytest.raises(InputError, match=r"4 calibration windows.*\n.*calibration\.windows to 3 or more"):
        run(tmp_path, tiny_checkpoint(), calibration=few, own_windows=2)
    assert run(tmp_path, tiny_checkpoint(), calibration=few, own_windows=3).notes["calibration_tokens"] == 80


def test_too_short_a_text_is_refused(tmp_path: Path) -> None:
    short = TextSplit((Document.plain("The quick brown fox jumps over the lazy dog."),), (), "short")
    with pytest.raises(InputError, match="The text has no more"):
        run(tmp_path, tiny_checkpoint(), short, calibration=CalibrationConfig(windows=50, block_size=8))


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    quantization = {"group_size": 16, "formats": {"model.layers.0.mlp.down_proj": "w8"}}
    with pytest.raises(InputError, match="Prune first, then quantize"):
        run(tmp_path, tiny_checkpoint(quantization=quantization))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        checkpoint.model.model.layers[0].mlp.gate_proj.weight[3] = torch.nan
    with pytest.raises(StageError, match="NaN or infinite"):
        run(tmp_path, checkpoint)


AXES_OF_EXPERTS = [{"expert_ratio": 0.5}, {"head_ratio": 0.5, "expert_ratio": 0.25, "ratio": 0.3}]


@pytest.mark.parametrize("axes", AXES_OF_EXPERTS)
@pytest.mark.parametrize("uniform", [True, False])
def test_experts_go_with_and_without_other_axes(axes: dict[str, Any], uniform: bool, tmp_path: Path) -> None:
    outcome = run(tmp_path, tiny_checkpoint(**SPECS["experts"]), uniform=uniform, **axes)
    left = int(4 * (1 - axes["expert_ratio"]))
    if uniform:  # Else what is saved is as much, and costs decide where.
        assert outcome.notes["num_experts_after"] == [left, left]
        channels = 16 if "ratio" in axes else 24
        assert outcome.notes["moe_intermediate_size_after"] == [channels, channels]
    assert outcome.notes["parameters_after"] == outcome.checkpoint.model.num_parameters()
    save_checkpoint(outcome.checkpoint, tmp_path / "checkpoint")
    torch.testing.assert_close(logits(load_checkpoint(tmp_path / "checkpoint")), logits(outcome.checkpoint))


@pytest.mark.parametrize("uniform", [True, False])
def test_groups_of_experts_lose_equally_many(uniform: bool, tmp_path: Path) -> None:
    outcome = run(tmp_path, tiny_checkpoint(**SPECS["experts in groups"]), uniform=uniform, expert_ratio=0.25)
    blocks = outcome.checkpoint.model.config.spec.blocks()
    left = [op.experts for _, op in blocks if isinstance(op, Moe)]
    assert left == [6, 6] if uniform else {*left} <= {4, 6, 8}
    assert logits(outcome.checkpoint).isfinite().all()


@pytest.mark.parametrize("uniform", [True, False])
def test_a_target_counts_experts_and_their_channels(uniform: bool, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**SPECS["experts"])
    outcome = run(tmp_path, checkpoint, target={"parameters": 0.6}, uniform=uniform)
    before, after = (each.model.config.spec for each in (checkpoint, outcome.checkpoint))
    assert after.body_parameters <= 0.6 * before.body_parameters
    assert len(after.layers) == 1 or outcome.notes["moe_intermediate_size_after"] != [24, 24]


@pytest.mark.parametrize(
    "settings",
    [{"layer_ratio": 0.5, "ratio": 0.25}, {"target": {"parameters": 0.6}, "uniform": False}],
    ids=["ratios", "target"],
)
def test_layers_whose_keys_others_take_stay(settings: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**SPECS["shared keys"])
    outcome = run(tmp_path, checkpoint, **settings)
    before, after = (each.model.config.spec for each in (checkpoint, outcome.checkpoint))
    assert after.layers[:2] != before.layers[:2]
    assert [each.sharing for each in after.attentions()][:2] == ["gives", "gives"]
    assert after.parameters == outcome.checkpoint.model.num_parameters()
    assert logits(outcome.checkpoint).isfinite().all()


@pytest.mark.parametrize("kind", ["norms of outputs", "experts"])
def test_the_stream_narrows_wherever_blocks_norm_what_they_read(kind: str, tmp_path: Path) -> None:
    outcome = run(tmp_path, tiny_checkpoint(**SPECS[kind]), residual_ratio=0.25)
    assert outcome.checkpoint.model.config.hidden_size == 24
    assert logits(outcome.checkpoint).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (
            "norms of the stream",
            {"residual_ratio": 0.25},
            "layer 0 normalises the stream itself",
        ),
        (
            "norms of outputs",
            {"expert_ratio": 0.5},
            r"expert_ratio 0\.5 .* model has no expert",
        ),
        ("experts", {"expert_ratio": 0.75}, r"nearest legal expert_ratio is 0\.5000, which keeps 2"),
    ],
)
def test_what_a_model_does_not_have_is_refused(
    kind: str, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        run(tmp_path, tiny_checkpoint(**SPECS[kind]), **settings)
