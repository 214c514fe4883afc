"""Settings of the `quantize` stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.configs.base import PositiveInt, Settings, StageName, faults_at
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.options import Option
from roots_compress.configs.stage import StageSettings
from roots_compress.errors import Key, Location, Text, recipe_key

GroupSetting = Literal["auto", 16, 32, 64, 128]
Products = Literal["integer", "float"]
IN_INT8 = "8-bit weights. A timing of some seconds chooses between products of integers and of floats."
WEIGHTS_ONLY = "int8 only: products of floats, without timing. Decodes faster, reads slower, loses less."
INTEGER_PRODUCTS = "int8 only: products of integers, without timing. Reads faster, decodes slower."
INT8_CACHE = "int8 and int4 only: keys and values cached in 8 bits, without timing."
FLOAT_CACHE = "int8 and int4 only: keys and values cached as floats, without timing."
ServeOn = Literal["auto", "avx2", "avx512-vnni", "amx", "arm"]


class WorkloadConfig(Settings):
    """The expected use of the model: tokens read, and tokens written after them."""

    read: PositiveInt = 512
    """Tokens of a prompt."""
    write: Annotated[int, Field(ge=0)] = 128
    """Tokens written after it, one by one."""


class QuantizeConfig(StageSettings):
    """Store weights in fewer bits, and multiply in them where quality allows."""

    quantizes: ClassVar[bool] = True
    recipe_only: ClassVar[str] = (
        "activation_loss eight_bit_fraction max_bytes max_loss fold compensate calibration own_windows"
    )
    example: ClassVar[str] = "roots-compress quantize --int8"
    kind: Literal["quantize"] = "quantize"
    """Names the stage."""
    name: StageName = "quantize"
    """Label of the row in reports."""
    scheme: Annotated[
        Literal["int8", "int4", "fp16"],
        Option("--int8", value="int8", help=IN_INT8),
        Option("--int4", value="int4", help="4-bit weights; 8 bits where 4 would cost most."),
        Option("--fp16", value="fp16", help="Half precision."),
    ] = "int8"
    """`int8`: 8-bit weights, and 8-bit inputs where they cost little; `int4`: 4-bit weights; `fp16`: half
    precision."""
    products: Annotated[
        Literal["auto", "integer", "float"],
        Option("--weights-only", value="float", help=WEIGHTS_ONLY),
        Option(
            "--integer-products",
            value="integer",
            help=INTEGER_PRODUCTS,
        ),
    ] = "auto"
    """int8 only. Operands of the products. `integer`: int8 weights and inputs; reads prompts fastest.
    `float`: int8 weights only; decodes fastest and loses least. `auto`: `integer` if `workload` takes at
    least 5% less time with it on `serve_on` (timed for some seconds), otherwise `float`."""
    serve_on: ServeOn = "auto"
    """int8 and int4 only. The kind of processor that will run the model. `auto` is this machine, with the
    run's threads. For another kind, stored measurements decide the products, and the cache stays in floating
    point."""
    workload: Annotated[WorkloadConfig, Option("--workload")] = WorkloadConfig()
    """int8 and int4 only. Tokens read and written, for which `auto` chooses the faster products and cache."""
    activation_loss: Annotated[float, Field(ge=0.0)] | None = 0.005
    """int8 with products `auto` or `integer`: the most that quantized inputs may add to the loss, in nats a
    prediction (a text for classifiers and embeddings, a token for others). The costliest inputs stay in
    floating point until the others keep this bound, which makes prompts slower. null: every input is
    quantized."""
    group_size: GroupSetting = "auto"
    """Weights that share a scale, in weight-only int8 and int4 matrices. Smaller groups take more bytes and
    time. `auto`: 64, or 128 for an 8-bit matrix if that takes no more bytes."""
    eight_bit_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.26
    """int4 only: the fraction of the layers' weights that stay in 8 bits, chosen where 4 bits would cost
    most."""
    max_bytes: PositiveInt | None = None
    """int4 only: the most bytes that the stored weights may take. As many layers as fit stay in 8 bits;
    `eight_bit_fraction` is ignored."""
    max_loss: Annotated[float, Field(ge=0.0)] | None = None
    """int4 only: the most that 4 bits may be expected to add to the loss, in nats a prediction (0.05 is 5% of
    perplexity). The costliest layers stay in 8 bits until the others keep this bound; `eight_bit_fraction` is
    ignored. The estimate is for rounding to nearest; `compensate` reduces the real loss."""
    fold: bool = True
    """Move outliers from activations into weights where that changes no output (smoothing)."""
    compensate: bool = True
    """Let the weights still to be rounded compensate the error of those already rounded (GPTQ)."""
    cache: Annotated[
        Literal["auto", "float", "int8"],
        Option("--int8-cache", value="int8", help=INT8_CACHE),
        Option("--float-cache", value="float", help=FLOAT_CACHE),
    ] = "auto"
    """int8 and int4 only. The format of the graph's key/value cache. `int8`: 8 bits, which decodes faster
    after long contexts. `auto`: 8 bits if a `workload` of 1,024 tokens or more then takes at least 5% less
    time on this machine (it is timed) and the loss grows by at most 0.005 nats a token; otherwise floats."""
    calibration: CalibrationConfig = CalibrationConfig()
    """Text on which errors are measured. fp16 reads one window of it, to find the largest activations."""
    own_windows: Annotated[int, Field(ge=0)] = 32
    """int8 and int4 only. Windows of calibration text that the model writes itself, so that quality on other
    kinds of text falls less. 0: none."""

    @model_validator(mode="before")
    @classmethod
    def _read_older_recipes(cls, given: object) -> object:
        """Translate `activations`, the former name of `products`."""
        if not isinstance(given, Mapping) or "activations" not in given:
            return given
        settings = dict(given)
        former = settings.pop("activations")
        if "products" in settings:
            fault = "is what products and activation_loss say now: leave it out"
            raise faults_at([(("activations",), fault)])
        if not isinstance(former, str) or former not in ACTIVATIONS:
            fault = f"is products and activation_loss now; as before it may be {', '.join(ACTIVATIONS)}"
            raise faults_at([(("activations",), fault)])
        if former == "auto" and settings.get("scheme", "int8") != "int8":
            # The defaults of that time, as a run's resolved recipe holds them.
            if settings["scheme"] == "fp16" and settings.get("group_size") == FORMER_GROUP_SIZE:
                del settings["group_size"]
            return settings
        return {**settings, **ACTIVATIONS[former]}

    @model_validator(mode="after")
    def _must_fit_together(self) -> Self:
        faults: list[tuple[Location, str]] = [
            ((key,), fault) for key in USED_WITH if (fault := self._unused(key))
        ]
        if self.max_loss is not None and self.max_bytes is not None:
            both = Text("decides which layers keep 8 bits, as ", Key("max_bytes"), " does: set only one")
            faults.append((("max_loss",), both))
        if faults:
            raise faults_at(faults)
        return self

    def faults_in_recipe(self, *, makes_model: bool, portable: bool) -> Iterator[tuple[Location, str]]:
        """Refuse an int8 cache in a portable graph: only ONNX Runtime's own operator reads it."""
        if portable and self.cache == "int8":
            setting = recipe_key("export", "portable")
            text = Text("'int8' has no portable form; set ", setting, " to false, or this to float")
            yield ("cache",), text

    def settled(self, chosen: Mapping[str, object]) -> Self:
        """Return these settings with the choices made, and without the settings for choosing."""
        found = self.model_copy(update={key: chosen[key] for key in ("products", "cache") if key in chosen})
        unused = [key for key in USED_WITH if found._unused(key)]
        return found.model_copy(update={key: type(self).model_fields[key].default for key in unused})

    def _unused(self, key: str) -> str | None:
        """Say why a setting would have no effect; None if it has one, or was left at its default."""
        if getattr(self, key) == type(self).model_fields[key].default:
            return None
        faults = [self._unfit(others) for others in USED_WITH[key]]
        return None if None in faults else faults[-1]

    def _unfit(self, others: Mapping[str, tuple[str, ...]]) -> str | None:
        """Say which of the other settings has none of its required values; None if each has one."""
        for other, values in others.items():
            if (found := getattr(self, other)) not in values:
                first, *more = (Key(other, value=value) for value in values)
                rest = [piece for each in more for piece in (" or ", each)]
                return Text(
                    "goes with ", first, *rest, ", not with ", Key(other, value=found), ": leave it out"
                )
        return None


