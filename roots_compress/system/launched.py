"""Which of several processes this one is, where torchrun started them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_TORCHRUN = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True)
class Launched:
    """This process among those that torchrun started."""

    rank: int
    """Its number; 0 leads."""
    size: int
    """How many there are, on all machines."""
    local_rank: int
    """Its number on this machine."""
    local_size: int
    """How many there are on this machine."""


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """Return what torchrun says in the environment; None of a process that is alone."""
    if _TORCHRUN not in environment:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    found = Launched(*(int(environment[name]) for name in names))
    return found if found.size > 1 else None
