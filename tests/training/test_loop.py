"""The training loop: learning, accumulation, schedules, guards and what it leaves behind."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.errors import InputError, StageError
from roots_compress.events import Events, Figure
from roots_compress.models.device import resolve_device, resolve_precision
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.training.batches import Batch, BatchOrder, scored_windows
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.loop import fit
from roots_compress.training.objective import CrossEntropy, Loss, Objective, TrainingStep
from roots_compress.training.optimizer import learning_rate, make_optimizer, trainable
from roots_compress.training.running import LOSS_SCALE
from roots_compress.training.summary import FitSummary
from tests.heard import Heard
from tests.tiny import tiny_layer, tiny_model
from tests.training.text import windows


def settings(**overrides: Any) -> TrainingConfig:
    fields: dict[str, Any] = {
        "steps": 6,
        "batch_size": 4,
        "block_size": 16,
        "learning_rate": 3e-3,
        "precision": "fp32",
    }
    return TrainingConfig(**{**fields, **overrides})


def quiet() -> Heard:
    return Heard()


def train(
    model: RootsForCausalLM,
    work: Path,
    config: TrainingConfig,
    objective: Objective | None = None,
    events: Events | None = None,
    seed: int = 0,
) -> FitSummary:
    return fit(
        model,
        windows(),
        objective or CrossEntropy(),
        config,
        TrainingContext("cpu", seed, work, events or quiet()),
    )


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    short = train(tiny_model(), tmp_path, settings(steps=1))
    summary = train(tiny_model(), tmp_path, settings(steps=60))
    assert summary.loss < 0.7 * short.loss
    assert (summary.steps, summary.tokens) == (60, 60 * 4 * 16)
    assert summary.tokens_per_second > 0


def test_the_model_ends_on_the_cpu_in_eval_mode(tmp_path: Path) -> None:
    model = tiny_model().train()
    train(model, tmp_path, settings(steps=1))
    assert not model.training
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_distillation_brings_the_student_to_its_teacher(tmp_path: Path) -> None:
    teacher, student = tiny_model(0), tiny_model(1)
    before = copy.deepcopy(teacher.state_dict())
    config = DistillLossConfig(cross_entropy_weight=0.0, divergence_weight=1.0)
    objective = Distillation(teacher, student, config, seed=0)
    first = train(copy.deepcopy(student), tmp_path, settings(steps=1), objective)
    last = train(student, tmp_path, settings(steps=80), objective)
    assert last.parts["divergence"] < 0.5 * first.parts["divergence"]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_learned_maps_are_trained(tmp_path: Path) -> None:
    teacher, student = tiny_model(0), tiny_model(1, hidden_size=24, layers=[tiny_layer()])
    objective = Distillation(teacher, student, DistillLossConfig(hidden_weight=1.0), seed=0)
    before = [p.detach().clone() for p in objective.maps.parameters()]
    train(student, tmp_path, settings(), objective)
    assert not torch.equal(before[0], next(objective.maps.parameters()))


class GradientKeeper(CrossEntropy):
    """Cross-entropy that lets a test look at the gradients as they stand before each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen_scored: list[int] = []

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        self.seen_scored.append(int(batch.scored_BT.sum()))
        return super().forward(model, batch)


def test_accumulated_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    """Micro-batches score different numbers of tokens, so equal weights would be wrong."""
    models = [tiny_model().double().float() for _ in range(2)]
    keeper = GradientKeeper()
    for index, (size, accumulation) in enumerate(((8, 1), (2, 4))):
        work = tmp_path / str(index)
        work.mkdir()
        config = settings(steps=1, batch_size=size, accumulation=accumulation, max_grad_norm=1e9, beta2=0.999)
        train(models[index], work, config, keeper)
    assert len(set(keeper.seen_scored[1:])) > 1
    # After one step AdamW's first moment is a tenth of the gradient, and it stands in the saved state.
    from safetensors.torch import load_file

    moments = [load_file(tmp_path / str(i) / "step-00000001" / "state.safetensors") for i in range(2)]
    names = [name for name in moments[0] if "/exp_avg/" in name]
    assert len(names) == len(list(models[0].parameters()))
    for name in names:
        torch.testing.assert_close(moments[1][name], moments[0][name], rtol=1e-4, atol=1e-7)


def test_the_schedule_rises_linearly_and_falls_to_its_floor() -> None:
    config = settings(steps=100, warmup_ratio=0.1, learning_rate=1.0, final_learning_rate_ratio=0.2)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[54] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2)
    assert all(later < earlier for earlier, later in pairwise(rates[9:]))


def test_only_matrices_decay() -> None:
    parameters = trainable(TrainingStep(tiny_model(attention_bias=True), CrossEntropy()))
    groups = make_optimizer(parameters, settings(weight_decay=0.3)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] == 0.3 for p in group["params"]}
    assert decayed == {id(p) for p in parameters.values() if p.ndim == 2}
    assert sum(len(group["params"]) for group in groups) == len(parameters)


def test_every_epoch_reads_each_window_once_in_an_order_of_its_own() -> None:
    order = BatchOrder(windows(12), seed=5)
    source = [row.tolist() for row in windows(12).input_ids]

    def rows(first: int) -> list[int]:
        return [source.index(row) for row in order.take(first, 12, "cpu").input_ids_BT.tolist()]

    first, second = rows(0), rows(12)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert rows(0) == first, "the order depends on the position alone"
    assert rows(6) == first[6:] + second[:6]


def test_seeds_give_different_orders() -> None:
    orders = [BatchOrder(windows(12), seed=seed).take(0, 12, "cpu").input_ids_BT for seed in (0, 1)]
    assert not torch.equal(*orders)


