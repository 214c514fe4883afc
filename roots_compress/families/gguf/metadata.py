"""Reading a GGUF model's metadata by allow-list: each key of the architecture is understood or refused."""

from __future__ import annotations

import struct
from typing import Any, NoReturn

from roots_compress.errors import InputError
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.base import LARGEST
from roots_compress.models.ops.heads import Pooling

GUESSING = "nextn_predict_layers"
"""How many of the last layers are of a head that guesses further tokens, which nothing here reads."""
DIRECTORY = "Use the model's Hugging Face directory."
NORM_KEYS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
KEYS = frozenset(
    {
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        *NORM_KEYS,
    }
)  # fmt: skip
"""Keys of every architecture, without its name before them."""
POOLING = "pooling_type"
POOLINGS: dict[int, Pooling] = {1: "mean", 2: "first", 3: "last"}
"""How states make vectors, by llama.cpp's numbers; 0 is for models that make none."""
# Keys that change nothing, whatever they hold: how a file came about.
NEUTRAL = frozenset({"rope.scaling.finetuned", "tensor_data_layout"})
# Keys of what these models do not have, with the settings that say so.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.scale": (0,),
    "attention.sliding_window": (0,),
    "attention.temperature_scale": (0,),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_count": (0,),
    "expert_gating_func": (1,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "expert_weights_norm": (True,),
    "expert_weights_scale": (0, 1),
    "final_logit_softcapping": (0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0, 1),
    "nextn_predict_layers": (0,),
    POOLING: (0, 1, 2, 3),
    "residual_scale": (0, 1),
    "rope.scaling.yarn_log_multiplier": (0,),
    "use_parallel_residual": (False,),
}


