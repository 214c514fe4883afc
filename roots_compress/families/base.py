"""The interface of model families: reading and writing configurations, and the place of each tensor.

Torch-free, so that a source is checked before heavy libraries are loaded.
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
"""Allowed values of `is_causal` for a model with only these stacks."""

OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""The first BERTs' names for the parts of a norm, which transformers reads too."""


@dataclass(frozen=True)
class Rule:
    """One source tensor, and the ROOTS tensors made from it."""

    source: str
    targets: tuple[str, ...]
    transform: Transform = COPY


@dataclass(frozen=True)
class Computed:
    """ROOTS tensors computed from several source tensors, which may have their own places too.

    Attributes:
        write: computes source tensors from the ROOTS tensors.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    make: Callable[[Mapping[str, Tensor]], Sequence[Tensor]]
    write: Callable[[Sequence[Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Family:
    """How one `model_type` maps to ROOTS.

    Attributes:
        read: makes a specification from a configuration; keys that it does not take are refused.
        write: makes a configuration from a specification, as far as possible: reading it back shows whether
            the family can express the model.
        rules: the place of each tensor of a model with this specification.
        prefix: the prefix of most names, which some checkpoints leave out.
        headed: beginnings of names that never have the prefix.
        ignored: unused tensors in checkpoints: `{}` stands for the number of a layer or an expert.
        apart: beginnings of the names of parts that a model with this specification leaves out.
        copies: other names under which a tensor may be stored, by its name: those that share it in
            transformers' class.
        absent: functions that make a ROOTS tensor from its shape, by its name, if a source lacks it.
        computed: the tensors computed from several source tensors, by specification and configuration (empty
            when a model is written).
        factors: a configuration's factors on inputs or outputs of linear layers, which the import folds into
            weights: those on weight and bias, by the linear layer's name within a layer.
        variants: small configurations, as differences from the smallest, that tests compare with
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
        """Return the specification for a configuration.

        Raises:
            InputError: a key is unknown or absent, a value is impossible, or ROOTS cannot express a switch.
        """
        try:
            spec = self.read(switches)
        except ValidationError as error:
            switches.refuse(first_fault(error))
        except ValueError as error:
            switches.refuse(str(error))
        if switches.has("is_causal"):
            # transformers passes it to every attention, whatever the class, and treats null as false.
            value = switches.take("is_causal")
            if not is_among(value, CAUSAL.get(tuple(spec.stacks), ())):
                switches.refuse(f"is_causal is {shown(value)}, which no model of this family does")
        switches.finish()
        return spec


def bare_name(name: str, prefix: str) -> str:
    """Return a tensor's name in the form of the rules."""
    while not name.startswith(prefix):
        prefix = prefix.partition(".")[2]
    name = name.removeprefix(prefix)
    part = ".".join(name.rsplit(".", 2)[-2:])
    return name.removesuffix(part) + OLD_NAMES.get(part, part)
