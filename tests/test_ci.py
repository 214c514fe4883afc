"""The action for GitHub workflows and the examples of its page: read as YAML, and their shell steps run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from roots_compress.configs.recipe.loading import load_recipe, resolved
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.yaml import read_yaml
from roots_compress.results import RunMetrics

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / ".github/actions/roots-compress/action.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/guides/ci.md").read_text(encoding="utf-8")
EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")


def step(name: str) -> dict[str, Any]:
    (found,) = (each for each in ACTION["runs"]["steps"] if each.get("name") == name)
    return dict(found)


class Job:
    """Runs shell steps of the action as a runner does, as far as a shell can."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        self.folder, self.summary, self._outputs = folder, folder / "summary.md", folder / "outputs"
        self._values = {
            f"inputs.{name}": each["default"] for name, each in ACTION["inputs"].items() if "default" in each
        }
        self._values |= {f"inputs.{name}": value for name, value in inputs.items()}
        (folder / "bin").mkdir()
        command = folder / "bin" / "roots-compress"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m roots_compress "$@"\n')
        command.chmod(0o755)

    def run(self, name: str) -> int:
        found = step(name)
        given = {
            key: EXPRESSION.sub(lambda match: self._values[match[1]], str(value))
            for key, value in found["env"].items()
        }
        assert found["shell"] == "bash"
        assert not EXPRESSION.search(found["run"]), "what a user gives must not become part of the script"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
            cwd=self.folder,
            env={
                **os.environ,
                **given,
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "GITHUB_OUTPUT": str(self._outputs),
                "GITHUB_STEP_SUMMARY": str(self.summary),
            },
            check=False,
        )
        if self._outputs.exists():
            pairs = (line.split("=", 1) for line in self._outputs.read_text().splitlines())
            self._values |= {
                f"steps.{found['id']}.outputs.{key}": value for key, value in pairs if "id" in found
            }
        return done.returncode


@pytest.mark.slow
def test_the_action_shows_a_missed_gate_and_fails_by_it(
    chain: tuple[Recipe, Path, RunMetrics], tmp_path: Path
) -> None:
    shutil.copytree(chain[1], tmp_path / "a run")
    gated = {**resolved(chain[0]), "gates": {"max_bytes": 1, "min_size_ratio": 0.1}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(gated))
    job = Job(tmp_path, recipe="recipe.yaml", run="a run")
    assert job.run("Run the recipe") == 0
    assert job.run("Write the summary") == 0
    assert "| max\\_bytes | 1 |" in job.summary.read_text()
    assert '<testsuite name="tiny" tests="6" failures="1"' in (tmp_path / "a run" / "gates.xml").read_text()
    assert job.run("Decide") == 3


def test_the_action_says_that_a_run_did_not_finish(tmp_path: Path) -> None:
    job = Job(tmp_path, recipe="there is none.yaml")
    assert job.run("Run the recipe") == 0
    assert job.run("Write the summary") == 0
    assert "did not finish: exit code 2" in job.summary.read_text()
    assert job.run("Decide") == 2


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_of_the_page_are_what_they_say(block: str, tmp_path: Path) -> None:
    document = yaml.safe_load(block)
    if "stages" in document or "gates" in document:
        (tmp_path / "r.yaml").write_text(
            block if "stages" in document else f"name: a\nmodel: m\nstages: [{{kind: prune}}]\n{block}"
        )
        assert load_recipe(read_yaml(tmp_path / "r.yaml")).gates.limits
        return
    for each in (each for job in document.get("jobs", {}).values() for each in job["steps"]):
        if each.get("uses", "").startswith("./"):
            assert (ROOT / each["uses"] / "action.yml").is_file()
            assert each["with"].keys() <= ACTION["inputs"].keys()


def test_the_page_lists_every_input_of_the_action() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", PAGE.partition("## GitHub Actions")[2], re.MULTILINE)
    assert listed == [*ACTION["inputs"]]
