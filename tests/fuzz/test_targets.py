"""Every target reads its seeds and refuses what once was answered wrongly; a reader that writes is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from roots_compress.errors import InputError
from tests.bad_inputs.materials import make_materials
from tests.fuzz.targets import FINDINGS, TARGETS, FindingError, put, surround, try_input


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_materials(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_halves_are_read_or_refused(name: str, good: Path, tmp_path: Path) -> None:
    target = TARGETS[name]
    place = surround(target, good, tmp_path)
    for seed in target.seeds(good):
        assert seed
        for data in (seed, seed[: len(seed) // 2], seed[::-1], b""):
            try_input(target, data, place)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_is_mended(name: str, good: Path, tmp_path: Path) -> None:
    place = surround(TARGETS[name], good, tmp_path)
    for path in sorted((FINDINGS / name).glob("*")):
        try_input(TARGETS[name], path.read_bytes(), place)


@pytest.mark.parametrize("name", ["recipe", "graph", "config", "metrics"])
def test_a_whole_seed_is_accepted(name: str, good: Path, tmp_path: Path) -> None:
    target = TARGETS[name]
    seed = target.seeds(good)[0]
    place = surround(target, good, tmp_path)
    if name == "recipe":
        with pytest.raises(InputError, match="does not exist"):  # the model it names, and nothing before that
            target.read(seed, place)
    else:
        target.read(seed, place)


def test_other_errors_and_written_files_are_findings(tmp_path: Path) -> None:
    def fails(data: bytes, place: Path) -> None:
        put(place / "input", data)
        raise KeyError("tensors")

    def writes(data: bytes, place: Path) -> None:
        put(place / "input", data)
        (place / "left").write_bytes(data)

    with pytest.raises(KeyError):
        try_input(replace(TARGETS["gguf"], read=fails), b"", tmp_path)
    with pytest.raises(FindingError, match="left for writing"):
        try_input(replace(TARGETS["gguf"], read=writes), b"", tmp_path)