FORMER_GROUP_SIZE = 64
"""The default of `group_size` while there was `activations`."""
ACTIVATIONS: dict[str, dict[str, object]] = {
    "auto": {"products": "integer"},
    "always": {"products": "integer", "activation_loss": None},
    "never": {"products": "float"},
}
"""The settings that each value of the former key `activations` stands for."""
Values = dict[str, tuple[str, ...]]
INT8: Values = {"scheme": ("int8",)}
INT4: Values = {"scheme": ("int4",)}
WEIGHTS_IN_INTEGERS: Values = {"scheme": ("int8", "int4")}
TIMED: tuple[Values, ...] = (
    {"scheme": ("int8",), "products": ("auto",)},
    {"scheme": ("int8", "int4"), "cache": ("auto",)},
)
USED_WITH: dict[str, tuple[Values, ...]] = {
    "products": (INT8,),
    "serve_on": TIMED,
    "workload": TIMED,
    "activation_loss": ({"scheme": ("int8",), "products": ("auto", "integer")},),
    "group_size": (WEIGHTS_IN_INTEGERS,),
    "eight_bit_fraction": (INT4,),
    "max_bytes": (INT4,),
    "max_loss": (INT4,),
    "fold": (WEIGHTS_IN_INTEGERS,),
    "compensate": (WEIGHTS_IN_INTEGERS,),
    "cache": ({"cache": ("float",)}, WEIGHTS_IN_INTEGERS),
    "own_windows": (WEIGHTS_IN_INTEGERS,),
}
"""For a setting, the sets of other settings' values with which it has an effect. It is refused with any
others."""
