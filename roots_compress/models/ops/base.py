"""What every block says of itself as data: its matrices, what can be cut, which matrices read one input."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LARGEST = 2**31 - 1
"""The largest width or length that a specification may name; tensors have no longer axes."""

Count = Annotated[int, Field(ge=1, le=LARGEST)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Part(BaseModel):
    """A frozen part of a specification that holds exactly its fields, each of exactly its type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AnyPart = TypeVar("AnyPart", bound=Part)


def changed(part: AnyPart, **changes: Any) -> AnyPart:
    """Return a part with other values for some of its fields, checked as any part is.

    Raises:
        pydantic.ValidationError: the part cannot be so.
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
    """One dimension of one parameter that an axis runs along."""

    parameter: str
    """Its name in the block. A bias that the block does not have is no member."""
    dimension: int
    size: int
    """Consecutive entries of each unit."""
    traced: bool = True
    """Of a linear layer: whether a block's `coupled` joins it to the projection, so that a trace finds it."""


@dataclass(frozen=True)
class Axis:
    """Something of a block that can be cut, unit by unit: heads, channels, experts.

    Attributes:
        name: as plans and reports name it.
        units: how many there are.
        members: what is cut with each unit.
        projection: the linear layer whose input channels are the units', `size` each; it is refitted after a
            cut. None where there is none.
        parts: linear layers whose input channels are the units', where each may keep others, equally many:
            those of experts.
        groups: equal groups of consecutive units of which equally many must stay. Where axes of a block have
            one projection, each unit of one is a group of the next.
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
        """Input channels of the projection, or of each part, that a unit has; 0 where there is neither."""
        read = self.projection or next(iter(self.parts), None)
        return sum(
            member.size
            for member in self.members
            if member.parameter == f"{read}.weight" and member.dimension == 1
        )


@dataclass(frozen=True)
class Input:
    """What linear layers of a block read together.

    Attributes:
        consumers: the linear layers.
        producers: linear layers of the block whose outputs make the input's channels, so that a scale can be
            folded into them; none where no scale can be.
        of_stream: whether it is what the block reads, so that the norm before the block makes its channels.
        of_source: whether it is the encoder's output, which the cross-attention of all layers reads, so that
            no scale of one block can be folded into what makes it.
        repeats: how often the producers' channels are repeated in the input, head by head (grouped values).
        head_dim: channels in a head; without meaning where nothing is repeated.
        writes: whether the consumers' outputs are what the block gives.
        share: of the tokens, on average, that the consumers read; below 1 where tokens are routed.
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
    """A tensor that a cache keeps of a block between tokens.

    Attributes:
        past: its name among a graph's inputs.
        present: its name among the outputs.
        shape: its sizes after the batch's; None for the number of tokens so far.
        float32: whether it is of this type whatever the weights are of.
    """

    past: str
    present: str
    shape: tuple[int | None, ...]
    float32: bool = False

    @property
    def grows(self) -> bool:
        """Whether it has entries for each token."""
        return None in self.shape


class OpSpec(Part):
    """The base of every block's specification."""

    kind: str
    group: ClassVar[str]
    """What reports count its bytes as."""
    keeps: ClassVar[str | None] = None
    """transformers' name of what a cache keeps of it, if it keeps anything."""
    scalars: ClassVar[tuple[str, ...]] = ()
    """Linear layers that give a number for each head, and so are too small for updates of low rank."""

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        """Return the linear layers, in the order in which they run, by name."""
        raise NotImplementedError

    module: ClassVar[str] = "mlp"
    """`name`, where all blocks of the kind have the same."""

    @property
    def name(self) -> str:
        """The block's name within its layer, as tensors have it."""
        return self.module

    def axes(self) -> tuple[Axis, ...]:
        """Return what can be cut, in the order in which a stage cuts."""
        raise NotImplementedError

    def states(self, layer: int) -> tuple[State, ...]:
        """Return what a cache keeps of the block, as part of a layer of this number."""
        return ()

    def inputs(self) -> tuple[Input, ...]:
        """Return what the linear layers read, in the order in which it is made."""
        raise NotImplementedError

    @property
    def projection(self) -> str | None:
        """The linear layer that all axes with a projection have; None where no axis has one."""
        return next((axis.projection for axis in self.axes() if axis.projection), None)

    def parameters(self, width: int) -> int:
        """Return how many numbers the block holds, in a model whose residual stream has a width."""
        return sum(each.rows * (each.width + each.bias) for each in self.matrices(width).values())

    def cut(self, axis: str, units: int) -> OpSpec:
        """Return the specification with so many units of an axis."""
        raise NotImplementedError

    def form(self) -> tuple[Hashable, ...]:
        """Return what blocks have in common if the weights of one can serve in another, units left out."""
        raise NotImplementedError

    @property
    def readers(self) -> tuple[str, ...]:
        """The linear layers that read what the block reads."""
        return tuple(name for each in self.inputs() if each.of_stream for name in each.consumers)

    @property
    def source_readers(self) -> tuple[str, ...]:
        """The linear layers that read the encoder's output."""
        return tuple(name for each in self.inputs() if each.of_source for name in each.consumers)

    @property
    def writers(self) -> tuple[str, ...]:
        """The linear layers whose outputs are what the block gives."""
        return tuple(name for each in self.inputs() if each.writes for name in each.consumers)


def weight_and_bias(name: str, size: int, *, bias: bool) -> tuple[Member, ...]:
    """Return the rows of a linear layer as members of an axis, those of its bias included."""
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
    """Return the first thing that is wrong, with the key where it is."""
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
    """Return a part as JSON values: its kind, and what differs from the defaults."""
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
