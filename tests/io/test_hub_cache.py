"""Names of models in the Hub's local cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from roots_compress.advice.recipe import name_of
from roots_compress.checkpoints.adapters.settings import base_folder
from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.cli.app import app
from roots_compress.configs.base import placed_in
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.recipe.loading import load_recipe
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.errors import InputError
from roots_compress.io.hub_cache import on_disk
from tests.tasks.commands import roots
from tests.tiny import tiny_checkpoint

NAME = "acme/tiny.v2"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a model in a cache; the current folder is beside it."""
    model = tmp_path / "cache" / "models--acme--tiny.v2"
    folder = model / "snapshots" / "abc123"
    folder.parent.mkdir(parents=True)
    save_checkpoint(tiny_checkpoint(), folder)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_a_name_on_the_command_line_is_read_from_the_cache(snapshot: Path) -> None:
    result = CliRunner().invoke(app, ["import", NAME, "--out", "imported"])
    assert result.exit_code == 0, result.output
    assert inspect_source(Path("imported")).spec == inspect_source(snapshot).spec


def test_a_name_in_a_recipe_and_in_an_adapter_is_read_from_the_cache(snapshot: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: x\nmodel: {NAME}\nstages: [{{kind: distill, student: {NAME}}}]\n")
    loaded = load_recipe(read_yaml(recipe))
    assert loaded.model == snapshot
    assert isinstance(loaded.stages[0], DistillConfig)
    assert loaded.stages[0].student == str(snapshot)
    (tmp_path / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{NAME}"}}')
    assert base_folder(tmp_path, ("model.safetensors",)) == snapshot


def test_a_folder_of_that_name_goes_before_the_cache(snapshot: Path) -> None:
    assert on_disk(Path(NAME)) == snapshot
    Path(NAME).mkdir(parents=True)
    assert on_disk(Path(NAME)) == Path(NAME)


def test_a_folder_beside_a_recipe_or_an_adapter_goes_before_the_cache(snapshot: Path, tmp_path: Path) -> None:
    assert placed_in(tmp_path, Path(NAME)) == snapshot
    (tmp_path / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{NAME}"}}')
    Path(NAME).mkdir(parents=True)  # of the current folder, from which neither path starts
    assert placed_in(tmp_path, Path(NAME)) == base_folder(tmp_path, ("model.safetensors",)) == snapshot
    (tmp_path / NAME).mkdir(parents=True)
    assert placed_in(tmp_path, Path(NAME)) == base_folder(tmp_path, ("model.safetensors",)) == tmp_path / NAME


def test_an_adapter_is_found_there_too(snapshot: Path) -> None:
    (snapshot / "config.json").rename(snapshot / "adapter_config.json")
    assert on_disk(Path(NAME)) == snapshot


def test_a_teacher_s_name_on_the_command_line_is_read_from_the_cache(snapshot: Path) -> None:
    Path("empty.jsonl").touch()
    verb = ("tune", NAME, "--data", "empty.jsonl", "--teacher")
    assert "other' does not exist" in roots(*verb, "acme/other", code=2)
    assert "empty.jsonl" in roots(*verb, NAME, code=2)


def test_a_cache_named_from_the_current_folder_serves_recipes_of_another(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "../cache")
    found = placed_in(tmp_path / "recipes", Path(NAME))
    assert found.is_absolute()
    assert found.resolve() == snapshot


def test_a_run_is_named_after_the_model_and_not_after_its_commit(snapshot: Path, tmp_path: Path) -> None:
    assert name_of(snapshot) == "tiny.v2"
    assert name_of(tmp_path / "mine" / "snapshots" / "step-100") == "step-100"


@pytest.mark.parametrize("name", ["acme/other", "acme--x/a", "a/b/c", "/acme/tiny.v2", "tiny.v2", "acme/.."])
def test_what_the_cache_has_not_stays_as_it_is_and_says_how_to_fetch_it(snapshot: Path, name: str) -> None:
    assert on_disk(Path(name)) == Path(name)
    if name != "acme/..":
        with pytest.raises(InputError, match="no such file") as caught:
            inspect_source(on_disk(Path(name)))
        assert "hf download" in str(caught.value.remedy)