def test_windows_without_a_scored_token_are_left_out() -> None:
    packed = windows(3)
    packed.targets[1] = -100
    assert np.array_equal(scored_windows(packed).input_ids, packed.input_ids[[0, 2]])
    packed.targets[:] = -100
    with pytest.raises(InputError, match="no token to learn from"):
        scored_windows(packed)


def test_a_loss_that_is_not_finite_stops_the_stage(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(StageError, match="loss became nan") as caught:
        train(model, tmp_path, settings())
    assert caught.value.where == "training step 1 of 6"
    assert "learning_rate" in str(caught.value.remedy)


class ExplodingGradient(Objective):
    """A finite loss with an infinite slope."""

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        zero = model.model.norm.weight.sum() * 0.0
        return Loss(zero.sqrt(), {})


def test_a_gradient_that_is_not_finite_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="gradient's norm became"):
        train(tiny_model(), tmp_path, settings(), ExplodingGradient())


def test_windows_longer_than_the_context_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="longer than the model's context of 8"):
        train(tiny_model(max_position_embeddings=8), tmp_path, settings())


def test_precisions_can_follow_each_other_in_one_process(tmp_path: Path) -> None:
    losses: dict[str, float] = {}
    for precision in ("fp32", "bf16", "fp32"):
        work = tmp_path / f"{precision}{len(losses)}"
        work.mkdir()
        losses[precision] = train(tiny_model(), work, settings(steps=20, precision=precision)).loss
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_cuda_where_there_is_none_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(InputError, match="CUDA is asked for"):
        resolve_device("cuda")


class Steep(CrossEntropy):
    """Cross-entropy whose gradients in half precision overflow at the scale at which training begins."""

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        loss = super().forward(model, batch)
        return Loss(loss.total * 64, loss.parts)


def test_half_precision_leaves_out_steps_that_overflow_and_lowers_the_loss_scale(tmp_path: Path) -> None:
    model, unchanged = tiny_model(), tiny_model()
    first = train(model, tmp_path, settings(steps=1, precision="fp16"), Steep())
    assert first.loss_scale == {"loss_scale": LOSS_SCALE / 2, "skipped_steps": 1}
    assert all(
        torch.equal(left, right)
        for left, right in zip(model.state_dict().values(), unchanged.state_dict().values(), strict=True)
    )
    summaries = {}
    for precision in ("fp16", "fp32"):
        work = tmp_path / precision
        work.mkdir()
        summaries[precision] = train(
            tiny_model(), work, settings(steps=40, precision=precision, max_grad_norm=64.0), Steep()
        )
    scale = summaries["fp16"].loss_scale
    assert scale is not None
    assert isinstance(scale["skipped_steps"], int)
    assert 1 <= scale["skipped_steps"] <= 10
    assert summaries["fp16"].parts["cross_entropy"] < 0.9 * first.parts["cross_entropy"]
    assert summaries["fp32"].loss_scale is None


class Overflowing(CrossEntropy):
    """Cross-entropy that overflows itself in its first step."""

    calls = 0

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        loss = super().forward(model, batch)
        self.calls += 1
        return Loss(loss.total * torch.inf, loss.parts) if self.calls == 1 else loss


def test_a_loss_that_overflows_in_half_precision_is_a_step_left_out(tmp_path: Path) -> None:
    summary = train(tiny_model(), tmp_path, settings(steps=3, precision="fp16"), Overflowing())
    assert summary.loss_scale == {"loss_scale": LOSS_SCALE / 2, "skipped_steps": 1}
    assert math.isfinite(summary.loss)
    (tmp_path / "plain").mkdir()
    with pytest.raises(StageError, match="the loss became inf"):
        train(tiny_model(), tmp_path / "plain", settings(steps=3, precision="fp32"), Overflowing())


def test_layers_that_are_computed_again_keep_less_and_give_the_same(tmp_path: Path) -> None:
    kept, weights = [], []
    for wanted in (False, True):
        model, sizes = tiny_model(), list[int]()

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        (tmp_path / str(wanted)).mkdir()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            config = settings(steps=1, activation_checkpointing=wanted)
            train(model, tmp_path / str(wanted), config)
        kept.append(sum(sizes))
        weights.append(model.state_dict())
        assert not any(layer.recomputed for layer in model.model.layers)
    assert kept[1] < 0.6 * kept[0]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("extension", "precision"), [("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("avx512_vnni", "no")]
)
def test_a_cpu_trains_in_bf16_where_it_has_instructions_for_it(
    extension: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {extension: True})
    assert resolve_precision("auto", "cpu") == precision


def test_resolved_precisions() -> None:
    assert resolve_precision("fp32", "cpu") == "no"
    assert resolve_precision("fp16", "cpu") == "fp16"


def test_progress_is_readable_without_a_terminal(tmp_path: Path) -> None:
    events = Heard()
    train(tiny_model(), tmp_path, settings(steps=40), events=events)
    lines = events.text.splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("training: 1/40, loss ")
    assert lines[-1].startswith("training: 40/40, loss ")
    assert all(line.endswith(" left") and "tokens/s" in line for line in lines)


def test_the_loss_of_each_step_is_told(tmp_path: Path) -> None:
    events = Heard()
    summary = train(tiny_model(), tmp_path, settings(), events=events)
    losses = [each for each in events.events if isinstance(each, Figure) and each.name == "loss"]
    assert [(each.step, each.work) for each in losses] == [(step, "training") for step in range(1, 7)]
    assert losses[-1].value == summary.loss
