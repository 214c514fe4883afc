"""The settings of a corpus: of a file and of options, given once each, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roots_compress.configs.recipe.corpus import load_corpus
from roots_compress.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one text\n", encoding="utf-8")
    return tmp_path


def refused(folder: Path, text: str, given: dict[str, Any]) -> str:
    path = folder / "corpus.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_corpus(path, given)
    return str(caught.value).replace(f"{folder}/", "")


SOURCE = "sources:\n  - path: a.txt\n"


@pytest.mark.parametrize(
    ("text", "given", "words"),
    [
        ("- a.txt\n", {}, "corpus.yaml:1: the settings of a corpus are a group of keys"),
        (
            SOURCE + "seed: 3\n",
            {"seed": 4},
            "corpus.yaml:3: seed: is set in the file, and on the command line",
        ),
        (
            SOURCE + "length: {min_words: 3}\n",
            {"length": {"min_words": 4}},
            "corpus.yaml:3: length: is set in the file, and on the command line",
        ),
        (SOURCE + "length: {min_words: 9, max_words: 3}\n", {}, "max_words: is below min_words, 9"),
        (
            "sources:\n  - path: a.txt\n    weight: 2\n  - path: b.txt\n",
            {},
            "sources[1]: has no weight, and other sources have one",
        ),
        (SOURCE + "decontamination: {held_out: [no.txt]}\n", {}, "decontamination.held_out"),
        ("sources:\n  - path: no.txt\n", {}, "corpus.yaml:2: sources[0].path"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_line(
    folder: Path, text: str, given: dict[str, Any], words: str
) -> None:
    assert words in refused(folder, text, given)


def test_options_join_the_groups_of_a_file(folder: Path) -> None:
    path = folder / "corpus.yaml"
    path.write_text(SOURCE + "length: {min_words: 2}\n", encoding="utf-8")
    config = load_corpus(path, {"length": {"max_words": 7}, "seed": 5})
    assert (config.length.min_words, config.length.max_words, config.seed) == (2, 7, 5)
    assert [source.path for source in config.sources] == [folder / "a.txt"]
