"""Reading another family's configuration by allow-list: every key is understood, neutral, or refused.

A switch that changes what a model computes and is silently ignored gives wrong logits; so a key nobody asked
for is an error. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from roots_compress.errors import InputError
from roots_compress.families.neutral import HARMLESS, NEUTRAL_KEYS, NEVER_NULL
from roots_compress.families.values import is_among, is_positive, shown
from roots_compress.models.ops.base import LARGEST
from roots_compress.models.ops.mlp import Activation

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu2",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""transformers' names of activations, and ours."""

LAYER_TYPES = {"full_attention": False, "attention": False, "sliding_attention": True}
"""Whether a layer's attention has a window, by transformers' names of it, old ones included."""
MOST_LAYERS = 10_000
QUANTIZED = ("quantization_config", "compression_config")
"""Keys under which weights are said to be stored in another form than floats."""
NO_WRITER = re.compile(r"For(?!CausalLM|ConditionalGeneration|PreTraining)[A-Z]\w*$|EncoderModel$")
"""transformers' classes with another head than one for the next token, or with an encoder alone."""


class Switches:
    """A configuration being read: each key taken once, and nothing left over."""

    def __init__(self, config: Mapping[str, Any], where: str | Path) -> None:
        self.where = where
        self.writes_text = False
        """Whether the decoder is read as one that does, whatever its class gives."""
        self._config = config
        self._left = {key: value for key, value in config.items() if key not in NEUTRAL_KEYS}

    def architectures(self) -> list[str]:
        """Return transformers' classes that the configuration names."""
        named = self._config.get("architectures") or []
        return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []

    def require_writer(self) -> None:
        """Refuse a class of the family that gives something else than the next token.

        Raises:
            InputError: the configuration names only such classes.
        """
        named = self.architectures()
        if not self.writes_text and named and all(map(NO_WRITER.search, named)):
            self.refuse(f"architectures names {', '.join(named):.120}, which does not write text")

    def said(self, key: str, default: Any) -> Any:
        """Return what a key says that is neutral in most families."""
        return self._config.get(key, default)

    def number(
        self, key: str, default: int | None = None, *, null: int | None = None, most: int = LARGEST
    ) -> int:
        """Take a whole number from 1 to `most`.

        Args:
            default: what its absence means.
            null: what null means; None where the family's own class refuses null.
            most: the largest that is accepted.

        Raises:
            InputError: there is neither the key nor a default, or the value is something else.
        """
        if key not in self._left and default is None:
            self.refuse(f"lacks the key {key!r}")
        value = self._left.pop(key, default)
        value = null if value is None else value
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(f"{key} is {shown(value)}; it must be a whole number from 1 to {most}")
        return value

    def width_and_heads(
        self, width_key: str = "hidden_size", heads_key: str = "num_attention_heads"
    ) -> tuple[int, int]:
        """Take the width of the hidden states and the number of heads, which share it equally.

        Raises:
            InputError: one of them is missing or no number, or the width is not a multiple of the heads.
        """
        width, heads = self.number(width_key), self.number(heads_key)
        if width % heads:
            self.refuse(f"{width_key} {width} is not a multiple of {heads_key} {heads}")
        return width, heads

    def optional_number(self, key: str, default: int | None = None) -> int | None:
        """Take a whole number of at least 1, or null for none; absence means the default."""
        return None if self.null(key, default) else self.number(key, default)

    def null(self, key: str, default: Any = None) -> bool:
        """Take a key if it is null, or absent where that means null, and return whether it was."""
        if self._left.get(key, default) is not None:
            return False
        self._left.pop(key, None)
        return True

    def positive(self, key: str, default: float) -> float:
        """Take a number above 0."""
        value = self._left.pop(key, default)
        if not is_positive(value):
            self.refuse(f"{key} is {shown(value)}; it must be a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Take true or false."""
        value = self._left.pop(key, default)
        if not isinstance(value, bool):
            self.refuse(f"{key} is {shown(value)}; it must be true or false")
        return value

    def activation(
        self, key: str, default: str, aliases: Mapping[str, Activation] = ACTIVATIONS
    ) -> Activation:
        """Take the name of an activation and return ours."""
        value = self._left.pop(key, default)
        if not isinstance(value, str) or value not in aliases:
            self.refuse(f"{key} is {shown(value)}; supported are {', '.join(aliases)}")
        return aliases[value]

    def same(self, key: str, *values: Any) -> None:
        """Take a key that may only say what the model does anyway."""
        value = self._left.pop(key, None)
        if value is not None and not is_among(value, values):
            self.refuse(f"{key} is {shown(value)}, which no model of this family does")

    def renamed(self, spelling: str, key: str) -> None:
        """Read a second spelling as the key itself, for which transformers takes it.

        Raises:
            InputError: both are there, and do not say the same.
        """
        if spelling not in self._left:
            return
        value = self._left.pop(spelling)
        if key in self._left and self._left[key] != value:
            self.refuse(
                f"{key} is {shown(self._left[key])}, and {spelling}, which means it too, {shown(value)}"
            )
        self._left[key] = value

    def leave(self, *keys: str) -> None:
        """Take keys that nothing reads."""
        for key in keys:
            self._left.pop(key, None)

    def all_same(self, said: Mapping[str, Any]) -> None:
        """Take keys that may only say what the model does anyway."""
        for key, does in said.items():
            self.same(key, does)

    def all_renamed(self, spellings: Mapping[str, str]) -> None:
        """Read second spellings as the keys themselves; see `renamed`."""
        for spelling, key in spellings.items():
            self.renamed(spelling, key)

    def put(self, key: str, value: Any) -> None:
        """Read a key as if it held this value."""
        self._left[key] = value

    def has(self, key: str) -> bool:
        """Whether a key is there and was not taken."""
        return key in self._left

    def take(self, key: str, default: Any = None) -> Any:
        """Take whatever a key holds."""
        return self._left.pop(key, default)

    def stored_in(self, *methods: str) -> None:
        """Take what is said of how weights are stored; only these ways may be named, and plain weights.

        Raises:
            InputError: it is another way.
        """
        given = self._left.pop("quantization_config", None)
        if given is None:
            return
        method = given.get("quant_method") if isinstance(given, dict) else given
        if method not in methods:
            read = ", ".join(methods)
            self.refuse(f"quantization_config names {shown(method)}; weights are read plain or in {read}")

    def windows(self, layers: int, *, by_default: bool = False) -> list[int | None]:
        """Take the switches of sliding windows and return each layer's.

        Args:
            by_default: whether a family's layers have windows unless they are said to have none, as
                Mistral's; Qwen's have none unless `use_sliding_window` is true.
        """
        window = self.optional_number("sliding_window", 4096)
        first = 0
        if not by_default:
            window = window if self.flag("use_sliding_window", False) else None
            first = self.said("max_window_layers", 28)
            if type(first) is not int:
                self.refuse(f"max_window_layers is {shown(first)}; it must be a whole number")
        return self.typed_windows(window, layers, [index >= first for index in range(layers)])

    def typed_windows(self, window: int | None, layers: int, slides: Sequence[bool]) -> list[int | None]:
        """Take the layers' types and return each layer's window.

        Args:
            window: of the layers that slide.
            slides: which layers do, where no types are given.
        """
        types = self._left.pop("layer_types", None)
        if types is None:
            return [window if each else None for each in slides]
        known = isinstance(types, list) and set(map(str, types)) <= set(LAYER_TYPES)
        if not known or len(types) != layers:
            self.refuse(
                f"layer_types must name full_attention or sliding_attention for each of {layers} layers"
            )
        sliding = [LAYER_TYPES[kind] for kind in types]
        if any(sliding) and window is None:
            self.refuse("layer_types names sliding_attention, and the other keys give it no sliding_window")
        return [window if each else None for each in sliding]

    def no_windows(self, layers: int) -> list[int | None]:
        """Take the switches of sliding windows of a family that has none, and return each layer's: none."""
        if any(self.typed_windows(LARGEST, layers, ())):
            self.refuse("layer_types names sliding_attention, which the family's models do not have")
        self.same("sliding_window")
        return [None] * layers

    def finish(self) -> None:
        """Refuse whatever was not taken.

        Raises:
            InputError: a key is unknown, or has a setting that ROOTS cannot express.
        """
        for key, value in self._left.items():
            # A key that nobody reads and that says nothing.
            if value is None and key not in NEVER_NULL:
                continue
            if key in HARMLESS:
                if not is_among(value, HARMLESS[key]):
                    self.refuse(f"{key} is {shown(value)}, which ROOTS cannot express")
                continue
            if key in QUANTIZED:
                method = value.get("quant_method") if isinstance(value, dict) else None
                raise InputError(
                    f"{key} says that the weights are quantized{f' by {method!r:.40}' if method else ''}; "
                    "weights of floats are read",
                    where=self.where,
                    remedy="Name the model that it was quantized from. Where the weights are floats again, "
                    "remove the key from a copy of config.json.",
                )
            raise InputError(
                f"{key!r} is not a key this importer knows, and it may change what the model computes",
                where=self.where,
                remedy="If it does not, remove it from a copy of config.json.",
            )

    def refuse(self, message: str) -> NoReturn:
        """Raise an InputError about this configuration."""
        raise InputError(
            message, where=self.where, remedy="Only models that can be imported exactly are accepted."
        )
