"""How places in a recipe are written and read, and how a group's faults find theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from roots_compress.configs.base import Settings
from roots_compress.configs.recipe.faults import STAGES, inner_groups
from roots_compress.configs.recipe.location import Location, dotted, parse_dotted
from roots_compress.configs.recipe.schema import Recipe, located
from roots_compress.errors import InputError, Key


def places(group: type[Settings], way: Location = ()) -> Iterator[Location]:
    """Yield the place of each key of a group, and of the groups in it."""
    yield from ((*way, name) for name in group.model_fields)
    for name, inner in inner_groups(group):
        yield from places(inner, (*way, name))


OF_STAGES = [place for stage in STAGES.values() for place in places(stage)]


def test_every_place_is_read_as_it_was_written() -> None:
    whole = [*places(Recipe), ("search", "choices", 10, "ratio"), *(("stages", 1, *at) for at in OF_STAGES)]
    assert ("stages", 1, "training", "beta2") in whole
    for place in whole:
        assert parse_dotted(dotted(place)) == place


def test_no_group_of_a_stage_holds_a_key_that_begins_a_place_in_the_recipe() -> None:
    """`located` would take it for a whole place; only the label is in both, which no stage checks."""
    assert {place[-1] for place in OF_STAGES} & set(Recipe.model_fields) == {"name"}


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("top_k", "stages[1].recovery.loss.top_k"),
        ("stages[2].loss.top_k", "stages[2].loss.top_k"),
        ("data.train", "data.train"),
        ("device", "device"),
    ],
)
def test_a_key_of_a_group_is_told_with_the_way_to_it(key: str, found: str) -> None:
    with pytest.raises(InputError) as caught, located(("stages", 1)), located(("recovery", "loss")):
        raise InputError("is wrong", where=Key(key))
    assert caught.value.where == found
    assert isinstance(caught.value.where, Key)
