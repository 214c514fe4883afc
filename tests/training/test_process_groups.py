"""Process groups end when nothing needs them, and not before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from roots_compress.training.batches import BatchOrder
from roots_compress.training.objective import CrossEntropy, TrainingStep
from roots_compress.training.parallel.placement import Replicas
from roots_compress.training.parallel.team import Team
from tests.encoders import tiny_encoder
from tests.tiny import tiny_model
from tests.training.test_pretraining import objective_of, pairs
from tests.training.text import windows


@contextmanager
def group_of_one(folder: Path) -> Iterator[None]:
    store = FileStore(str(folder / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("rtd", [0.0, 1.0])
def test_unused_parameters_are_looked_for_only_where_there_are_some(tmp_path: Path, rtd: float) -> None:
    """PyTorch warns on standard error where there are none; a generator that no loss reads is unused."""
    model, given = tiny_encoder(), pairs()
    objective = objective_of(model, given, rtd=1.0)
    objective._weights = objective._weights.model_copy(update={"rtd": rtd})
    with group_of_one(tmp_path):
        first = BatchOrder(given, seed=0).take(0, 1, "cpu")
        placed = Replicas(TrainingStep(model, objective), Team(), "cpu", first, "no")
        assert placed.wrapped.find_unused_parameters == (rtd == 0)


def test_a_group_outlives_the_reducer_of_gradients(tmp_path: Path) -> None:
    """The reducer would free it under Python's lock, for which the group's own thread may wait."""
    with group_of_one(tmp_path):
        step = TrainingStep(tiny_model(0), CrossEntropy())
        placed = Replicas(step, Team(), "cpu", BatchOrder(windows(), seed=0).take(0, 1, "cpu"), "no")
        group = weakref.ref(placed.wrapped.process_group)
    del placed.wrapped.process_group  # In this order Python may clear what a cycle holds.
    gc.collect()
    assert group() is not None
    del placed
    gc.collect()
    assert group() is None
