"""docs/reference/families.md says what the code does."""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path

import pytest

from roots_compress.families.gguf.families import GGUF_FAMILIES
from roots_compress.families.registry import FAMILIES
from roots_compress.models.ops.attention import Attention, BlockSparse, Rope, TopM
from roots_compress.models.ops.base import Part
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.positions import Disentangled, Relative
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "families.md").read_text(encoding="utf-8")
PARTS: dict[str, type[Part]] = {
    "model": ModelSpec,
    "stack": Stack,
    "sublayer": Sublayer,
    "norm": Norm,
    "`attention`": Attention,
    "relative": Relative,
    "disentangled": Disentangled,
    "rope": Rope,
    "`mlp`": Mlp,
    "`moe`": Moe,
    "embeddings": Embeddings,
}
"""By the first cells of their rows."""


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def first_cells(title: str) -> list[str]:
    """Return the first column of the section's first table, without its head."""
    table = section(title)[section(title).index("| ") :].split("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    return [row.split("|")[1] for row in rows[1:]]


@pytest.mark.parametrize(("name", "part"), PARTS.items())
def test_table_of_the_specification_names_every_field(name: str, part: type[Part]) -> None:
    (row,) = (line for line in section("The specification").splitlines() if line.startswith(f"| {name} |"))
    assert part.model_fields.keys() - {"kind"} <= set(re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize(
    ("page", "named"),
    [
        ("README.md", GGUF_FAMILIES.keys() - {"bert", "nomic-bert", "t5encoder"}),  # Those are encoders.
        ("docs/guides/import.md", GGUF_FAMILIES.keys()),
    ],
)
def test_pages_count_the_gguf_architectures(page: str, named: Set[str]) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    assert f"{len(named)} architectures" in text


def test_table_of_sparse_attention_names_every_kind_and_its_keys() -> None:
    cells = [re.findall(r'"(\w+)"', cell) for cell in first_cells("Sparse attention")]
    assert [cell[:2] for cell in cells] == [[], ["kind", "top_m"], ["kind", "block"]]
    assert set(cells[1][2:]) == TopM.model_fields.keys() - {"kind"}
    assert set(cells[2][2:]) == BlockSparse.model_fields.keys() - {"kind"}


def test_table_of_families_is_complete() -> None:
    rows = [line for line in section("What can be imported").splitlines() if line.startswith("| `")][1:]
    cells = [row.split("|")[1:3] for row in rows]
    named = [(name, text) for names, text in cells for name in re.findall(r"`([\w-]+)`", names)]
    assert [name for name, _ in named] == [family.model_type for family in FAMILIES.values()]
    assert all(
        f"`{family.architecture}`" in text for family, (_, text) in zip(FAMILIES.values(), named, strict=True)
    )


def test_gguf_families_are_named() -> None:
    sentence = section("What can be imported").split("GGUF files of")[1].split("are dequantized")[0]
    assert tuple(re.findall(r"`([\w-]+)`", sentence)) == tuple(GGUF_FAMILIES)
