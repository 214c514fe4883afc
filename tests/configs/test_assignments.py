"""Keys of a stage that are given on the command line as `KEY=VALUE`."""

from __future__ import annotations

import pytest

from roots_compress.configs.recipe.assignments import Assignment, read_assignment, settings_of
from roots_compress.errors import InputError

STEPS = Assignment("--recover", ("recovery", "training", "steps"), 9)
BYTES = Assignment("--target-bytes", ("target", "bytes"), 9)


def test_values_are_read_as_a_recipe_would_have_them() -> None:
    assignments = [
        "calibration.windows=96",
        "own_windows=0",
        "recovery.training.learning_rate=1e-4",
        "recovery.loss={divergence: jensen_shannon, top_k: 8}",
        "recovery.rank=null",
        "name=a=b",
    ]
    assert settings_of([STEPS, *map(read_assignment, assignments)]) == {
        "calibration": {"windows": 96},
        "own_windows": 0,
        "recovery": {
            "training": {"steps": 9, "learning_rate": 1e-4},
            "loss": {"divergence": "jensen_shannon", "top_k": 8},
            "rank": None,
        },
        "name": "a=b",
    }


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("ratio", "'ratio' is not of the form KEY=VALUE"),
        ("=3", "'=3' is not of the form"),
        ("calibration..windows=3", "not of the form"),
        ("Ratio =3", "not of the form"),
        ("kind=quantize", "the verb decides the kind"),
        ("a." * 6000 + "a=1", "is not of the form"),
        ("a" * 60_000, "is not of the form"),
        ("target.bytes=5", "--set target.bytes: target.bytes is set already, by --target-bytes"),
        ("target=null", "--set target: target is set already, by --target-bytes"),
        ("target.bytes.more=5", "target.bytes is given as '9', and holds no key 'more'"),
        ("ratio=[1", "--set ratio"),
        ("ratio=!!python/object:os.system 1", "--set ratio"),
    ],
)
def test_what_cannot_be_assigned_is_named(assignment: str, says: str) -> None:
    with pytest.raises(InputError) as raised:
        settings_of([BYTES, read_assignment(assignment)])
    assert says in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_key_is_given_once() -> None:
    with pytest.raises(InputError, match="own_windows is set already, by --set own_windows"):
        settings_of(map(read_assignment, ["own_windows=0", "own_windows=1"]))


def test_a_group_is_given_whole_or_key_by_key() -> None:
    assert settings_of(map(read_assignment, ["target={bytes: 3}", "target.parameters=null"])) == {
        "target": {"bytes": 3, "parameters": None}
    }
    with pytest.raises(InputError, match="recovery is set already, by --recover"):
        settings_of([STEPS, read_assignment("recovery={rank: 3}")])
