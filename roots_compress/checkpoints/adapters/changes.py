"""How an adapter changes tensors of its base. Torch-free.

Shape legend: O outputs, I inputs of a matrix, R rank, E experts, V tokens, W width.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from roots_compress.checkpoints.adapters.settings import MERGE, AdapterSettings
from roots_compress.errors import InputError
from roots_compress.io.safetensors_header import TensorEntry


@dataclass(frozen=True)
class LowRank:
    """A product of two small matrices that is added to a tensor (LoRA, Hu et al. 2021).

    Attributes:
        down: the name of the matrix `(R, I)`; of experts stored as one, `(E*R, I)`.
        up: that of the matrix `(O, R)`; of experts `(O, R*E)`, the expert changing fastest.
        scale: the factor on their product.
        magnitude: the name of the lengths that the sum's rows get (DoRA, Liu et al. 2024).
        turned: whether the tensor has its inputs first, as tables of embeddings have.
        experts: how many a pair of matrices is of; 0 where it is of none.
        expert: the one that the tensor is of; None where it is of all.
        part: of the outputs, which the tensor has: its number, and how many parts there are.
    """

    down: str
    up: str
    scale: float
    magnitude: str | None = None
    turned: bool = False
    experts: int = 0
    expert: int | None = None
    part: tuple[int, int] = (0, 1)


@dataclass(frozen=True)
class Rows:
    """Rows that replace a tensor's.

    Attributes:
        rows: their name.
        places: theirs in the tensor.
    """

    rows: str
    places: tuple[int, ...]


@dataclass(frozen=True)
class Bias:
    """A vector that is added to a bias.

    Attributes:
        added: its name.
        scale: the factor on it.
    """

    added: str
    scale: float


Change = LowRank | Rows | Bias


@dataclass(frozen=True)
class Adapter:
    """An adapter whose every tensor has a place in its base."""

    folder: Path
    entries: Mapping[str, TensorEntry]
    """Its tensors, by their names in its file."""
    changes: Mapping[str, Change]
    """By the names of the base's tensors; a tensor that is replaced as a whole is not among them."""


@dataclass(frozen=True)
class Place:
    """A tensor that can be changed.

    Attributes:
        name: in the checkpoint.
        shape: its own.
        turned: whether its inputs come first.
    """

    name: str
    shape: tuple[int, ...]
    turned: bool = False


DOWN, UP, UP_BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias"
TABLE_DOWN, TABLE_UP = "lora_embedding_A", "lora_embedding_B"
MAGNITUDE, TOKENS = "lora_magnitude_vector", "token_adapter.trainable_tokens_delta"
PART = re.compile(
    rf"^(.+?)((?:\.base_layer)*)\.({'|'.join(map(re.escape, (DOWN, UP, UP_BIAS, TABLE_DOWN, TABLE_UP)))}"
    rf"|{MAGNITUDE}(?:\.weight)?|{re.escape(TOKENS)})$"
)
"""A module, how deep it lies within others of one module, and what of an update the tensor is."""
OF_UPDATES = re.compile(r"(?:^|\.)(?:lora_|token_adapter\.)")
WRAPPERS = ("base_model.model.", "base_model.")
IN_WRAPPER, UNREAD = re.compile(r"\.(?:base_layer|modules_to_save)\."), ".original_module."
"""What peft puts into the names of tensors that it keeps, and into those of tensors that are not read."""
STACKED = ("gate_up_proj", "down_proj")
"""Parameters of a layer's experts in transformers 5, in the order in which peft wraps them."""
OF_EXPERT = {"gate_up_proj": (("gate_proj", "w1"), ("up_proj", "w3")), "down_proj": (("down_proj", "w2"),)}
"""The names that their parts have in files, where each expert has its own."""
IN_LAYER = re.compile(r"^(.*?\.?layers\.\d+\.)")


class Found:
    """The tensors of an adapter, by what they are.

    Args:
        entries: by the names in the file.
        names: for each of them that in the model.
        bare: takes what may stand before a name from it.
    """

    def __init__(
        self, entries: Mapping[str, TensorEntry], names: Mapping[str, str], bare: Callable[[str], str]
    ) -> None:
        self.entries = entries
        self.whole: dict[str, str] = {}
        """Tensors that take the place of the base's: the bare names in the model, and those in the file."""
        self.updates: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
        """The others: by the module, by how deep they lie, and by what they are; the names in the file."""
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
    """Return the name of an adapter's tensor without what peft puts before it."""
    return next((name.removeprefix(each) for each in WRAPPERS if name.startswith(each)), name)


def changes_of(
    found: Found, places: Mapping[str, Place], settings: AdapterSettings
) -> Iterator[tuple[str, Change]]:
    """Yield the name of each tensor of the base that is changed, and how.

    Args:
        found: the adapter's tensors.
        places: what can be changed, by its bare name, as the modules are named.
        settings: the adapter's.

    Raises:
        InputError: a tensor has no place, or another shape than the place asks for.
    """
    for module, depths in found.updates.items():
        full = found.full[module]
        place = places.get(f"{module}.weight")
        if place is None:
            yield from _of_experts(found, module, depths, places, settings)
            continue
        for depth, parts in depths.items():
            if depth:
                found.refuse(min(parts.values()), "is of a second update of one tensor")
            if TOKENS in parts:
                yield place.name, _rows(found, full, parts, place, settings)
            else:
                yield place.name, _low_rank(found, full, parts, place, settings)
            if UP_BIAS in parts:
                bias = places.get(f"{module}.bias")
                if bias is None:
                    found.refuse(parts[UP_BIAS], "is added to a bias that the base does not have")
                found.require_shape(parts[UP_BIAS], *bias.shape)
                yield bias.name, Bias(parts[UP_BIAS], settings.scale_of(full))


