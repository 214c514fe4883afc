"""What is done to tensors of linear attention on the way from a GGUF file. Torch is imported by others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roots_compress.families.transforms import Tensor, Transform


@dataclass(frozen=True)
class Then:
    """A transform of a tensor that stays one, then another.

    Attributes:
        first: of them.
        second: of them.
    """

    first: Transform
    second: Transform

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return what the second makes."""
        return self.second.apply(self.first.apply(tensor)[0])

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the tensor as it was."""
        return self.first.invert((self.second.invert(tensors),))


@dataclass(frozen=True)
class Flat:
    """A vector that the file holds as rows.

    Attributes:
        rows: how many.
    """

    rows: int

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the vector."""
        return (tensor.reshape(-1),)

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the rows."""
        return tensors[0].unflatten(0, (self.rows, -1))


@dataclass(frozen=True)
class Heads:
    """A matrix that the file holds as one for each head.

    Attributes:
        heads: how many.
        transposed: whether each has its axes the other way round.
    """

    heads: int
    transposed: bool = False

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the heads' rows one after another; a tensor of other axes as it is, to be refused."""
        if tensor.ndim != 3 or tensor.shape[0] != self.heads:
            return (tensor,)
        return ((tensor.mT if self.transposed else tensor).flatten(0, 1).contiguous(),)

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the matrix of each head."""
        each = tensors[0].unflatten(0, (self.heads, -1))
        return each.mT.contiguous() if self.transposed else each


class NegativeLog:
    """The logarithms of rates that the file holds as negative numbers."""

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the logarithms."""
        return ((-tensor).double().log().float(),)

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the negative numbers."""
        return -tensors[0].exp()


@dataclass(frozen=True)
class Tiled:
    """Value heads that take turns over the key heads in the file; ours follow one another for each key head.

    Attributes:
        groups: key heads.
        shared: value heads of each.
        size: channels of a value head.
        axis: that of the heads.
    """

    groups: int
    shared: int
    size: int
    axis: int = 0

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the heads in our order; a tensor of another size as it is, to be refused for its shape."""
        return (self._turned(tensor, (self.shared, self.groups)),)

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the heads in the file's order."""
        return self._turned(tensors[0], (self.groups, self.shared))

    def _turned(self, tensor: Tensor, heads: tuple[int, int]) -> Tensor:
        axis = self.axis
        if tensor.ndim <= axis or tensor.shape[axis] != heads[0] * heads[1] * self.size:
            return tensor
        apart = tensor.unflatten(axis, (*heads, self.size))
        return apart.transpose(axis, axis + 1).flatten(axis, axis + 2).contiguous()
