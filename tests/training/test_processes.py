"""Several processes learn what one does, each holds its part, and a training goes on with another number."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from roots_compress.configs.training import DistillLossConfig, Strategy, TrainingConfig
from roots_compress.errors import InputError
from roots_compress.models.working_copy import as_autocast_reads
from roots_compress.results import Json
from roots_compress.training.batches import BatchOrder, shared_windows
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation import teacher_cache
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.distillation.teacher import cached_teacher
from roots_compress.training.loop import fit
from roots_compress.training.low_rank import low_rank_updates
from roots_compress.training.parallel.launch import team_of
from roots_compress.training.parallel.shares import team_size, windows_of
from roots_compress.training.parallel.team import require_same
from roots_compress.training.summary import FitSummary, Tally
from tests.tiny import tiny_model
from tests.training.test_loop import quiet, settings
from tests.training.text import windows

STEPS = 20


def taught(
    work: Path, record: list[dict[str, float]] | None = None, model_seed: int = 1, **overrides: Any
) -> tuple[dict[str, torch.Tensor], FitSummary]:
    """Distil a tiny student; return its weights and the summary, and record the losses of each step."""
    work.mkdir(exist_ok=True)
    student = tiny_model(model_seed)
    objective = Distillation(tiny_model(0), student, DistillLossConfig(hidden_weight=0.1), seed=0)
    events = quiet()
    with pytest.MonkeyPatch.context() as patch:
        if record is not None:
            add = Tally.add

            def recorded(tally: Tally, losses: dict[str, float], **rest: Any) -> None:
                record.append(losses)
                add(tally, losses, **rest)

            patch.setattr(Tally, "add", recorded)
        config = settings(**{"steps": STEPS, **overrides})
        summary = fit(student, windows(), objective, config, TrainingContext("cpu", 0, work, events))
    return {name: value.clone() for name, value in student.state_dict().items()}, summary


def held_bytes(summary: FitSummary) -> list[dict[str, int]]:
    """Return what each process held."""
    assert summary.processes is not None
    return cast(list[dict[str, int]], summary.processes["held_bytes"])


def furthest(left: list[dict[str, float]], right: list[dict[str, float]]) -> float:
    assert [each.keys() for each in left] == [each.keys() for each in right]
    return max(abs(a[name] - b[name]) for a, b in zip(left, right, strict=True) for name in a)


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=2e-5, msg=name)


@pytest.fixture(scope="module")
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, threads: None
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], FitSummary]:
    """The same training by one process."""
    losses: list[dict[str, float]] = []
    return (losses, *taught(tmp_path_factory.mktemp("alone"), losses))


@pytest.fixture(scope="module")
def two(threads: None) -> Iterator[None]:
    """Keep two processes for the tests of this module: to start them takes longest."""
    with team_of(2, device="cpu", label="tests"):
        yield


@pytest.mark.parametrize("tensor_parallel", [False, True])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_does(
    tmp_path: Path,
    strategy: str,
    tensor_parallel: bool,
    alone: tuple[list[dict[str, float]], dict[str, torch.Tensor], FitSummary],
    two: None,
) -> None:
    losses: list[dict[str, float]] = []
    weights, summary = taught(
        tmp_path, losses, processes=2, strategy=strategy, tensor_parallel_teacher=tensor_parallel
    )
    assert len(losses) == STEPS
    # A teacher that is divided adds up its parts in another order: each update carries that rounding on.
    assert furthest(losses[:1], alone[0][:1]) < 1e-5
    assert furthest(losses, alone[0]) < (1e-4 if tensor_parallel else 1e-5)
    if not tensor_parallel:
        assert_close(weights, alone[1])
    assert summary.tokens == alone[2].tokens
    held = held_bytes(summary)
    assert len(held) == 2
    whole = sum(parameter.nbytes for parameter in tiny_model(1).parameters())
    matrices = sum(
        linear.weight.nbytes
        for layer in tiny_model(1).model.layers
        for linear in layer.modules()
        if isinstance(linear, nn.Linear)
    )
    for each in held:
        share = 2 if strategy == "fsdp" else 1
        assert each["trained"] == whole // share
        assert each["frozen"] == (whole - matrices // 2 if tensor_parallel else whole // share)


@pytest.mark.parametrize(("strategy", "divided"), [("ddp", False), ("fsdp", False), ("ddp", True)])
def test_a_teacher_in_half_precision_teaches_two_processes_what_it_teaches_one(
    tmp_path: Path, strategy: str, divided: bool, two: None
) -> None:
    student, teacher = tiny_model(1), as_autocast_reads(tiny_model(0), "bf16")
    frozen = sum(parameter.nbytes for parameter in teacher.parameters())
    found = []
    for processes in (1, 2):
        (work := tmp_path / str(processes)).mkdir()
        copied = copy.deepcopy(student)
        objective = Distillation(teacher, copied, DistillLossConfig(), seed=0)
        several = {"processes": processes, "strategy": strategy, "tensor_parallel_teacher": divided}
        config = settings(steps=4, precision="bf16", **several)
        found.append(fit(copied, windows(), objective, config, TrainingContext("cpu", 0, work, quiet())))
    assert found[1].loss == pytest.approx(found[0].loss, abs=1e-2)
    held = [each["frozen"] for each in held_bytes(found[1])]
    if divided:
        assert max(held) < frozen
    else:
        assert held == [frozen // (1 + (strategy == "fsdp"))] * 2


@pytest.mark.parametrize(("strategy", "tensor_parallel"), [("ddp", False), ("fsdp", False), ("ddp", True)])
def test_a_teacher_is_asked_by_all_processes_and_one_writes(
    tmp_path: Path, strategy: Strategy, tensor_parallel: bool, monkeypatch: pytest.MonkeyPatch, two: None
) -> None:
    monkeypatch.setattr(teacher_cache, "PART_POSITIONS", 70)  # five windows a part, three parts
    caches = [
        cached_teacher(
            tiny_model(),
            windows(),
            DistillLossConfig(top_k=8),
            tmp_path / str(processes),
            TrainingContext("cpu", 0, tmp_path, quiet()),
            tokenizer_sha256="t" * 64,
            precision="no",
            processes=processes,
            strategy=strategy,
            tensor_parallel=tensor_parallel,
        )
        for processes in (1, 2)
    ]
    assert len(caches[0].parts) == 3
    assert caches[1].missing() == []
    if not tensor_parallel:
        assert caches[1].found() == caches[0].found()
    one, other = (cache.read(range(12)) for cache in caches)
    # Half precision stores them; rounding may fall to either side.
    torch.testing.assert_close(other.log_probs_NK, one.log_probs_NK, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_training_goes_on_with_another_number_of_processes(
    tmp_path: Path,
    strategy: str,
    alone: tuple[list[dict[str, float]], dict[str, torch.Tensor], FitSummary],
    two: None,
) -> None:
    first: list[dict[str, float]] = []
    stopped(tmp_path, 8, first, strategy=strategy)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000008"]
    rest: list[dict[str, float]] = []
    weights, _ = taught(tmp_path, rest)
    assert (len(first), len(rest)) == (8, STEPS - 8)
    assert furthest(first + rest, alone[0]) < 1e-5
    assert_close(weights, alone[1])


def test_a_training_goes_on_with_the_same_number_to_the_bit(tmp_path: Path, two: None) -> None:
    straight, _ = taught(tmp_path / "straight", processes=2, steps=12)
    stopped(tmp_path / "stopped", 5, steps=12)
    resumed, _ = taught(tmp_path / "stopped", processes=2, steps=12)
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []


def test_parts_of_updates_of_low_rank_are_trained_with_the_rest_frozen(tmp_path: Path, two: None) -> None:
    trained = []
    for processes in (1, 2):
        student = tiny_model(1)
        work = tmp_path / str(processes)
        work.mkdir()
        config = settings(
            steps=5, processes=processes, strategy="fsdp", activation_checkpointing=processes > 1
        )
        with low_rank_updates(student, 4, seed=0):
            objective = Distillation(tiny_model(0), student, DistillLossConfig(relation_weight=1.0), seed=0)
            fit(student, windows(), objective, config, TrainingContext("cpu", 0, work, quiet()))
        trained.append(dict(student.state_dict()))
    assert_close(trained[1], trained[0])
    assert not torch.equal(
        trained[1]["model.layers.0.mlp.up_proj.weight"], tiny_model(1).model.layers[0].mlp.up_proj.weight
    )


def stopped(work: Path, after: int, record: list[dict[str, float]] | None = None, **overrides: Any) -> None:
    """Train by two processes, until the first is sent Ctrl-C: they stop together after some steps."""
    add = Tally.add

    def stopping(tally: Tally, losses: dict[str, float], *, step: int, **rest: Any) -> None:
        add(tally, losses, step=step, **rest)
        if step == after - 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tally, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            taught(work, record, processes=2, **overrides)


def test_windows_are_sent_as_the_files_that_hold_them(tmp_path: Path) -> None:
    given = windows()
    stored = shared_windows(given, 2, tmp_path)
    assert not any(isinstance(value, np.ndarray) for value in stored.__getstate__().values())
    assert stored.beginning(3).folder is None
    received = copy.copy(stored)  # as pickle does it
    for name, array in received.arrays().items():
        assert isinstance(array, np.memmap)
        assert np.array_equal(array, given.arrays()[name])
    assert (
        BatchOrder(received, seed=0).take(3, 2, "cpu").rows
        == BatchOrder(given, seed=0).take(3, 2, "cpu").rows
    )
    assert shared_windows(given, 1, tmp_path) is given
    shutil.rmtree(tmp_path / "windows")
    with pytest.raises(InputError, match="cannot open the windows"):
        copy.copy(stored)


def test_any_number_of_processes_reads_the_same_windows() -> None:
    for batch_size, accumulation in ((12, 1), (4, 3), (1, 12), (6, 2)):
        config = settings(batch_size=batch_size, accumulation=accumulation)
        for size in (1, 2, 3, 4, 6, 12):
            read = [windows_of(config, 5, rank=rank, size=size) for rank in range(size)]
            assert sorted(w for parts in read for part in parts for w in part) == list(range(60, 72))
            assert all(len(part) <= batch_size for parts in read for part in parts)
            assert len({sum(len(part) for part in parts) for parts in read}) == 1


def test_a_number_of_processes_that_cannot_share_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="use 2 or 4 processes, or a batch_size of 6") as caught:
        TrainingConfig(processes=3, batch_size=4)
    assert "3 processes cannot share the 4 windows of a step" in str(caught.value)
    with pytest.raises(InputError, match="needs them whole"):
        team_size(TrainingConfig(processes=2, batch_size=4), whole=True)
    assert team_size(TrainingConfig(processes=2, batch_size=4, accumulation=2), whole=True) == 2


def test_processes_that_see_different_things_are_refused() -> None:
    same: dict[str, Json] = {"text": "a" * 64}
    require_same("data", [same, same])
    with pytest.raises(InputError, match="process 2 of 3 has other data than process 0: text: aaaaaaaaaaaa"):
        require_same("data", [same, same, {"text": "b" * 64}])


def test_the_positions_of_a_step_are_counted_without_reading_it() -> None:
    order = BatchOrder(windows(), seed=3)
    assert order.scored(8, 10) == int(order.take(8, 10, "cpu").scored_BT.sum())
