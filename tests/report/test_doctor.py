from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from roots_compress.report import doctor
from roots_compress.report.doctor import PURPOSE, SECURITY_FLOORS, examine

DEPENDENCIES = [
    Requirement(line)
    for line in tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "dependencies"
    ]
]


def test_every_part_of_this_machine_is_reported() -> None:
    lines = [*map(str, examine())]
    assert not [line for line in lines if line.startswith("! ") and "instruction set" not in line]
    for name in (*PURPOSE, "onnxruntime"):
        assert any(re.match(rf"  {name} \d", line) for line in lines), name
    said = "\n".join(lines)
    assert "CPUExecutionProvider" in said
    assert re.search(r"^. instruction set: \w+", said, re.M)
    assert re.search(r"^  threads: [1-9]\d* by default, of [1-9]\d* logical", said, re.M)
    assert re.search(r"^  free memory: [\d.]+ GB", said, re.M)
    assert re.search(r"^  free disk here: [\d.]+ GB", said, re.M)


def test_a_missing_part_says_what_it_disables(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(doctor, "version", none)
    lines = [*map(str, examine())]
    for name, purpose in PURPOSE.items():
        assert f"! {name}: not installed; without it there is no: {purpose}" in lines


@pytest.mark.parametrize(
    ("installed", "warns"), [("{}", False), ("0.{}", True), ("{}rc1", True), ("99", False)]
)
def test_a_version_below_its_security_floor_is_marked(
    monkeypatch: pytest.MonkeyPatch, installed: str, warns: bool
) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: installed.format(SECURITY_FLOORS.get(name, "1")))
    marked = {line.split()[1] for line in map(str, examine()) if "known security faults" in line}
    assert marked == (set(SECURITY_FLOORS) if warns else set())


@pytest.mark.parametrize("name", SECURITY_FLOORS)
def test_nothing_below_a_security_floor_can_be_installed(name: str) -> None:
    (requirement,) = (each for each in DEPENDENCIES if each.name == name)
    lowest = next(Version(each.version) for each in requirement.specifier if each.operator == ">=")
    assert lowest >= Version(SECURITY_FLOORS[name])


@pytest.mark.parametrize(
    ("instructions", "slow"),
    [("x86_64+avx2", True), ("x86_64+avx2+avx512f+avx512_vnni", False), ("aarch64+asimd", True)],
)
def test_a_processor_without_8_bit_dot_products_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, instructions: str, slow: bool
) -> None:
    monkeypatch.setattr(doctor, "own_instruction_set", lambda: instructions)
    (line,) = (line for line in map(str, examine()) if "instruction set" in line)
    assert line.startswith("! ") is slow


def test_every_part_that_is_reported_is_a_dependency() -> None:
    assert set(PURPOSE) <= {each.name for each in DEPENDENCIES}
