"""Process groups end when nothing needs them, and not before."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from roots_compress.training.batches import BatchOrder
from roots_compress.training.objective import CrossEntropy, TrainingStep
from roots_compress.training.parallel.placement import Replicas
from roots_compress.training.parallel.team import Team
from tests.tiny import tiny_model
from tests.training.text import windows


def test_a_group_outlives_the_reducer_of_gradients(tmp_path: Path) -> None:
    """The reducer would free it under Python's lock, for which the group's own thread may wait."""
    store = FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    step = TrainingStep(tiny_model(0), CrossEntropy())
    placed = Replicas(step, Team(), "cpu", BatchOrder(windows(), seed=0).take(0, 1, "cpu"), "no")
    group = weakref.ref(placed.wrapped.process_group)
    dist.destroy_process_group()
    del placed.wrapped.process_group  # In this order Python may clear what a cycle holds.
    gc.collect()
    assert group() is not None
    del placed
    gc.collect()
    assert group() is None
