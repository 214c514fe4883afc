"""The data of every block: its matrices, the axes that can be cut, and the matrices that share an input."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LARGEST = 2**31 - 1
"""The largest width or length in a specification; tensors have no longer axes."""

Count = Annotated[int, Field(ge=1, le=LARGEST)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Part(BaseModel):
    """A frozen part of a specification, with exactly its fields, each of exactly its type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AnyPart = TypeVar("AnyPart", bound=Part)


def changed(part: AnyPart, **changes: Any) -> AnyPart:
    """Return a part with other values for some of its fields, checked like any part.

    Raises:
        pydantic.ValidationError: the values are impossible.
    """
    values = {name: getattr(part, name) for name in type(part).model_fields}
    return type(part)(**{**values, **changes})


class Matrix(NamedTuple):
    """The weight of a linear layer of a block, `(rows, width)`."""

    rows: int
    """Its outputs."""
    width: int
    """Its inputs."""
    bias: bool


@dataclass(frozen=True)
class Member:
    """One dimension of one parameter along an axis."""

    parameter: str
    """The parameter's name in the block. A missing bias is not a member."""
    dimension: int
    size: int
    """Consecutive entries of each unit."""
    traced: bool = True
    """For a linear layer: whether `coupled` joins it to the projection, so that a trace finds it."""


@dataclass(frozen=True)
class Axis:
    """A dimension of a block that can be cut, unit by unit: heads, channels, experts.

    Attributes:
        name: its name in plans and reports.
        units: their number.
        members: the parameters that are cut with each unit.
        projection: the linear layer whose input channels are the units', `size` each; it is refitted after a
            cut. None if there is none.
        parts: linear layers whose input channels are the units', if each may keep different ones, equally
            many: those of experts.
        groups: equal groups of consecutive units, each of which must keep equally many. If axes of a block
            share a projection, each unit of one is a group of the next.
        least: units of each group that must stay.
    """

    name: str
    units: int
    members: tuple[Member, ...]
    projection: str | None
    groups: int = 1
    least: int = 1
    parts: tuple[str, ...] = ()

    @property
    def each(self) -> int:
        """Units of each group."""
        return self.units // self.groups

    @property
    def size(self) -> int:
        """A unit's input channels in the projection, or in each part; 0 if there is neither."""
        read = self.projection or next(iter(self.parts), None)
        return sum(
            member.size
            for member in self.members
            if member.parameter == f"{read}.weight" and member.dimension == 1
        )


@dataclass(frozen=True)
class Input:
    """An input that linear layers of a block share.

    Attributes:
        consumers: the linear layers that read it.
        producers: linear layers of the block that compute the input's channels, so that a scale can be folded
            into them; empty if no scale can.
        of_stream: whether it is the block's input, so that the norm before the block computes its channels.
        of_source: whether it is the encoder's output. The cross-attention of all layers reads it, so no scale
            of one block can be folded into its producer.
        repeats: how often the producers' channels are repeated in the input, head by head (grouped values).
        head_dim: channels in a head; unused if nothing is repeated.
        writes: whether the consumers' outputs are the block's output.
        share: the share of tokens that the consumers read on average; below 1 if tokens are routed.
    """

    consumers: tuple[str, ...]
    producers: tuple[str, ...] = ()
    of_stream: bool = False
    of_source: bool = False
    repeats: int = 1
    head_dim: int = 1
    writes: bool = False
    share: float = 1.0


@dataclass(frozen=True)
class State:
    """A tensor of a block that a cache keeps between tokens.

    Attributes:
        past: its name as a graph's input.
        present: its name as an output.
        shape: its sizes without the batch; None stands for the number of tokens so far.
        float32: whether it has this type, whatever the type of the weights.
    """

    past: str
    present: str
    shape: tuple[int | None, ...]
    float32: bool = False

    @property
    def grows(self) -> bool:
        """Whether it grows with each token."""
        return None in self.shape


class OpSpec(Part):
    """The base of every block's specification."""

    kind: str
    group: ClassVar[str]
    """The group under which reports count its bytes."""
    keeps: ClassVar[str | None] = None
    """transformers' name for its kind of cache, if it has one."""
    scalars: ClassVar[tuple[str, ...]] = ()
    """Linear layers with one output for each head, too small for updates of low rank."""

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        """Return the linear layers by name, in running order."""
        raise NotImplementedError

    module: ClassVar[str] = "mlp"
    """`name`, if all blocks of the kind have the same."""

    @property
    def name(self) -> str:
        """The block's name within its layer, as in tensors' names."""
        return self.module

    def axes(self) -> tuple[Axis, ...]:
        """Return the axes, in the order in which a stage cuts them."""
        raise NotImplementedError

    def states(self, layer: int) -> tuple[State, ...]:
        """Return the block's states in a cache, for a layer with this number."""
        return ()

    def inputs(self) -> tuple[Input, ...]:
        """Return the inputs of the linear layers, in the order in which they are computed."""
        raise NotImplementedError

    @property
    def projection(self) -> str | None:
        """The projection that all axes with one share; None if no axis has one."""
        return next((axis.projection for axis in self.axes() if axis.projection), None)

    def parameters(self, width: int) -> int:
        """Return the block's number of parameters, for a width of the residual stream."""
        return sum(each.rows * (each.width + each.bias) for each in self.matrices(width).values())

    def cut(self, axis: str, units: int) -> OpSpec:
        """Return the specification with this many units of an axis."""
        raise NotImplementedError

    def form(self) -> tuple[Hashable, ...]:
        """Return the properties, without units, that blocks must share to exchange weights."""
        raise NotImplementedError

    @property
    def readers(self) -> tuple[str, ...]:
        """The linear layers that read the block's input."""
        return tuple(name for each in self.inputs() if each.of_stream for name in each.consumers)

    @property
    def source_readers(self) -> tuple[str, ...]:
        """The linear layers that read the encoder's output."""
        return tuple(name for each in self.inputs() if each.of_source for name in each.consumers)

    @property
    def writers(self) -> tuple[str, ...]:
        """The linear layers whose outputs are the block's output."""
        return tuple(name for each in self.inputs() if each.writes for name in each.consumers)


def weight_and_bias(name: str, size: int, *, bias: bool) -> tuple[Member, ...]:
    """Return the rows of a linear layer and of its bias as members of an axis."""
    weight = Member(f"{name}.weight", 0, size)
    return (weight, Member(f"{name}.bias", 0, size)) if bias else (weight,)


KINDS = (
    "attention",
    "short_conv",
    "gated_delta_net",
    "mamba2",
    "mlp",
    "moe",
    "layer_input",
    "lm",
    "masked_lm",
    "classification",
    "score",
    "embedding",
    "seq2seq_lm",
)
"""Steps of a place that pydantic adds for unions."""


def first_fault(error: ValidationError) -> str:
    """Return the first fault, with its key."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(step) for step in fault["loc"] if step not in KINDS)
    if fault["type"] == "value_error":
        return f"{place}: {fault['ctx']['error']}" if place else str(fault["ctx"]["error"])
    if fault["type"] == "extra_forbidden":
        return f"{place} is a key that no specification has"
    if fault["type"] == "missing":
        return f"{place} is missing"
    return f"{place} is {fault['input']!r:.100}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def plain(value: Any) -> Any:
    """Return a part as JSON values: its kind, and the values that are not defaults."""
    if isinstance(value, Part):
        return {
            name: plain(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if name == "kind" or field.is_required() or getattr(value, name) != field.default
        }
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return value
