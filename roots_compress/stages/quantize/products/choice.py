"""The choice of an int8 model's products: integer products, or weights only. Pure functions.

Integer products (`w8a8`) read prompts fastest; products of weights only (`w8`) decode fastest and lose least.
Which is faster for a workload depends on the processor, the model's shapes and the workload itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, Self

from roots_compress.configs.quantize import Products, QuantizeConfig, WorkloadConfig
from roots_compress.results import Json
from roots_compress.stages.quantize.plan import RoundingPlan

MARGIN = 0.05
"""Share of the workload's time by which integer products must be faster. Timings have about this noise, and a
smaller gain is not worth the loss by rounding inputs."""
LONGEST_MS = 1e9
"""Longer than any token takes."""


@dataclass(frozen=True)
class TokenTimes:
    """Milliseconds that a model takes for a token."""

    read: float
    """Milliseconds in a prompt."""
    write: float
    """Milliseconds when decoded."""

    def of(self, workload: WorkloadConfig) -> float:
        """Return the milliseconds of a workload."""
        return workload.read * self.read + workload.write * self.write


@dataclass(frozen=True)
class FormTimes:
    """A model's times in two forms on one kind of processor: with either kind of products or cache."""

    processor: str
    """Its class; see `system.machine.ProcessorClass`."""
    source: str
    """How, where and when this was measured."""
    integer: TokenTimes
    """Times with the inputs of all projections, or the cache, in integers."""
    floating: TokenTimes
    """Times with none of them in integers."""

    def to_json(self) -> dict[str, Json]:
        """Return what `from_json` reads."""
        return {
            "processor": self.processor,
            "source": self.source,
            "integer": dict(asdict(self.integer)),
            "float": dict(asdict(self.floating)),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` returns.

        Raises:
            ValueError, TypeError, KeyError: the values have another form.
        """
        integer, floating = TokenTimes(**value["integer"]), TokenTimes(**value["float"])
        found = (integer.read, integer.write, floating.read, floating.write)
        if not all(type(each) in (int, float) and 0 < each < LONGEST_MS for each in found):
            raise ValueError("not milliseconds")
        return cls(str(value["processor"]), str(value["source"]), integer, floating)

    def with_integers(self, share: float) -> TokenTimes:
        """Return the times with a share of the layers' weights in integer products."""

        def between(whole: float, none: float) -> float:
            return none + share * (whole - none)

        return TokenTimes(
            between(self.integer.read, self.floating.read), between(self.integer.write, self.floating.write)
        )


def integers_pay(times: FormTimes, workload: WorkloadConfig, share: float = 1.0) -> bool:
    """Return whether integer products for a share of the weights make a workload clearly faster."""
    return times.with_integers(share).of(workload) <= (1 - MARGIN) * times.floating.of(workload)


@dataclass(frozen=True)
class Choice:
    """A choice, with its reasons."""

    products: Products
    workload: WorkloadConfig
    processor: str
    """Its class."""
    times: FormTimes | None
    """None: the processor was not measured."""
    share: float = 1.0
    """Share of the layers' weights for which integer products would be used."""
    expected_loss: float | None = None
    """Expected cost of quantizing their inputs, in nats a prediction; None if not estimated."""
    allowed_loss: float | None = None
    """The allowed cost; None: unlimited."""
    higher: Collection[str] = ()
    """Inputs that would stay in floating point with integer products; the share is that of the others."""

    def to_json(self) -> dict[str, Json]:
        """Return the choice for a stage's notes and key."""
        said: dict[str, Json] = {
            "products": self.products,
            "processor": self.processor,
            "workload": self.workload.model_dump(),
            "expected_loss": self.expected_loss,
            "allowed_loss": self.allowed_loss,
        }
        if self.times is None:
            return {**said, "source": f"no measurement of {self.processor} is shipped"}
        return {
            **said,
            "source": self.times.source,
            "milliseconds": {
                "integer": self.times.with_integers(self.share).of(self.workload),
                "float": self.times.floating.of(self.workload),
            },
            "integer_share": self.share,
            "times": self.times.to_json(),
        }


def choose(
    config: QuantizeConfig,
    processor: str,
    times: FormTimes | None,
    plan: Callable[[Products], RoundingPlan],
) -> tuple[RoundingPlan, Choice]:
    """Choose between integer products and weights only, and return the plan for the choice.

    Integer products are used for as many inputs as the allowed loss permits, if the workload is then clearly
    faster. Their cost is estimated only if that is possible.

    Args:
        processor: the class of the processor that will run the model.
        times: those of both forms on it; None if unknown: then weights only is used, which is exact on any
            processor, decodes no slower on the measured ones, and loses least.
    """
    share, expected, workload = 1.0, None, config.workload
    higher: Collection[str] = ()
    if times is not None and integers_pay(times, workload):
        found = plan("integer")
        share, expected, higher = found.usual_share, found.expected_loss, found.higher
        if integers_pay(times, workload, share):
            allowed = config.activation_loss
            return found, Choice("integer", workload, processor, times, share, expected, allowed, higher)
    choice = Choice("float", workload, processor, times, share, expected, config.activation_loss, higher)
    return plan("float"), choice
