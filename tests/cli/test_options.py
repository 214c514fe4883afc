"""What options say that they set, against the recipe's schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from roots_compress.cli import stages
from roots_compress.cli.app import app
from roots_compress.cli.naming import Names
from roots_compress.cli.options import OptionGroup, RunOptions, TrainingOptions
from roots_compress.cli.stage_options import CutOptions, DistillOptions, ModelOptions, RoundingOptions
from roots_compress.configs.base import Settings
from roots_compress.configs.recipe.faults import STAGES
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.errors import InputError, Key, RootsError

GROUPS: list[tuple[type[OptionGroup], type[Settings]]] = [
    (RunOptions, Recipe),
    (ModelOptions, STAGES["train"]),
    (TrainingOptions, STAGES["train"]),
    (TrainingOptions, STAGES["distill"]),
    (DistillOptions, STAGES["distill"]),
    (CutOptions, STAGES["prune"]),
    (RoundingOptions, STAGES["quantize"]),
]


def has_key(settings: type[Settings], key: str) -> bool:
    first, _, rest = key.partition(".")
    if first not in settings.model_fields or not rest:
        return first in settings.model_fields
    annotation = settings.model_fields[first].annotation
    groups = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
    return any(issubclass(group, Settings) and has_key(group, rest) for group in groups)


@pytest.mark.parametrize(("group", "settings"), GROUPS)
def test_each_option_sets_a_key_that_there_is(group: type[OptionGroup], settings: type[Settings]) -> None:
    hints = get_type_hints(group, include_extras=True)
    declared = list(group.declared())
    assert declared
    for name, option, sets in declared:
        assert hints[name].__metadata__[0].default.partition("/")[0] == option
        assert has_key(settings, sets.key), (option, sets.key)


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("quantize", {}),
        ("quantize --int4", {"scheme": "int4"}),
        (
            "quantize --int8 --weights-only --group-size 32 --int8-cache",
            {"scheme": "int8", "products": "float", "group_size": 32, "cache": "int8"},
        ),
        ("quantize --integer-products", {"products": "integer"}),
        (
            "quantize --int8 --serve-on avx512-vnni --workload 2048:64",
            {"scheme": "int8", "serve_on": "avx512-vnni", "workload": {"read": 2048, "write": 64}},
        ),
        ("prune --head-ratio 0.5 --no-refit", {"head_ratio": 0.5, "refit": False}),
        (
            "prune --target-bytes 9000 --per-layer --score obs",
            {"target": {"bytes": 9000}, "uniform": False, "score": "obs"},
        ),
        (
            "distill --student tiny --top-k 8 --divergence reverse_kl",
            {
                "student": "tiny",
                "loss": {"top_k": 8, "divergence": "reverse_kl"},
            },
        ),
    ],
)
def test_what_is_typed_becomes_settings(
    command: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def append(verb: str, options: Sequence[OptionGroup], run: RunOptions, *, source: Path | None) -> None:
        assert verb == command.split()[0]
        for group in options:
            seen.update(group.settings())

    monkeypatch.setattr(stages, "_append", append)
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    assert seen == settings


def test_options_become_the_settings_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = RunOptions(data=[Path("a")], eval_data=[], windows=3, seed=0)
    assert text.settings() == {
        "data": {"train": [str(tmp_path / "a")]},
        "evaluation": {"windows": 3},
        "seed": 0,
    }
    assert CutOptions(refit=False, recover=9).settings() == {
        "refit": False,
        "recovery": {"training": {"steps": 9}},
    }
    assert CutOptions(per_layer=True).settings() == {"uniform": False}
    assert RoundingOptions().settings() == {}


NAMES = Names(
    "prune",
    RunOptions(windows=3),
    [CutOptions(target_bytes=3, per_layer=True)],
    ["calibration.windows=9", "score=x", "recovery={rank: 3}"],
)


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("stages[3].target", "--target-bytes"),
        ("stages[3].ratio", "--ratio"),
        ("stages[3].uniform", "--per-layer"),
        ("stages[3].refit", "--refit"),
        ("stages[3].calibration.windows", "--set calibration.windows"),
        ("stages[3].calibration", "--set calibration.windows"),
        ("stages[3].score", "--set score"),
        ("stages[3].recovery.rank", "--set recovery (rank)"),
        ("stages[3].recovery.loss.temperature", "--set recovery (loss.temperature)"),
        ("stages[3].multiple_of", "--set multiple_of"),
        ("stages[3]", "prune"),
        ("stages[0].ratio", "stages[0].ratio"),
        ("evaluation.block_size", "--block-size"),
        ("evaluation.contexts", "evaluation.contexts (of a recipe)"),
        ("data.train[1]", "--data"),
        ("seed", "--seed"),
        ("model", "CKPT"),
    ],
)
def test_faults_of_settings_are_told_in_what_was_typed(where: str, named: str) -> None:
    with pytest.raises(RootsError) as caught, NAMES.told(last_stage=3):
        raise InputError("is wrong", where=Key(where), remedy="Lower stages[3].head_ratio.")
    assert str(caught.value) == f"{named}: is wrong\nLower --head-ratio."


@pytest.mark.parametrize(
    "path",
    [
        "data.txt",
        "/x/data.train",
        "metadata.csv",
        "data.models/ckpt",
        "evaluation.txt:3",
        "a/stages[3].x",
        "seed",
    ],
)
def test_paths_are_no_settings(path: str) -> None:
    with pytest.raises(RootsError) as caught, NAMES.told(last_stage=3):
        raise InputError(f"'{path}' is wrong", where=path, remedy=f"roots-compress prune {path} --run OTHER")
    assert str(caught.value) == f"{path}: '{path}' is wrong\nroots-compress prune {path} --run OTHER"


@pytest.mark.parametrize("name", ["evaluation.windows", "Bob's own evaluation.windows", "my stages[3].x"])
def test_what_is_quoted_stays_as_it_was_typed(name: str) -> None:
    with pytest.raises(RootsError) as caught, NAMES.told(last_stage=3):
        raise InputError(f"'{name}' does not exist, says evaluation.windows", remedy=f"Not {name!r}.")
    assert str(caught.value) == f"'{name}' does not exist, says --windows\nNot {name!r}."


def test_keys_between_apostrophes_are_settings() -> None:
    with pytest.raises(RootsError) as caught, NAMES.told(last_stage=3):
        raise InputError("the model's stages[3].head_ratio and its layers' evaluation.windows are wrong")
    assert str(caught.value) == "the model's --head-ratio and its layers' --windows are wrong"


def test_a_flag_is_not_blamed_for_a_value_that_it_does_not_give() -> None:
    names = Names("quantize", RunOptions(), [RoundingOptions()], ["scheme=int9"])
    assert names.place(("stages", 0, "scheme")) == "--set scheme"
    assert names.place(("stages", 0, "cache")) == "--set cache"
    typed = Names("quantize", RunOptions(), [RoundingOptions(fp16=True, int8_cache=True)])
    assert typed.place(("stages", 0, "cache")) == "--int8-cache"
