"""Closed pipes, closed standard streams, locales without UTF-8, and paths that are hard to write down."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.data.sources.readers import read_documents
from roots_compress.results import RunMetrics
from tests.cli.shells import shell
from tests.tiny import tiny_checkpoint

Chain = tuple[Recipe, Path, RunMetrics]

POSIX = {"LC_ALL": "C"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale without UTF-8, from which Python is kept from rescuing itself, as it does by default."""
ODD_NAMES = ["ünïcödé-模型", "-dash, space\nnew line, [brackets]*? and quote'\"$HOME;"]


@pytest.mark.parametrize("verb", ["report RUN --format html", "--help"])
def test_a_reader_that_leaves_early_makes_no_traceback(verb: str, chain: Chain, tmp_path: Path) -> None:
    verb = verb.replace("RUN", str(chain[1]))
    # The reader is gone before anything is written, so that the pipe is closed for certain.
    ended = shell(f"$ROOTS {verb} | true; echo status ${{PIPESTATUS[0]}} >&2", tmp_path)
    assert "Traceback" not in ended.stderr
    assert "status 0" not in ended.stderr, "the injection did not fire"
    assert "Exception ignored" not in ended.stderr


def test_a_locale_without_utf8_can_read_a_report(chain: Chain, tmp_path: Path) -> None:
    ended = shell(f"$ROOTS report {chain[1]}", tmp_path, **ASCII)
    assert ended.returncode == 0, ended.stderr
    assert "quantize" in ended.stdout


@pytest.mark.parametrize(
    ("name", "environment"), [*((name, ASCII) for name in ODD_NAMES), ("ünïcödé-模型", POSIX)]
)
def test_an_odd_path_is_named_in_errors_without_breaking_them(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    ended = shell('$ROOTS report -- "$NAME"', tmp_path, NAME=name, **environment)
    assert ended.returncode == 2, ended.stderr
    assert "there is no finished run here" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_corpus_is_written_under_a_name_that_the_locale_cannot_read(form: str, tmp_path: Path) -> None:
    words = "a kind reader of this page finds the plain text of a short and honest tale in it"
    (tmp_path / "text.txt").write_text(f"{words}.\n")
    folder = "ünïcödé-模型"
    prepared = f'$ROOTS data prepare text.txt --out "$NAME" --min-words 2 --format {form}'
    ended = shell(prepared, tmp_path, NAME=folder, **ASCII)
    assert ended.returncode == 0, ended.stderr
    (shard,) = (tmp_path / folder).glob(f"part-*.{form}*")
    assert [each.text for each in read_documents(shard)] == [f"{words}.\n"]


def test_a_recipe_may_name_a_path_that_the_locale_cannot_read(tmp_path: Path) -> None:
    name = "ünïcödé-模型"
    save_checkpoint(tiny_checkpoint(), tmp_path / name)
    recipe = f"name: x\nmodel: {name}\nstages: [{{kind: quantize, scheme: fp16}}]\n"
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    ended = shell("$ROOTS validate recipe.yaml", tmp_path, **ASCII)
    assert ended.returncode == 0, ended.stderr
