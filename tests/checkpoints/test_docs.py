"""docs/model.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roots_compress.families.gguf.families import GGUF_FAMILIES
from roots_compress.families.registry import FAMILIES
<<<<<<< Updated upstream
from roots_compress.models.ops.attention import Attention, BlockSparse, Rope, TopM
from roots_compress.models.ops.base import Part
=======
from roots_compress.models.ops.attention import Attention, Rope
from roots_compress.models.ops.base import Part
from roots_compress.models.ops.heads import ClassificationHead, EmbeddingHead, LmHead, MaskedLmHead
>>>>>>> Stashed changes
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack, Sublayer

TEXT = (Path(__file__).parents[2] / "docs" / "model.md").read_text(encoding="utf-8")
PARTS: dict[str, type[Part]] = {
    "model": ModelSpec,
    "stack": Stack,
    "sublayer": Sublayer,
    "norm": Norm,
    "`attention`": Attention,
    "rope": Rope,
    "`mlp`": Mlp,
    "`moe`": Moe,
    "embeddings": Embeddings,
}
"""By the first cells of their rows."""


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> dict[str, list[str]]:
    """Return what stands in backquotes in each row of the section's table, by the row's first cell."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {first.replace("`", ""): re.findall(r"`(\w+)`", " ".join(rest)) for first, *rest in cells}


<<<<<<< Updated upstream
@pytest.mark.parametrize(("name", "part"), PARTS.items())
def test_table_of_the_specification_names_every_field(name: str, part: type[Part]) -> None:
    (row,) = (line for line in section("The specification").splitlines() if line.startswith(f"| {name} |"))
    assert part.model_fields.keys() - {"kind"} <= set(re.findall(r"`(\w+)`", row))


def test_table_of_sparse_attention_names_every_kind_and_its_keys() -> None:
    cells = [re.findall(r'"(\w+)"', cell) for cell in first_cells("Sparse attention")]
    assert [cell[:2] for cell in cells] == [[], ["kind", "top_m"], ["kind", "block"]]
    assert set(cells[1][2:]) == TopM.model_fields.keys() - {"kind"}
    assert set(cells[2][2:]) == BlockSparse.model_fields.keys() - {"kind"}


def test_table_of_families_is_complete() -> None:
    rows = [line for line in section("What can be imported").splitlines() if line.startswith("| `")][1:]
    named = [re.findall(r"`(\w+)`", row) for row in rows]
    assert [names[0] for names in named] == [family.model_type for family in FAMILIES.values()]
    assert all(family.architecture in names for family, names in zip(FAMILIES.values(), named, strict=True))
=======
PARTS: dict[str, list[type[Part]]] = {
    "model": [ModelSpec],
    "stack": [Stack],
    "sublayer": [Sublayer],
    "norm": [Norm],
    "attention": [Attention],
    "rope": [Rope],
    "mlp": [Mlp],
    "moe": [Moe],
    "embeddings": [Embeddings],
    "head": [LmHead, MaskedLmHead, ClassificationHead, EmbeddingHead],
}
OF_THE_HEAD = {"activation", "eps"}
"""Details of heads that the page leaves out."""


def test_every_field_of_a_specification_is_named() -> None:
    table = rows("The specification")
    assert list(table) == list(PARTS)
    for row, parts in PARTS.items():
        for part in parts:
            left_out = {"kind", *(OF_THE_HEAD if row == "head" else ())}
            assert set(part.model_fields) - left_out <= {*table[row]}, row


def test_table_of_families_is_complete() -> None:
    lines = [line for line in section("What can be imported").splitlines() if line.startswith("| `")][1:]
    named = {cells[0]: cells[1:] for cells in (re.findall(r"`(\w+)`", line) for line in lines)}
    assert list(named) == list(FAMILIES)
    for family in FAMILIES.values():
        assert family.architecture in named[family.model_type]
>>>>>>> Stashed changes


def test_gguf_families_are_named() -> None:
    sentence = section("What can be imported").split("GGUF files of")[1].split("come in")[0]
    assert tuple(re.findall(r"`(\w+)`", sentence)) == tuple(GGUF_FAMILIES)
