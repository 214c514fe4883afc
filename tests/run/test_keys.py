from __future__ import annotations

import pytest

from roots_compress.results import Json
from roots_compress.run import keys
from roots_compress.run.keys import (
    CHOSEN,
    StageKey,
    asked_of,
    canonical_json,
    checked_content,
    explain_change,
    stage_key,
    with_sha256,
)

STAGE: dict[str, Json] = {"kind": "prune", "name": "prune", "ratio": 0.25}


def make(**changes: Json) -> StageKey:
    stage = {**STAGE, **{name: value for name, value in changes.items() if name in ("name", "ratio")}}
    others = {name: value for name, value in changes.items() if name not in ("name", "ratio")}
    settings: dict[str, Json] = {"text": "ab" * 32, **others}
    return stage_key(stage, parent=None, threads=2, device="cpu", seed=0, **settings)


def test_equal_ingredients_make_equal_keys() -> None:
    assert make() == make()


@pytest.mark.parametrize("change", [{"ratio": 0.3}, {"text": "cd" * 32}, {"evaluation": {"windows": 3}}])
def test_any_other_ingredient_makes_another_key(change: dict[str, Json]) -> None:
    assert make(**change).sha256 != make().sha256


@pytest.mark.parametrize(
    "change", [{"threads": 3}, {"device": "cuda"}, {"seed": 1}, {"parent": "ab" * 32}], ids=str
)
def test_machine_seed_and_parent_are_ingredients(change: dict[str, int | str]) -> None:
    common: dict[str, int | str | None] = {"threads": 2, "device": "cpu", "seed": 0, "parent": None}
    before = stage_key(STAGE, **common)  # type: ignore[arg-type]
    after = stage_key(STAGE, **{**common, **change})  # type: ignore[arg-type]
    assert before.sha256 != after.sha256


@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("own_instruction_set", "x86_64"),
        ("library_versions", {"torch": "1.0"}),
        ("code_sha256", "00" * 32),
    ],
)
def test_the_machine_and_the_code_are_ingredients(
    monkeypatch: pytest.MonkeyPatch, function: str, value: Json
) -> None:
    before = make()
    monkeypatch.setattr(keys, function, lambda: value)
    assert make().sha256 != before.sha256


def test_what_carries_its_hash_is_read_back_until_it_is_changed() -> None:
    text = canonical_json(with_sha256({"steps": 7}))
    assert checked_content(text) == {"steps": 7}
    with pytest.raises(ValueError, match="changed since"):
        checked_content(text.replace("7", "8"))


def test_a_label_is_no_ingredient() -> None:
    assert make(name="other") == make()


def test_a_change_is_explained() -> None:
    before = make(versions={"torch": "2.12"}, gone=1).ingredients
    after = make(ratio=0.3, versions={"torch": "2.13"}, text="cd" * 32).ingredients
    assert explain_change(before, after) == [
        "stage.ratio: 0.25 -> 0.3",
        "versions.torch: 2.12 -> 2.13",
        "text: abababababab... -> cdcdcdcdcdcd...",
        "gone: 1 -> none",
    ]


def test_nothing_changed_needs_no_explanation() -> None:
    assert explain_change(make().ingredients, make().ingredients) == []


def test_the_canonical_text_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [2.5]}) == canonical_json({"a": [2.5], "b": 1})


def test_the_canonical_text_refuses_what_json_lacks() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_a_choice_is_part_of_the_key_and_the_stage_is_found_without_it() -> None:
    asked = make()
    chosen = [asked.with_choice({"products": products}) for products in ("integer", "float")]
    assert len({asked.sha256, *(key.sha256 for key in chosen)}) == 3
    assert {asked.asked, *(key.asked for key in chosen)} == {asked.sha256}
    assert chosen[0].ingredients[CHOSEN] == {"products": "integer"}
    assert asked_of(chosen[0].ingredients) == asked.ingredients
