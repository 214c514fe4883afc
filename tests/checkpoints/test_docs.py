"""docs/model.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from roots_compress.families.gguf.families import GGUF_FAMILIES
from roots_compress.families.registry import FAMILIES
from roots_compress.models.config import ATTENTION_KEYS, LAYER_KEYS, RootsConfig

TEXT = (Path(__file__).parents[2] / "docs" / "model.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def first_cells(title: str) -> list[str]:
    """Return the first column of the section's table, without its head."""
    rows = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [row.split("|")[1] for row in rows[1:]]


def test_table_of_layers_is_complete() -> None:
    assert re.findall(r"`(\w+)`", "".join(first_cells("Layers may differ"))) == list(LAYER_KEYS)


def test_table_of_switches_names_only_fields() -> None:
    named = re.findall(r"`(\w+)`", "".join(first_cells("Switches")))
    sizes = {"vocab_size", "hidden_size", "max_position_embeddings", "layers"}
    neutral = {"initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id"}
    own = {name for name in RootsConfig.__annotations__ if name not in {"keys_to_ignore_at_inference"}}
    assert set(named) == own - sizes - neutral


def test_table_of_attention_names_every_kind() -> None:
    cells = first_cells("Sparse attention")
    assert [re.findall(r'"kind": "(\w+)"', cell) for cell in cells] == [[kind] for kind in ATTENTION_KEYS]
    for cell, keys in zip(cells, ATTENTION_KEYS.values(), strict=True):
        assert set(re.findall(r'"(\w+)":', cell)) == {"kind", *keys}


def test_table_of_families_is_complete() -> None:
    rows = [line for line in section("What can be imported").splitlines() if line.startswith("| `")][1:]
    named = [tuple(re.findall(r"`(\w+)`", row)[:2]) for row in rows]
    assert named == [(family.model_type, family.architecture) for family in FAMILIES.values()]


def test_gguf_families_are_named() -> None:
    sentence = section("What can be imported").split("GGUF files of")[1].split("come in")[0]
    assert tuple(re.findall(r"`(\w+)`", sentence)) == tuple(GGUF_FAMILIES)