def _rows(
    found: Found, module: str, parts: Mapping[str, str], place: Place, settings: AdapterSettings
) -> Rows:
    if others := parts.keys() - {TOKENS}:
        found.refuse(parts[min(others)], "changes a table beside rows that are replaced")
    ends = (
        indices for name, indices in settings.tokens.items() if name and f".{module}".endswith(f".{name}")
    )
    indices = next(ends, settings.tokens.get("", ()))
    found.require_shape(parts[TOKENS], len(indices), place.shape[-1])
    if max(indices, default=0) >= place.shape[0]:
        found.refuse(parts[TOKENS], f"is of the token {max(indices)}, and the table has {place.shape[0]}")
    return Rows(parts[TOKENS], indices)


def _low_rank(
    found: Found, module: str, parts: Mapping[str, str], place: Place, settings: AdapterSettings
) -> LowRank:
    """Return the update of a tensor by the parts of it that an adapter has."""
    is_table = TABLE_DOWN in parts or TABLE_UP in parts
    down, up = (TABLE_DOWN, TABLE_UP) if is_table else (DOWN, UP)
    known = {down, up, MAGNITUDE, *(() if is_table else (UP_BIAS,))}
    if others := [parts[part] for part in sorted(parts.keys() - known)]:
        found.refuse(others[0], "is of another kind of update than the tensors beside it")
    for part in (down, up):
        if part not in parts:
            found.refuse(min(parts.values()), f"stands there without {part}")
    experts, *matrix = place.shape if len(place.shape) == 3 else (0, *place.shape)
    if len(matrix) != 2:
        found.refuse(parts[down], f"changes a tensor of the shape {[*place.shape]}, which is no matrix")
    turned = place.turned or is_table
    outputs, inputs = reversed(matrix) if turned else matrix
    joint = settings.rank_of(module) * (experts or 1)
    found.require_shape(parts[down], joint, inputs)
    found.require_shape(parts[up], outputs, joint)
    if (MAGNITUDE in parts) != settings.has_lengths or (experts and settings.has_lengths):
        has = "a" if MAGNITUDE in parts else "no"
        found.refuse(parts[down], f"has {has} {MAGNITUDE} beside it, and use_dora is {settings.has_lengths}")
    if MAGNITUDE in parts:
        found.require_shape(parts[MAGNITUDE], outputs)
    return LowRank(
        parts[down],
        parts[up],
        settings.scale_of(module),
        magnitude=parts.get(MAGNITUDE),
        turned=turned,
        experts=experts,
    )


def _of_experts(
    found: Found,
    module: str,
    depths: Mapping[int, Mapping[str, str]],
    places: Mapping[str, Place],
    settings: AdapterSettings,
) -> Iterator[tuple[str, Change]]:
    """Yield the changes of all experts of a layer, which transformers 5 has in two tensors.

    Each update wraps those before it, so the last one's tensors have the shortest names.
    """
    full = found.full[module]
    adapted = [name for name in STACKED if settings.adapts(f"{full}.{name}")]
    if sorted(depths) != list(range(len(adapted))) or not module.endswith("experts"):
        found.refuse(min(min(parts.values()) for parts in depths.values()), "has no place in the base")
    for depth, name in enumerate(reversed(adapted)):
        parts, key = depths[depth], f"{full}.{name}"
        if (whole := places.get(f"{module}.{name}")) is not None:
            yield whole.name, _low_rank(found, key, parts, whole, settings)
            continue
        halves = [_each_expert(places, module, names) for names in OF_EXPERT[name]]
        experts, rows = len(halves[0]), halves[0][0].shape if halves[0] else ()
        if not experts or len(rows) != 2 or any(len(half) != experts for half in halves):
            found.refuse(min(parts.values()), "has no place in the base")
        joined = Place(key, (experts, len(halves) * rows[0], rows[1]))
        update = _low_rank(found, key, parts, joined, settings)
        for number, half in enumerate(halves):
            for expert, place in enumerate(half):
                yield place.name, replace(update, expert=expert, part=(number, len(halves)))


def _each_expert(places: Mapping[str, Place], module: str, names: Sequence[str]) -> list[Place]:
    """Return the matrices of one kind of a layer's experts, in order; none if they are not numbered so."""
    layer = IN_LAYER.match(module)
    if layer is None:
        return []
    pattern = re.compile(rf"{re.escape(layer[1])}\w+\.experts\.(\d+)\.(?:{'|'.join(names)})\.weight")
    matches = {name: match for name in places if (match := pattern.fullmatch(name))}
    numbered = {int(match[1]): places[name] for name, match in matches.items()}
    return [numbered[number] for number in range(len(numbered)) if number in numbered]
