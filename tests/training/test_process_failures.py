"""What goes wrong among several processes, and more of them than the quick tests start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from roots_compress.configs.train import ObjectiveConfig
from roots_compress.errors import InputError, StageError
from roots_compress.models.heads import RootsWithHead
from roots_compress.results import Json
from roots_compress.training.batches import Batch
from roots_compress.training.context import TrainingContext
from roots_compress.training.loop import fit
from roots_compress.training.objective import CrossEntropy, Loss, Objective
from roots_compress.training.pretraining import Pretraining
from roots_compress.training.summary import FitSummary
from tests.encoders import tiny_encoder
from tests.tiny import tiny_model
from tests.training.test_loop import quiet, settings
from tests.training.test_pretraining import pairs
from tests.training.test_processes import assert_close, furthest, held_bytes, taught
from tests.training.text import windows

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class OwnFiles(CrossEntropy):
    """An objective of which each process reads other files."""

    def read_files(self) -> Json:
        return os.getpid()


class Dying(CrossEntropy):
    """An objective that ends a process that does not lead, in the midst of training."""

    def __init__(self, leader: int) -> None:
        super().__init__()
        self.leader = leader

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        if os.getpid() != self.leader and batch.first >= 4 * 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(model, batch)


KILLED = """
import os, signal
from roots_compress.training.parallel.followers import Followers
if __name__ == "__main__":
    with Followers(2, 1) as followers:
        print(followers._processes[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_has_not_found_its_leader_ends_with_it() -> None:
    # Not to the end of what it writes to: the process that it started has the same stream.
    leader = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert leader.stdout is not None
    started = int(leader.stdout.readline())
    assert leader.wait(30) == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(started, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(started, signal.SIGKILL)
    pytest.fail("it goes on")


class DyingPretraining(Pretraining):
    """The same in the pre-training of an encoder."""

    leader = 0

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        if os.getpid() != self.leader and batch.first >= 7 * 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(model, batch)


def pretrain(
    work: Path, processes: int, kind: type[Pretraining] = Pretraining
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Pre-train a tiny encoder by all three losses; return its weights, and the loss of each step."""
    work.mkdir(exist_ok=True)
    model, given = tiny_encoder(), pairs()
    objective = kind(ObjectiveConfig(nsp=0.5, rtd=3.0), given, model.config.spec, seed=0)
    if isinstance(objective, DyingPretraining):
        objective.leader = os.getpid()
    config = settings(steps=12, batch_size=1, accumulation=4, processes=processes, checkpoint_every=5)
    summary = fit(model, given, objective, config, TrainingContext("cpu", 0, work, quiet()))
    return dict(model.state_dict()), [point.value for point in summary.curves["loss"]]


def train_by(objective: Objective, work: Path, processes: int) -> FitSummary:
    config = settings(steps=12, processes=processes, checkpoint_every=5)
    return fit(tiny_model(), windows(), objective, config, TrainingContext("cpu", 0, work, quiet()))


def test_other_files_are_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="process 1 of 2 has other data than process 0: files"):
        train_by(OwnFiles(), tmp_path, 2)
    assert not list(tmp_path.glob("step-*"))


def test_a_killed_process_ends_all_and_the_training_goes_on(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(StageError, match="process 1 of 2 was killed by SIGKILL") as caught:
        train_by(Dying(os.getpid()), tmp_path, 2)
    assert time.monotonic() - started < 60
    assert "goes on from the last saved state" in str(caught.value.remedy)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000005"]
    assert train_by(CrossEntropy(), tmp_path, 2).steps == 12


def test_pre_training_goes_on_with_any_number_of_processes(tmp_path: Path) -> None:
    undisturbed = {number: pretrain(tmp_path / f"straight {number}", number) for number in (1, 2)}
    with pytest.raises(StageError, match="process 1 of 2 was killed by SIGKILL"):
        pretrain(tmp_path / "cut", 2, DyingPretraining)
    for number in (1, 2, 4):
        work = shutil.copytree(tmp_path / "cut", tmp_path / f"cut {number}")
        assert [path.name for path in work.glob("step-*")] == ["step-00000005"]
        weights, losses = pretrain(work, number)
        assert losses == pytest.approx(undisturbed[1][1], abs=1e-5)
        if number == 2:
            assert losses == undisturbed[2][1]
            assert all(torch.equal(value, undisturbed[2][0][name]) for name, value in weights.items())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_four_processes_learn_what_one_does(tmp_path: Path, strategy: str) -> None:
    alone: list[dict[str, float]] = []
    of_one, _ = taught(tmp_path / "one", alone)
    losses: list[dict[str, float]] = []
    weights, summary = taught(tmp_path / "four", losses, processes=4, strategy=strategy)
    assert furthest(losses, alone) < 1e-5
    assert_close(weights, of_one)
    held = held_bytes(summary)
    assert len(held) == 4
    whole = sum(p.nbytes for p in tiny_model(1).parameters())
    most = max(sum(each.values()) for each in held)
    # Weights, their two moments, and a teacher of the same size.
    assert most < (1.1 * 4 * whole / 4 if strategy == "fsdp" else 4.1 * whole)
