"""Options are the fields of the configuration, and settings at fault are told in what was typed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.cli.naming import Names
from roots_compress.cli.verbs import stages
from roots_compress.configs.base import Settings, inner_groups
from roots_compress.configs.options import Option, is_recipe_only, options_of
from roots_compress.configs.recipe.assignments import Assignment, read_assignment
from roots_compress.configs.recipe.schema import STAGES, Recipe
from roots_compress.configs.source import stage_summaries
from roots_compress.configs.stage import StageSettings
from roots_compress.errors import InputError, Key, Location, RootsError, Text, recipe_key

OF_RUN = list(options_of(Recipe))
OF_STAGE = {kind: list(options_of(config)) for kind, config in STAGES.items()}


def fields(group: type[Settings], way: Location = ()) -> Iterator[tuple[Location, type[Settings]]]:
    """Yield each field by its place and its group; of a group its fields, unless an option sets it."""
    inner = inner_groups(group)
    for name, field in group.model_fields.items():
        if (
            is_recipe_only(group, name)
            or name not in inner
            or any(isinstance(m, Option) for m in field.metadata)
        ):
            yield (*way, name), group
        else:
            yield from fields(inner[name], (*way, name))


@pytest.mark.parametrize("config", [*STAGES.values(), Recipe], ids=lambda config: config.__name__)
def test_each_field_is_an_option_or_named_as_of_recipes_only(config: type[Settings]) -> None:
    options = list(options_of(config))
    assert len({option.name for option in options}) == len(options)
    for place, group in fields(config):
        is_option = any(option.key[: len(place)] == place for option in options)
        assert is_option != is_recipe_only(group, str(place[-1])), place


def test_what_is_named_as_of_recipes_only_exists() -> None:
    configs: list[type[Settings]] = [Recipe, StageSettings, *STAGES.values()]
    for group in [*configs, *(group for config in configs for group in every_group(config))]:
        assert set(group.recipe_only.split()) <= set(group.model_fields)


def every_group(group: type[Settings]) -> Iterator[type[Settings]]:
    for inner in inner_groups(group).values():
        yield inner
        yield from every_group(inner)


@pytest.mark.parametrize("kind", STAGES)
def test_a_verb_has_the_options_of_its_stage_and_of_the_run(kind: str) -> None:
    group: Any = typer.main.get_command(app)
    shown = {name for parameter in group.commands[kind].params for name in parameter.opts}
    assert {option.name for option in (*OF_STAGE[kind], *OF_RUN)} <= shown


def test_what_is_read_of_the_stages_source_is_what_they_are() -> None:
    described = {kind: str(inspect.getdoc(config)) for kind, config in STAGES.items()}
    assert [*stage_summaries().items()] == [(kind, text.split("\n\n")[0]) for kind, text in described.items()]


class Toy(StageSettings):
    """A stage that nothing knows."""

    kind: Literal["toy"] = "toy"
    """Names it."""
    name: str = "toy"
    """Labels it."""
    how_many: int = 3
    """How many toys."""
    shade: Annotated[Literal["red", "blue"], Option("--blue", value="blue", help="Blue toys.")] = "red"
    """Their colour."""


def test_a_new_stage_has_its_options_without_more_code() -> None:
    assert [(option.name, option.key, option.help) for option in options_of(Toy)] == [
        ("--how-many", ("how_many",), "How many toys. Default: 3."),
        ("--blue", ("shade",), "Blue toys."),
    ]


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("quantize", {}),
        ("quantize --int4", {"scheme": "int4"}),
        (
            "quantize --int8 --weights-only --group-size 32 --int8-cache",
            {"scheme": "int8", "products": "float", "group_size": 32, "cache": "int8"},
        ),
        ("quantize --integer-products --group-size auto", {"products": "integer", "group_size": "auto"}),
        (
            "quantize --int8 --serve-on avx512-vnni --workload 2048:64",
            {"scheme": "int8", "serve_on": "avx512-vnni", "workload": {"read": 2048, "write": 64}},
        ),
        ("prune --head-ratio 0.5 --no-refit", {"head_ratio": 0.5, "refit": False}),
        ("prune --refit --recover 9", {"refit": True, "recovery": {"training": {"steps": 9}}}),
        (
            "prune --target-bytes 9000 --per-layer --score obs --set calibration.windows=9",
            {"target": {"bytes": 9000}, "uniform": False, "score": "obs", "calibration": {"windows": 9}},
        ),
        (
            "distill --student tiny --top-k 8 --divergence reverse_kl --cache=~/x",
            {"student": "tiny", "loss": {"top_k": 8, "divergence": "reverse_kl", "cache": "{folder}/x"}},
        ),
        ("train --special-token a --special-token b", {"tokenizer": {"special_tokens": ["a", "b"]}}),
    ],
)
def test_what_is_typed_becomes_settings(
    command: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # After `=` no shell writes it out.
    monkeypatch.setattr(stages, "_append", lambda *arguments, **_: seen.extend(arguments))
    result = CliRunner().invoke(app, [*command.split(), "--data", "a", "--windows", "3", "--seed", "0"])
    assert result.exit_code == 0, result.output
    if "loss" in settings:
        settings["loss"]["cache"] = settings["loss"]["cache"].format(folder=tmp_path)
    assert seen[1:] == [
        {"kind": command.split()[0], **settings},
        {"data": {"train": [str(tmp_path / "a")]}, "evaluation": {"windows": 3}, "seed": 0},
    ]


NAMES = Names(
    "prune",
    "CKPT",
    OF_RUN,
    OF_STAGE["prune"],
    [
        Assignment("--target-bytes", ("target", "bytes"), 3),
        Assignment("--per-layer", ("uniform",), False),
        *map(read_assignment, ["calibration.windows=9", "score=x", "recovery={rank: 3}"]),
    ],
)


@pytest.mark.parametrize(
    ("where", "named"),
    [
        (("stages", 3, "target"), "--target-bytes"),
        (("stages", 3, "ratio"), "--ratio"),
        (("stages", 3, "uniform"), "--per-layer"),
        (("stages", 3, "refit"), "--refit"),
        (("stages", 3, "calibration", "windows"), "--set calibration.windows"),
        (("stages", 3, "calibration"), "--set calibration.windows"),
        (("stages", 3, "score"), "--set score"),
        (("stages", 3, "recovery", "rank"), "--set recovery (rank)"),
        (("stages", 3, "recovery", "loss", "temperature"), "--set recovery (loss.temperature)"),
        (("stages", 3, "multiple_of"), "--set multiple_of"),
        (("stages", 3), "prune"),
        (("stages", 0, "ratio"), "stages[0].ratio"),
        (("evaluation", "block_size"), "--block-size"),
        (("evaluation", "contexts"), "evaluation.contexts (of a recipe)"),
        (("data", "train", 1), "--data"),
        (("seed",), "--seed"),
        (("model",), "CKPT"),
    ],
)
def test_faults_of_settings_are_told_in_what_was_typed(where: Location, named: str) -> None:
    lower = Text("Lower ", recipe_key("stages", 3, "head_ratio"), ".")
    with pytest.raises(RootsError) as caught, NAMES.shown(last_stage=3):
        raise InputError("is wrong", where=recipe_key(*where), remedy=lower)
    assert str(caught.value) == f"{named}: is wrong\nLower --head-ratio."


@pytest.mark.parametrize(
    "name", ["evaluation.windows", "stages[3].ratio", "a/stages[3].x", "data.train", "seed"]
)
def test_words_that_look_like_settings_stay_as_they_are(name: str) -> None:
    with pytest.raises(RootsError) as caught, NAMES.shown(last_stage=3):
        raise InputError(f"'{name}' is wrong", where=name, remedy=f"roots-compress prune {name} --run OTHER")
    assert str(caught.value) == f"{name}: '{name}' is wrong\nroots-compress prune {name} --run OTHER"


def test_a_flag_is_named_for_the_value_that_it_gives_alone() -> None:
    options = OF_STAGE["quantize"]
    typed = [Assignment("--int8-cache", ("cache",), "int8"), read_assignment("scheme=int9")]
    for given, key, named in (
        (typed, Key("stages", 0, "scheme"), "--set scheme"),
        (typed, Key("stages", 0, "cache"), "--int8-cache"),
        ([], Key("stages", 0, "cache"), "--set cache"),
        (typed, Key("stages", 0, "cache", value="int8"), "--int8-cache"),
        (typed, Key("stages", 0, "products", value="auto"), "products auto"),
        (typed, Key("stages", 0, "serve_on", value="arm"), "--serve-on arm"),
    ):
        with pytest.raises(RootsError) as caught, Names("quantize", "CKPT", OF_RUN, options, given).shown():
            raise InputError("is wrong", where=key)
        assert caught.value.where == named


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--fp16 --serve-on amx", "--serve-on: goes with --int8 or --int4, not with --fp16: leave it out"),
        ("--int8-cache --fp16", "--int8-cache: goes with --int8 or --int4, not with --fp16: leave it out"),
        (
            "--weights-only --float-cache --workload 9:9",
            "--workload: goes with cache auto, not with --float-cache",
        ),
        ("--int8 --int4", "--int4: scheme is set already, by --int8"),
        ("--int8 --set scheme=int4", "--set scheme: scheme is set already, by --int8"),
        ("--group-size 24", "--group-size: must be 'auto', 16, 32, 64 or 128"),
    ],
)
def test_options_that_contradict_one_another_are_named(options: str, said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["quantize", str(tmp_path), *options.split()])
    assert result.exit_code == 2
    assert f"error: {said}" in re.sub(r"\s+", " ", result.output)