class Metadata:
    """The keys of a model's architecture.

    Args:
        known: the keys that will be asked for, without the architecture's name before them.

    Raises:
        InputError: another key is there, and is not known to change nothing.
    """

    def __init__(self, model: GgufModel, known: frozenset[str]) -> None:
        self.model = model
        self._prefix = f"{model.architecture}."
        self._keys = {
            key.removeprefix(self._prefix): value
            for key, value in model.metadata.items()
            if key.startswith(self._prefix)
        }
        self._refuse_unknown(known)
        # More layers than tensors are a lie, and would be long in the telling.
        blocks = self.number("block_count", most=len(model.tensors))
        guessing = self._keys.get(GUESSING, 0)
        if type(guessing) is not int or not 0 <= guessing < blocks:
            self.refuse(GUESSING, f"is {guessing!r:.100}; it must be 0 or more, and below {blocks}")
        self.layers = blocks - guessing
        self._blocks = blocks

    def _refuse_unknown(self, known: frozenset[str]) -> None:
        unread = sorted(
            key
            for key, value in self._keys.items()
            if key not in known | NEUTRAL and not (key in HARMLESS and value in HARMLESS[key])
        )
        if unread:
            named = ", ".join(f"{self._prefix}{key} ({self._keys[key]!r:.40})" for key in unread)
            raise InputError(
                f"uses {named[:300]}, which cannot be imported from GGUF exactly",
                where=self.model.path,
                remedy=DIRECTORY,
            )

    def get(self, key: str) -> Any:
        """Return a value; None where the key is absent."""
        return self._keys.get(key)

    def number(self, key: str, default: int | None = None, *, most: int = LARGEST) -> int:
        """Return a whole number from 1 to `most`; absence means the default, if there is one."""
        value = self._keys.get(key, default)
        if value is None:
            self._lack(key)
        return self._width(key, value, most)

    def numbers(self, key: str, default: list[int] | None = None, *, least: int = 1) -> list[int]:
        """Return a whole number of at least `least` for each layer: an array, or one number for all."""
        value = self._keys.get(key, default)
        if value is None:
            self._lack(key)
        each = list(value) if isinstance(value, tuple | list) else [value] * self.layers
        if len(each) not in (self.layers, self._blocks):
            self.refuse(key, f"holds {len(each)} numbers for {self.layers} layers")
        each = each[: self.layers]
        return [0 if number == least == 0 else self._width(key, number, LARGEST) for number in each]

    def one(self, key: str, default: list[int] | None = None) -> int:
        """Return a whole number that is the same for all layers, but for those that have 0."""
        found = {*self.numbers(key, default, least=0)} - {0}
        if len(found) != 1:
            said = "is 0 in every layer" if not found else f"has the values {sorted(found)!r:.100}"
            self.refuse(key, f"{said}; this architecture is read where it is one number above 0")
        return found.pop()

    def factor(self, key: str, default: float = 1.0) -> float:
        """Return a number above 0; absence and 0 mean the default."""
        return self.positive(key) if self._keys.get(key) else default

    def flags(self, key: str, every: int) -> list[bool]:
        """Return true or false for each layer: all but every so-manieth where the file does not say."""
        given = self._keys.get(key, every)
        if isinstance(given, tuple | list):
            given = given[: self.layers] if len(given) == self._blocks else given
            if len(given) != self.layers or any(type(each) is not bool for each in given):
                self.refuse(key, f"must hold true or false for each of {self.layers} layers")
            return [bool(each) for each in given]
        period = self._width(key, given, LARGEST)
        return [bool((index + 1) % period) for index in range(self.layers)]

    def biased(self, *modules: str) -> bool:
        """Whether any layer has a bias of one of these modules."""
        tensors = self.model.tensors
        return any(f"blk.{index}.{name}.bias" in tensors for index in range(self.layers) for name in modules)

    def positive(self, key: str, default: float | None = None) -> float:
        """Return a number above 0, as the shortest decimal that is stored alike."""
        value = self._keys.get(key, default)
        if value is None:
            self._lack(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            self.refuse(key, f"is {value!r:.100}; it must be a number above 0")
        return shortest(value)

    def head_size(self, hidden: int, heads: int) -> int:
        """Return the size of a head: of keys and of values, which must be the same."""
        if "attention.key_length" not in self._keys and hidden % heads:
            self.refuse(
                "attention.head_count", f"is {heads}, which does not divide the {hidden} of embedding_length"
            )
        size = self.number("attention.key_length", hidden // heads)
        values = self.number("attention.value_length", size if hidden % heads else hidden // heads)
        if values != size:
            self.refuse(
                "attention.value_length", f"is {values}, and keys have {size}; ROOTS needs them equal"
            )
        return size

    def rows(self, tensor: str, key: str) -> int:
        """Return the rows of a table, which must be as many as a key says, if it is there."""
        shape = self.model.tensors[tensor].shape if tensor in self.model.tensors else ()
        if len(shape) != 2:
            raise InputError(
                f"has no table {tensor!r}",
                where=self.model.path,
                remedy="The file is damaged; copy it again.",
            )
        said = self.model.metadata.get(self._prefix + key)
        if said is not None and said != shape[0]:
            self.refuse(key, f"is {said!r:.100}, and {tensor!r} has {shape[0]} rows")
        return shape[0]

    def agree(self, key: str, value: float) -> None:
        """Refuse a second spelling that says something else than the first."""
        if key in self._keys and (second := self.positive(key)) != value:
            self.refuse(key, f"is {second!r:.100}, where another key says {value!r}")

    def refuse(self, key: str, message: str) -> NoReturn:
        """Raise an InputError about a key."""
        raise InputError(f"{self._prefix}{key} {message}", where=self.model.path, remedy=DIRECTORY)

    def _lack(self, key: str) -> NoReturn:
        raise InputError(
            f"lacks the key {self._prefix + key!r}",
            where=self.model.path,
            remedy="The file is damaged, or was made by another program; copy or download it again.",
        )

    def _width(self, key: str, value: Any, most: int) -> int:
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(key, f"is {value!r:.100}; it must be a whole number from 1 to {most}")
        return value


def shortest(number: float) -> float:
    """Return the shortest decimal that a 32-bit float stores as this number: 1e-5 for 9.99999974e-6."""
    for digits in range(1, 9):
        shorter = float(f"{number:.{digits}g}")
        try:
            if struct.pack("<f", shorter) == struct.pack("<f", number):
                return shorter
        except OverflowError:
            break
    return float(number)
