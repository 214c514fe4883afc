"""Keys of a stage that are given on the command line as `KEY=VALUE`."""

from __future__ import annotations

import pytest

from roots_compress.configs.recipe.assignments import with_assignments
from roots_compress.errors import InputError


def test_values_are_read_as_a_recipe_would_have_them() -> None:
    stage = {"kind": "prune", "recovery": {"training": {"steps": 9}}}
    assignments = [
        "calibration.windows=96",
        "own_windows=0",
        "recovery.training.learning_rate=1e-4",
        "recovery.loss={divergence: jensen_shannon, top_k: 8}",
        "recovery.rank=null",
        "name=a=b",
    ]
    assert with_assignments(stage, assignments) == {
        "kind": "prune",
        "calibration": {"windows": 96},
        "own_windows": 0,
        "recovery": {
            "training": {"steps": 9, "learning_rate": 1e-4},
            "loss": {"divergence": "jensen_shannon", "top_k": 8},
            "rank": None,
        },
        "name": "a=b",
    }
    assert stage == {"kind": "prune", "recovery": {"training": {"steps": 9}}}, "was changed in place"


def test_a_group_that_nothing_was_given_of_may_be_given() -> None:
    stage = {"kind": "train", "training": {}}
    assert with_assignments(stage, ["training={steps: 2}"]) == {"kind": "train", "training": {"steps": 2}}


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("ratio", "'ratio' is not of the form KEY=VALUE"),
        ("=3", "'=3' is not of the form"),
        ("calibration..windows=3", "not of the form"),
        ("Ratio =3", "not of the form"),
        ("kind=quantize", "the verb says which kind"),
        ("a." * 6000 + "a=1", "is not of the form"),
        ("a" * 60_000, "is not of the form"),
        ("target.bytes=5", "target.bytes is set already"),
        ("target=null", "target is set already"),
        ("target.bytes.more=5", "target.bytes is given as '9', and holds no key 'more'"),
        ("ratio=[1", "--set ratio"),
        ("ratio=!!python/object:os.system 1", "--set ratio"),
    ],
)
def test_what_cannot_be_assigned_is_named(assignment: str, says: str) -> None:
    with pytest.raises(InputError) as raised:
        with_assignments({"kind": "prune", "target": {"bytes": 9}}, [assignment])
    assert says in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_key_is_given_once() -> None:
    with pytest.raises(InputError, match="own_windows is set already, by --set own_windows"):
        with_assignments({"kind": "prune"}, ["own_windows=0", "own_windows=1"])


def test_the_option_that_set_a_key_is_named() -> None:
    stage = {"kind": "prune", "recovery": {"training": {"steps": 3}}, "ratio": 0.5}
    options = {"recovery.training.steps": "--recover", "ratio": "--ratio"}
    for assignment, by in (("recovery=null", "--recover"), ("ratio=0.25", "--ratio")):
        with pytest.raises(InputError, match=rf"is set already, by {by}\n"):
            with_assignments(stage, [assignment], options)
