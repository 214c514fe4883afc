"""The tensors of an adapter's file, by what they are. Torch-free."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NoReturn

from roots_compress.checkpoints.adapters.settings import MERGE
from roots_compress.errors import InputError
from roots_compress.io.safetensors_header import TensorEntry

DOWN, UP, UP_BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias"
TABLE_DOWN, TABLE_UP = "lora_embedding_A", "lora_embedding_B"
MAGNITUDE, TOKENS = "lora_magnitude_vector", "token_adapter.trainable_tokens_delta"
PART = re.compile(
    rf"^(.+?)((?:\.base_layer)*)\.({'|'.join(map(re.escape, (DOWN, UP, UP_BIAS, TABLE_DOWN, TABLE_UP)))}"
    rf"|{MAGNITUDE}(?:\.weight)?|{re.escape(TOKENS)})$"
)
"""A module, its depth in others, and the tensor's kind in an update."""
OF_UPDATES = re.compile(r"(?:^|\.)(?:lora_|token_adapter\.)")
WRAPPERS = ("base_model.model.", "base_model.")
IN_WRAPPER, UNREAD = re.compile(r"\.(?:base_layer|modules_to_save)\."), ".original_module."
"""What peft puts into the names of tensors that it keeps, and into those of tensors that are not read."""


class Found:
    """The tensors of an adapter, by what they are.

    Args:
        entries: those by the names in the file.
        names: for each of them the name in the model.
        bare: removes optional prefixes of a name.
    """

    def __init__(
        self, entries: Mapping[str, TensorEntry], names: Mapping[str, str], bare: Callable[[str], str]
    ) -> None:
        self.entries = entries
        self.whole: dict[str, str] = {}
        """Tensors that replace the base's: the bare names in the model, and those in the file."""
        self.updates: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
        """The others' names in the file, by module, depth and kind."""
        self.full: dict[str, str] = {}
        """The names of modules in the model, which settings may name, by the bare ones."""
        for stored, name in names.items():
            if match := PART.match(name):
                path, layers, part = match.groups()
                module, depth = bare(path), layers.count(".")
                self.full[module] = path
                self.updates[module][depth][MAGNITUDE if MAGNITUDE in part else part] = stored
            elif OF_UPDATES.search(name):
                self.refuse(stored, "is of a kind of update that is not read")
            elif UNREAD not in name:
                self.whole[bare(IN_WRAPPER.sub(".", name))] = stored

    def refuse(self, stored: str, message: str) -> NoReturn:
        """Refuse a tensor.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"tensor {stored!r} of the adapter {message}", where=self.entries[stored].file, remedy=MERGE
        )

    def require_shape(self, stored: str, *shape: int) -> None:
        """Refuse a tensor of another shape.

        Raises:
            InputError: it has another.
        """
        found = self.entries[stored].shape
        if found != shape:
            self.refuse(
                stored, f"has the shape {[*found]}; by the base and its settings it would be {[*shape]}"
            )


def without_wrapper(name: str) -> str:
    """Return a tensor's name without peft's prefix."""
    return next((name.removeprefix(each) for each in WRAPPERS if name.startswith(each)), name)
