"""What is done to source tensors on the way to ROOTS tensors, and back. Torch is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Tensor = Any
"""A torch tensor; torch is not imported here."""


class Transform(Protocol):
    """What is done to a source tensor."""

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the ROOTS tensors that it becomes."""

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the source tensor that these ROOTS tensors came from."""


@dataclass(frozen=True)
class Each:
    """A tensor that stays one.

    Attributes:
        read: makes ours of the source's.
        write: the source's of ours; None where the source's kind is read only.
    """

    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor] | None = None

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return ours."""
        return (self.read(tensor),)

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the source's."""
        assert self.write is not None, "read only"
        return self.write(tensors[0])


COPY = Each(lambda tensor: tensor, lambda tensor: tensor)
ADD_ONE = Each(lambda distance: distance.float() + 1, lambda gain: gain - 1)
"""The gain of a norm that is stored as its distance from 1."""
TAPS = Each(lambda taps: taps[:, None], lambda weight: weight[:, 0])
"""The weights of a convolution of each channel by itself, without the axis of the channels it reads."""
ONE_ROW = Each(lambda matrix: matrix.flatten(), lambda vector: vector[None])
"""A vector that is stored as a matrix of one row."""


@dataclass(frozen=True)
class Rows:
    """Several tensors joined along their first axis.

    Attributes:
        transposed: whether the source's axes are the other way round.
    """

    sizes: tuple[int, ...]
    transposed: bool = False

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the parts; a tensor of other rows is returned whole, to be refused for its shape."""
        turned = tensor.T if self.transposed else tensor
        if turned.shape[0] != sum(self.sizes):
            return [turned] * len(self.sizes)
        return [part.contiguous() for part in turned.split(self.sizes)]

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the parts joined."""
        import torch

        joined = torch.cat(list(tensors))
        return joined.T.contiguous() if self.transposed else joined


@dataclass(frozen=True)
class ByHead:
    """Several tensors joined along their first axis, head by head.

    Attributes:
        heads: how many, or groups of heads.
        rows: of each tensor, for each head.
    """

    heads: int
    rows: tuple[int, ...]

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the parts; a tensor of other rows is returned whole, to be refused for its shape."""
        if tensor.shape[0] != self.heads * sum(self.rows):
            return [tensor] * len(self.rows)
        parts = tensor.unflatten(0, (self.heads, -1)).split(self.rows, dim=1)
        return [part.flatten(0, 1).contiguous() for part in parts]

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the parts joined."""
        import torch

        heads = [tensor.unflatten(0, (self.heads, -1)) for tensor in tensors]
        return torch.cat(heads, dim=1).flatten(0, 1)


def reordered(order: Sequence[int]) -> Each:
    """Return what puts the channels of queries' or keys' heads into our order, given theirs in that order.

    The order is free, as long as queries and keys have the same.
    """

    def taken(tensor: Tensor, places: Sequence[int]) -> Tensor:
        if tensor.shape[0] % len(order):
            return tensor  # Refused for its shape later.
        return tensor.unflatten(0, (-1, len(order)))[:, list(places)].reshape(tensor.shape)

    places = sorted(range(len(order)), key=order.__getitem__)
    return Each(lambda tensor: taken(tensor, order), lambda tensor: taken(tensor, places))


def in_pairs(head_dim: int, turned: int, *, first: int = 0) -> Each:
    """Return what takes adjacent channels apart that rotary positions turn; ours turn one of each half.

    Args:
        turned: how many are turned, which are one after another.
        first: the first of them; ours are a head's first.
    """
    places = range(first, first + turned)
    return reordered((*places[::2], *places[1::2], *_others(head_dim, places)))


def in_front(head_dim: int, turned: int) -> Each:
    """Return what puts a head's last channels, those that are turned, first."""
    places = range(head_dim - turned, head_dim)
    return reordered((*places, *_others(head_dim, places)))


def _others(head_dim: int, places: range) -> list[int]:
    return [place for place in range(head_dim) if place not in places]


@dataclass(frozen=True)
class Parts:
    """A tensor's parts, each changed by a transform of its own."""

    cut: Transform
    changes: tuple[Each, ...]

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the changed parts."""
        parts = self.cut.apply(tensor)
        return [change.read(part) for change, part in zip(self.changes, parts, strict=True)]

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the parts as they were, joined."""
        return self.cut.invert(
            [change.invert([part]) for change, part in zip(self.changes, tensors, strict=True)]
        )


@dataclass(frozen=True)
class Stacked:
    """Tensors of one shape, stacked along a new first axis; each may be several, joined along their rows.

    Attributes:
        by_turns: whether the rows of the parts take turns.
        transposed: whether each of the source's matrices has its axes the other way round.
    """

    count: int
    parts: int = 1
    by_turns: bool = False
    transposed: bool = False

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the parts of each in turn; a tensor of another shape is returned whole, to be refused."""
        tensor = tensor.mT if self.transposed and tensor.ndim == 3 else tensor
        if not 2 <= tensor.ndim <= 3 or tensor.shape[0] != self.count or tensor.shape[1] % self.parts:
            return [tensor] * (self.count * self.parts)
        rows, axis = ((-1, self.parts), 1) if self.by_turns else ((self.parts, -1), 0)
        return [part.contiguous().clone() for each in tensor for part in each.unflatten(0, rows).unbind(axis)]

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the tensors stacked."""
        import torch

        stacked = torch.stack(list(tensors)).unflatten(0, (self.count, self.parts))
        joined = (stacked.transpose(1, 2) if self.by_turns else stacked).flatten(1, 2)
        return joined.mT.contiguous() if self.transposed else joined


@dataclass(frozen=True)
class Shared:
    """One tensor that several of ours are copies of."""

    count: int

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the copies."""
        return [tensor.clone() for _ in range(self.count)]

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the tensor.

        Raises:
            ValueError: the copies have come to differ.
        """
        if any(each.shape != tensors[0].shape or not each.equal(tensors[0]) for each in tensors):
            raise ValueError("tensors differ that the family's layers share")
        return tensors[0]


def last_rows(unread: int) -> Each:
    """Return what leaves out the first rows of a table, which nothing reads; they are written as zeros."""

    def write(table: Tensor) -> Tensor:
        import torch

        return torch.cat([torch.zeros_like(table[:1]).expand(unread, -1), table])

    return Each(lambda table: table[unread:].contiguous(), write)


def zeros(shape: Sequence[int]) -> Tensor:
    """Return a tensor of zeros."""
    import torch

    return torch.zeros(*shape)


def sines(shape: Sequence[int]) -> Tensor:
    """Return a table of positions: the sines of their angles, then the cosines (Vaswani et al. 2017)."""
    import torch

    rows, width = shape
    place_P1 = torch.arange(rows, dtype=torch.float64)[:, None]
    even = torch.arange(0, width, 2, dtype=torch.float64)
    angles = place_P1 / 10_000 ** (even / width)
    return torch.cat((angles.sin(), angles[:, : width // 2].cos()), dim=1).float()
