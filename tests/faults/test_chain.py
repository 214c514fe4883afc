"""A whole chain, tiny but real, killed at random, rotten, or run twice at once."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roots_compress.cli.app import app
from tests.chains import DISTILL, PRUNE, QUANTIZE, TRAIN, TRAINING, recipe, write_text
from tests.faults.commands import Commands
from tests.faults.kills import artifacts_of, check_random_kills
from tests.faults.rot import check_bit_flips


@dataclass(frozen=True)
class Chain:
    """A recipe of all stages, recovery included, and a run of it that nothing disturbed."""

    recipe: Path
    undisturbed: Path
    seconds: float


@pytest.fixture(scope="module")
def whole(_server: Commands, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    write_text(folder / "text")
    recovery = {"training": {**TRAINING, "steps": 3}}
    wanted = recipe(folder / "text", TRAIN, DISTILL, {**PRUNE, "recovery": recovery}, QUANTIZE)
    document = wanted.model_dump(mode="json")
    (folder / "recipe.yaml").write_text(json.dumps(document), encoding="utf-8")
    _server.log = folder / "log"
    ending = _server.run("run", folder / "recipe.yaml", "--run", folder / "undisturbed")
    assert ending.code == 0, _server.said()
    return Chain(folder / "recipe.yaml", folder / "undisturbed", ending.seconds)


def test_a_chain_killed_at_random_ends_in_the_same_bytes(whole: Chain, commands: Commands) -> None:
    result = check_random_kills(
        commands, whole.recipe, whole.undisturbed, whole.seconds, kills=4, seed=0, share=1 / 3
    )
    assert result.identical == result.fired == 4
    assert result.mixed == 0
    assert len(result.during) > 1, "the kills did not reach the whole chain"


def test_each_flipped_bit_of_a_run_is_found(whole: Chain) -> None:
    assert check_bit_flips(whole.undisturbed, flips=150, rng=random.Random(0)) == 150


def test_a_rotten_stage_is_made_again_and_not_used(whole: Chain, commands: Commands, tmp_path: Path) -> None:
    run = shutil.copytree(whole.undisturbed, tmp_path / "rotten")
    weights = run / "01-distill" / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 16
    weights.write_bytes(content)
    assert commands.run("run", whole.recipe, "--run", run).code == 0
    said = commands.said()
    assert "01 distill: made again: checkpoint/model.safetensors changed since" in said
    assert "02 prune: finished earlier, reused" in said, "what was made from it is as it was"
    assert artifacts_of(run) == artifacts_of(whole.undisturbed)


def test_a_stage_that_lost_a_file_is_made_again_and_says_why(
    whole: Chain, commands: Commands, tmp_path: Path
) -> None:
    run = shutil.copytree(whole.undisturbed, tmp_path / "incomplete")
    (run / "02-prune" / "onnx" / "model.onnx").unlink()
    assert commands.run("run", whole.recipe, "--run", run).code == 0
    assert "02 prune: made again: 02-prune: onnx/model.onnx is missing" in commands.said()
    assert artifacts_of(run) == artifacts_of(whole.undisturbed)


def test_of_two_runs_in_one_folder_the_second_is_refused(
    whole: Chain, commands: Commands, tmp_path: Path
) -> None:
    run = tmp_path / "shared"
    alone = tmp_path / "alone.yaml"
    document = json.loads(whole.recipe.read_text(encoding="utf-8"))
    alone.write_text(json.dumps({**document, "stages": document["stages"][:1]}), encoding="utf-8")
    process = commands.start("run", alone, "--run", run)
    while not (run / ".roots-run.owner").exists():
        assert commands.running()
    second = CliRunner().invoke(app, ["run", str(alone), "--run", str(run)])
    assert second.exit_code == 2
    assert f"another process is writing to this run (process {process})" in second.stderr
    assert commands.end() == 0
    assert artifacts_of(run)
    assert artifacts_of(run).items() <= artifacts_of(whole.undisturbed).items()
