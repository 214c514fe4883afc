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
    """What the model will be used for: tokens read, and tokens written after them."""

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
    """int8 only. What projections multiply. `integer`: int8 weights and inputs, which read prompts fastest.
    `float`: weights only, which decode fastest and lose least. `auto`: integers where `workload` takes at
    least 5% less time with them on `serve_on`, which is timed for some seconds; weights only otherwise."""
    serve_on: ServeOn = "auto"
    """int8 and int4 only. The kind of processor that will serve the model. `auto` is this machine, with the
    run's threads. For another kind, stored measurements decide the products, and the cache is of floats."""
    workload: Annotated[WorkloadConfig, Option("--workload")] = WorkloadConfig()
    """int8 and int4 only. Tokens read and written, for which the faster products and cache are taken."""
    activation_loss: Annotated[float, Field(ge=0.0)] | None = 0.005
    """int8 with products `auto` or `integer`: how much quantized inputs may add to the loss, in nats a
    prediction (a text of classifiers and embeddings, a token of others). The costliest inputs stay in
    floating point, with slower prompts, until the others keep this bound. null: every input is quantized."""
    group_size: GroupSetting = "auto"
    """Weights that share a scale, in weight-only int8 and int4 matrices. Smaller groups take more bytes and
    time. `auto`: 64, and 128 for an 8-bit matrix where that takes no more bytes."""
    eight_bit_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.26
    """int4 only: the fraction of the layers' weights kept in 8 bits, where 4 would cost most."""
    max_bytes: PositiveInt | None = None
    """int4 only: the most bytes that the stored weights may take. As many layers keep 8 bits as fit, whatever
    `eight_bit_fraction` says."""
    max_loss: Annotated[float, Field(ge=0.0)] | None = None
    """int4 only: how much 4 bits may be expected to add to the loss, in nats a prediction (0.05 is 5% of
    perplexity). The costliest layers keep 8 bits until the others keep this bound, whatever
    `eight_bit_fraction` says. The estimate is that of rounding to nearest; `compensate` takes part of it
    back."""
    fold: bool = True
    """Move outlier channels from activations into weights where that is exact."""
    compensate: bool = True
    """Correct weights that are not yet rounded for the error of those that are (GPTQ)."""
    cache: Annotated[
        Literal["auto", "float", "int8"],
        Option("--int8-cache", value="int8", help=INT8_CACHE),
        Option("--float-cache", value="float", help=FLOAT_CACHE),
    ] = "auto"
    """int8 and int4 only. How a graph caches keys and values. `int8`: in 8 bits, so that long contexts decode
    faster. `auto`: in 8 bits where a `workload` of 1,024 tokens or more takes at least 5% less time with them
    on this machine, which is timed, and where they add at most 0.005 nats a token to the loss; as floats
    otherwise."""
    calibration: CalibrationConfig = CalibrationConfig()
    """Text on which errors are measured. fp16 reads one window of it, to see how large activations become."""
    own_windows: Annotated[int, Field(ge=0)] = 32
    """int8 and int4 only. Windows of calibration text that the model writes itself, so that other kinds of
    text lose less. 0: none."""

    @model_validator(mode="before")
    @classmethod
    def _read_older_recipes(cls, given: object) -> object:
        """Read `activations`, as recipes had it before `products`, for what it asked for."""
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
            # The defaults of then, as a run's resolved recipe holds them.
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
        """Refuse a cache in int8, which ONNX Runtime's own operator alone reads, in a portable graph."""
        if portable and self.cache == "int8":
            setting = recipe_key("export", "portable")
            text = Text("'int8' has no portable form; set ", setting, " to false, or this to float")
            yield ("cache",), text

    def settled(self, chosen: Mapping[str, object]) -> Self:
        """Return these settings with what was chosen, and without what only the choice depended on."""
        found = self.model_copy(update={key: chosen[key] for key in ("products", "cache") if key in chosen})
        unused = [key for key in USED_WITH if found._unused(key)]
        return found.model_copy(update={key: type(self).model_fields[key].default for key in unused})

    def _unused(self, key: str) -> str | None:
        """Say why a setting would have no effect; None where it has one, or was left at its default."""
        if getattr(self, key) == type(self).model_fields[key].default:
            return None
        faults = [self._unfit(others) for others in USED_WITH[key]]
        return None if None in faults else faults[-1]

    def _unfit(self, others: Mapping[str, tuple[str, ...]]) -> str | None:
        """Say which of other settings has none of the values that it must have; None where each has one."""
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
"""What each value of the former key `activations` asked for."""
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
"""For a setting, the values of others that it has an effect with; any of several sets of them. Beside other
values it may not be given."""
