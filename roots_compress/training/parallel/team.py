"""The processes that train one model together, from the view of one of them.

Process 0 leads: it runs the pipeline, has the text and the weights, and writes. The others receive their data
from it, do the same steps on other windows, and write nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from roots_compress.errors import InputError, RootsError
from roots_compress.results import Json
from roots_compress.run.keys import explain_change

Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """A process among those that work together; every method is called by all of them at once."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    """The number of them on this machine."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """Return the value of each process, in their order."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def to_leader(self, value: Value) -> list[Value]:
        """Return the value of each process, in their order, to process 0; nothing to the others."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(value, values, dst=0)
        return values or []

    def from_leader(self, value: Value | None = None) -> Value:
        """Return the value that process 0 gave."""
        values: list[Any] = [value]
        if self.size > 1:
            import torch.distributed as dist

            dist.broadcast_object_list(values, src=0)
        only: Value = values[0]
        return only

    def require_same(self, what: str, facts: Mapping[str, Json]) -> None:
        """Stop if processes see different values.

        Raises:
            InputError: a process sees another value; all processes raise it.
        """
        require_same(what, self.gather(dict(facts)))


ALONE = Team()
"""A process that trains alone."""


def require_same(what: str, facts: Sequence[Mapping[str, Json]]) -> None:
    """Refuse values of processes that differ from those of the first.

    Raises:
        InputError: some do.
    """
    for rank, others in enumerate(facts):
        if differences := explain_change(facts[0], others):
            raise InputError(
                f"process {rank} of {len(facts)} has other {what} than process 0: {'; '.join(differences)}",
                remedy="Give every process the same code, libraries, command and files: on several machines, "
                "a folder that all of them share.",
            )


def as_message(error: Exception) -> str:
    """Return an error in a form that another process can raise again."""
    fields: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, RootsError):
        fields.update(
            message=str(error.message),
            where=None if error.where is None else str(error.where),
            remedy=None if error.remedy is None else str(error.remedy),
            refused=isinstance(error, InputError),
        )
    return json.dumps(fields)
