"""How places in a recipe are written, and how a group's faults find theirs."""

from __future__ import annotations

import pytest

from roots_compress.configs.recipe.loading import parse_recipe
from roots_compress.errors import InputError, Key, Text, located, recipe_key, with_keys


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (Key("top_k"), "stages[1].recovery.loss.top_k"),
        (recipe_key("stages", 2, "loss", "top_k"), "stages[2].loss.top_k"),
        (recipe_key("data", "train"), "data.train"),
        (recipe_key("device"), "device"),
    ],
)
def test_a_key_of_a_group_is_told_with_the_way_to_it(key: Key, found: str) -> None:
    with (
        pytest.raises(InputError) as caught,
        located(("stages", 0), of_recipe=True),
        located(("stages", 1), of_recipe=True),
        located(("recovery", "loss")),
    ):
        raise InputError(Text("is wrong beside ", key), where=key, remedy=Text("Lower ", key, "."))
    assert str(caught.value) == f"{found}: is wrong beside {found}\nLower {found}."
    assert isinstance(caught.value.where, Key)


def test_a_text_keeps_its_keys_in_a_text_around_it() -> None:
    whole = Text("failed: ", Text("set ", Key("a", "b", value=3), " or not"), ".")
    assert whole == "failed: set a.b 3 or not."
    assert with_keys(whole, lambda key: f"--{key.path[-1]}") == "failed: set --b or not."


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            {"kind": "distill", "loss": {"cache": "x"}},
            "stages[0].loss.cache: needs stages[0].loss.top_k: the whole vocabulary",
        ),
        (
            {"kind": "prune", "recovery": {"loss": {"top_k": 3, "hidden_weight": 1.0}}},
            "stages[0].recovery.loss.top_k: caches distributions only; stages[0].recovery.loss.hidden_",
        ),
    ],
)
def test_a_validators_fault_names_its_key_and_those_it_mentions(
    stage: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe({"name": "a", "model": "m", "stages": [stage]})
    assert str(caught.value).startswith(message)
