"""What a family of models is: its configuration both ways, and the place of each of its tensors.

Torch-free: a source can be judged before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from roots_compress.families.switches import Switches
from roots_compress.families.transforms import COPY, Tensor, Transform
from roots_compress.families.values import is_among, shown
from roots_compress.models.ops.base import first_fault
from roots_compress.models.spec import ModelSpec

CAUSAL: dict[tuple[str, ...], tuple[bool | None, ...]] = {
    ("decoder",): (True,),
    ("encoder",): (False, None),
}
"""What `is_causal` may say where a model has only these stacks; of both together one would be another."""

OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""How the first BERTs call the parts of a norm, as transformers reads them too."""


@dataclass(frozen=True)
class Rule:
    """One source tensor, and the ROOTS tensors it becomes."""

    source: str
    targets: tuple[str, ...]
    transform: Transform = COPY


@dataclass(frozen=True)
class Computed:
    """ROOTS tensors that several source tensors make together; those may have places of their own too.

    Attributes:
        write: given the ROOTS tensors, source tensors that make them.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    make: Callable[[Mapping[str, Tensor]], Sequence[Tensor]]
    write: Callable[[Sequence[Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Family:
    """How one `model_type` maps to ROOTS.

    Attributes:
        read: makes a specification of a configuration; keys that it leaves are refused.
        write: makes a configuration of a specification, as well as it can: reading it back tells whether the
            family can express the model.
        rules: the place of each tensor that a model of this specification has.
        prefix: what stands before most names, and which some checkpoints leave out.
        headed: what names begin with that never have the prefix.
        ignored: tensors that checkpoints carry and nothing reads: `{}` is a layer's number, or an expert's.
        apart: what names begin with of the parts that a model of this specification leaves out.
        copies: names under which a tensor may be stored too, or alone, by its name: what shares a tensor in
            transformers' class.
        absent: what makes a ROOTS tensor of its shape, by its name, where a source lacks it.
        computed: the tensors that several of the source's make together, by its specification and its
            configuration, which is empty for a model that is written.
        factors: the factors of a configuration on what linear layers read or give. The import multiplies
            weights by them: for each linear layer, by its name within a layer, those on weight and bias.
        variants: small configurations, by what differs from the smallest, that tests compare with
            transformers' own classes.
    """

    model_type: str
    architecture: str
    read: Callable[[Switches], ModelSpec]
    write: Callable[[ModelSpec], dict[str, Any]]
    rules: Callable[[ModelSpec], Iterable[Rule]]
    prefix: str = "model."
    headed: tuple[str, ...] = ("lm_head.",)
    ignored: tuple[str, ...] = ()
    apart: Callable[[ModelSpec], tuple[str, ...]] = lambda _: ()
    copies: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, Callable[[Sequence[int]], Tensor]] = field(default_factory=dict)
    computed: Callable[[ModelSpec, Mapping[str, Any]], Sequence[Computed]] = lambda _spec, _config: ()
    factors: Callable[[Mapping[str, Any]], Mapping[str, tuple[float, float]]] = lambda _: {}
    variants: tuple[Mapping[str, Any], ...] = ({},)

    @property
    def writes_text(self) -> bool:
        """Whether its models are decoders."""
        return self.architecture.endswith(("ForCausalLM", "LMHeadModel"))

    def read_config(self, switches: Switches) -> ModelSpec:
        """Return the specification that a configuration asks for.

        Raises:
            InputError: a key is unknown or absent, a value is impossible, or a switch is beyond ROOTS.
        """
        try:
            spec = self.read(switches)
        except ValidationError as error:
            switches.refuse(first_fault(error))
        except ValueError as error:
            switches.refuse(str(error))
        if switches.has("is_causal"):
            # transformers hands it on to every attention, whatever the class, and takes null for false.
            value = switches.take("is_causal")
            if not is_among(value, CAUSAL.get(tuple(spec.stacks), ())):
                switches.refuse(f"is_causal is {shown(value)}, which no model of this family does")
        switches.finish()
        return spec


def bare_name(name: str, prefix: str) -> str:
    """Return a tensor's name as the rules have it."""
    while not name.startswith(prefix):
        prefix = prefix.partition(".")[2]
    name = name.removeprefix(prefix)
    part = ".".join(name.rsplit(".", 2)[-2:])
    return name.removesuffix(part) + OLD_NAMES.get(part, part)
