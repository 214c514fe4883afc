"""How an adapter changes tensors of its base. Torch-free.

Shape legend: O outputs, I inputs of a matrix, R rank, E experts, V tokens, W width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roots_compress.checkpoints.adapters.found import (
    DOWN,
    MAGNITUDE,
    TABLE_DOWN,
    TABLE_UP,
    TOKENS,
    UP,
    UP_BIAS,
    Found,
)
from roots_compress.checkpoints.adapters.settings import AdapterSettings
from roots_compress.io.safetensors_header import TensorEntry


@dataclass(frozen=True)
class LowRank:
    """A product of two small matrices that is added to a tensor (LoRA, Hu et al. 2021).

    Attributes:
        down: the name of the matrix `(R, I)`; for experts stored as one, `(E*R, I)`.
        up: that of the matrix `(O, R)`; for experts `(O, R*E)`, the expert changing fastest.
        scale: the factor on their product.
        magnitude: the name of the new lengths of the sum's rows (DoRA, Liu et al. 2024).
        turned: whether the tensor has its inputs first, as embedding tables have.
        experts: the number of experts in a pair of matrices; 0 without experts.
        expert: the tensor's expert; None if it holds all.
        part: the tensor's part of the outputs: its number, and the number of parts.
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
    """Changes by the names of the base's tensors, without completely replaced tensors."""


@dataclass(frozen=True)
class Place:
    """A tensor that can be changed."""

    name: str
    """In the checkpoint."""
    shape: tuple[int, ...]
    turned: bool = False
    """Whether its inputs come first."""


STACKED = ("gate_up_proj", "down_proj")
"""Parameters of a layer's experts in transformers 5, in the order in which peft wraps them."""
STORED_AS = {"gate_up_proj": "input_linear.weight", "down_proj": "output_linear.weight"}
"""Their names in Granite's files."""
OLD_MIXTURE = (".mlp.", ".block_sparse_moe.")
"""The names of Mixtral's mixtures in transformers 5 and in its files."""
OF_EXPERT = {"gate_up_proj": (("gate_proj", "w1"), ("up_proj", "w3")), "down_proj": (("down_proj", "w2"),)}
"""The names of their parts in files, where each expert has its own."""
IN_LAYER = re.compile(r"^(.*?\.?layers\.\d+\.)")


def changes_of(
    found: Found, places: Mapping[str, Place], settings: AdapterSettings
) -> Iterator[tuple[str, Change]]:
    """Yield the name of each changed tensor of the base, with its change.

    Args:
        found: the adapter's tensors.
        places: the tensors that can be changed, by bare name, in the modules' naming.
        settings: the adapter's.

    Raises:
        InputError: a tensor has no place, or not the shape of its place.
    """
    for module, depths in found.updates.items():
        full = found.full[module]
        place = places.get(f"{module}.weight") or places.get(f"{module.replace(*OLD_MIXTURE)}.weight")
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
        beside = f"{module.removesuffix('experts')}{STORED_AS[name]}"
        if (whole := places.get(f"{module}.{name}") or places.get(beside)) is not None:
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
    """Return the matrices of one kind of a layer's experts, in order; none without such numbers."""
    layer = IN_LAYER.match(module)
    if layer is None:
        return []
    pattern = re.compile(rf"{re.escape(layer[1])}\w+\.experts\.(\d+)\.(?:{'|'.join(names)})\.weight")
    matches = {name: match for name in places if (match := pattern.fullmatch(name))}
    numbered = {int(match[1]): places[name] for name, match in matches.items()}
    return [numbered[number] for number in range(len(numbered)) if number in numbered]
