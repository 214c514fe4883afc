"""An interrupted training goes on to the same weights, to the bit, and trusts no damaged state."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.errors import StageError
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.training.batches import Batch
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.interrupts import uninterrupted
from roots_compress.training.objective import CrossEntropy, Loss
from roots_compress.training.summary import FitSummary
from tests.tiny import tiny_layer, tiny_model
from tests.training.test_loop import Steep, quiet, settings, train

STEPS = 10


def press_ctrl_c(model: RootsForCausalLM, after: int) -> None:
    """Send SIGINT in the forward pass that follows `after` others."""
    calls = itertools.count()

    def hook(*_: object) -> None:
        if next(calls) == after:
            os.kill(os.getpid(), signal.SIGINT)

    model.model.register_forward_pre_hook(hook)


def config(**overrides: Any) -> TrainingConfig:
    return settings(steps=STEPS, checkpoint_every=100, accumulation=2, **overrides)


def weights(model: RootsForCausalLM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_identical(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def interrupted(work: Path, step: int, training: TrainingConfig | None = None) -> None:
    """Train until Ctrl-C comes in the second micro-batch of a step."""
    model = tiny_model()
    press_ctrl_c(model, after=2 * step + 1)
    with pytest.raises(KeyboardInterrupt):
        train(model, work, training or config())


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], FitSummary]:
    model = tiny_model()
    summary = train(model, tmp_path_factory.mktemp("straight"), config())
    return weights(model), summary


def test_a_resumed_training_is_bit_identical(
    tmp_path: Path, straight: tuple[dict[str, torch.Tensor], FitSummary]
) -> None:
    interrupted(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    model = tiny_model()
    events = quiet()
    summary = train(model, tmp_path, config(), events=events)
    assert "going on from step 5 of 10" in events.text
    assert_identical(weights(model), straight[0])
    assert (summary.loss, summary.parts, summary.tokens) == (
        straight[1].loss,
        straight[1].parts,
        straight[1].tokens,
    )


def test_the_loss_scale_is_resumed(tmp_path: Path) -> None:
    half = config(precision="fp16")
    straight, resumed = tiny_model(), tiny_model()
    (tmp_path / "straight").mkdir()
    train(straight, tmp_path / "straight", half, Steep())
    press_ctrl_c(resumed, after=11)
    with pytest.raises(KeyboardInterrupt):
        train(resumed, tmp_path, half, Steep())
    resumed = tiny_model()
    summary = train(resumed, tmp_path, half, Steep())
    assert summary.loss_scale is not None
    assert summary.loss_scale["skipped_steps"] in range(1, 9)
    assert_identical(weights(resumed), weights(straight))


class Noisy(CrossEntropy):
    """Cross-entropy times a number that torch draws."""

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        loss = super().forward(model, batch)
        return Loss(loss.total * torch.rand(()), loss.parts)


def test_random_numbers_are_resumed(tmp_path: Path) -> None:
    saved = settings(steps=STEPS, checkpoint_every=5, accumulation=2)
    straight, resumed = tiny_model(), tiny_model()
    (tmp_path / "straight").mkdir()
    train(straight, tmp_path / "straight", saved, Noisy())
    press_ctrl_c(resumed, after=11)
    with pytest.raises(KeyboardInterrupt):
        train(resumed, tmp_path, saved, Noisy())
    resumed = tiny_model()
    train(resumed, tmp_path, saved, Noisy())
    assert_identical(weights(resumed), weights(straight))


def test_several_interruptions_change_nothing(
    tmp_path: Path, straight: tuple[dict[str, torch.Tensor], FitSummary]
) -> None:
    interrupted(tmp_path, 0)
    interrupted(tmp_path, 2)
    interrupted(tmp_path, 3)
    model = tiny_model()
    train(model, tmp_path, config())
    assert_identical(weights(model), straight[0])


def test_a_finished_training_is_not_repeated(
    tmp_path: Path, straight: tuple[dict[str, torch.Tensor], FitSummary]
) -> None:
    train(tiny_model(), tmp_path, config())
    model = tiny_model()
    press_ctrl_c(model, after=0)
    summary = train(model, tmp_path, config())
    assert_identical(weights(model), straight[0])
    assert summary.loss == straight[1].loss


def test_learned_maps_are_resumed(tmp_path: Path) -> None:
    def parts() -> tuple[RootsForCausalLM, Distillation]:
        student = tiny_model(1, hidden_size=24, layers=[tiny_layer()])
        return student, Distillation(tiny_model(0), student, DistillLossConfig(hidden_weight=1.0), seed=0)

    student, objective = parts()
    (tmp_path / "a").mkdir()
    train(student, tmp_path / "a", config(), objective)
    again, again_objective = parts()
    (tmp_path / "b").mkdir()
    press_ctrl_c(again, after=11)
    with pytest.raises(KeyboardInterrupt):
        train(again, tmp_path / "b", config(), again_objective)
    again, again_objective = parts()
    train(again, tmp_path / "b", config(), again_objective)
    assert_identical(weights(again), weights(student))
    assert_identical(again_objective.maps.state_dict(), objective.maps.state_dict())


def test_the_newest_two_states_are_kept(tmp_path: Path) -> None:
    train(tiny_model(), tmp_path, settings(steps=10, checkpoint_every=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000008", "step-00000010"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "json", "position"])
def test_a_damaged_state_is_passed_over(
    tmp_path: Path, damage: str, straight: tuple[dict[str, torch.Tensor], FitSummary]
) -> None:
    interrupted(tmp_path, 7, settings(steps=STEPS, checkpoint_every=3, accumulation=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006", "step-00000007"]
    tensors = tmp_path / "step-00000007" / "state.safetensors"
    content = bytearray(tensors.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        tensors.write_bytes(content)
    elif damage == "truncate":
        tensors.write_bytes(content[:-100])
    elif damage == "remove":
        tensors.unlink()
    else:
        facts = tmp_path / "step-00000007" / "state.json"
        text = facts.read_text()
        # A bit that makes another number of one: JSON as sound as before.
        facts.write_text(text[:-20] if damage == "json" else text.replace('"step": 7', '"step": 5'))
        assert facts.read_text() != text
    model, events = tiny_model(), quiet()
    train(model, tmp_path, config(), events=events)
    assert "going on from step 6" in events.text
    assert_identical(weights(model), straight[0])


def test_the_state_of_another_teacher_or_objective_is_not_used(tmp_path: Path) -> None:
    def objective(teacher_seed: int, weight: float) -> Distillation:
        loss = DistillLossConfig(divergence_weight=weight)
        return Distillation(tiny_model(teacher_seed), tiny_model(2), loss, seed=0)

    train(tiny_model(2), tmp_path, settings(steps=2), objective(0, 0.5))
    for other, goes_on in ((objective(0, 0.5), True), (objective(1, 0.5), False), (objective(0, 0.6), False)):
        events = quiet()
        train(tiny_model(2), tmp_path, settings(steps=2), other, events=events)
        assert ("going on" in events.text) == goes_on


@pytest.mark.parametrize("change", ["settings", "seed", "weights"])
def test_the_state_of_another_training_is_not_used(tmp_path: Path, change: str) -> None:
    interrupted(tmp_path, 5)
    events = quiet()
    training = config(batch_size=2) if change == "settings" else config()
    model = tiny_model(1 if change == "weights" else 0)
    summary = train(model, tmp_path, training, events=events, seed=1 if change == "seed" else 0)
    assert "going on" not in events.text
    assert summary.steps == STEPS


def test_a_state_that_cannot_be_written_stops_the_stage_and_keeps_the_one_before(tmp_path: Path) -> None:
    model = tiny_model()
    calls = itertools.count()

    def block_the_next_state(*_: object) -> None:
        if next(calls) == 5:
            (tmp_path / ".step-00000006.tmp").write_text("a file where the folder should go")

    model.model.register_forward_pre_hook(block_the_next_state)
    with pytest.raises(StageError, match="state of step 6 cannot be written") as caught:
        train(model, tmp_path, settings(steps=8, checkpoint_every=3))
    assert caught.value.where == str(tmp_path)
    assert (tmp_path / "step-00000003" / "state.json").exists()


def test_states_hold_no_pickle(tmp_path: Path) -> None:
    train(tiny_model(), tmp_path, settings(steps=1))
    folder = tmp_path / "step-00000001"
    assert sorted(path.name for path in folder.iterdir()) == ["state.json", "state.safetensors"]
    assert json.loads((folder / "state.json").read_text())["content"]["step"] == 1


def test_a_signal_waits_for_the_end_of_a_section() -> None:
    done = []

    @uninterrupted()
    def section() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        section()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


SECTION = """
import os, signal, sys, time
from roots_compress.training.interrupts import uninterrupted
from roots_compress.training.objective import CrossEntropy, Loss
first, second = int(sys.argv[1]), int(sys.argv[2])
with uninterrupted():
    os.kill(os.getpid(), first)
    os.kill(os.getpid(), second)
    print("still here")
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait(second: signal.Signals) -> None:
    # A handler of Python's own, as the command line installs it.
    code = "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)" + SECTION
    command = [sys.executable, "-c", code, str(int(signal.SIGINT)), str(int(second))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-second, "")


def test_a_section_does_not_hold_back_a_signal_that_is_to_end_the_program_at_once() -> None:
    code = (
        "import os, signal\n"
        "from roots_compress.training.interrupts import end_at_once, uninterrupted\n"
        "signal.signal(signal.SIGTERM, end_at_once)\n"
        "with uninterrupted():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "", "")


def test_a_dead_process_leaves_no_half_written_state(tmp_path: Path) -> None:
    (tmp_path / ".step-00000007.tmp").mkdir()
    train(tiny_model(), tmp_path, settings(steps=1))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
