"""Several processes through the command line: started by a recipe, or by torchrun."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import roots_compress as roots_compress_package
from tests.chains import DISTILL, EVALUATION, TRAIN, TRAINING
from tests.cli.test_commands import roots_compress

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def write_recipe(folder: Path, text: Path, *, stages: int = 2, **training: Any) -> Path:
    """Write a recipe of at most two stages that train; the second asks a teacher's cache."""
    settings = {**TRAINING, **training}
    path = folder / "recipe.yaml"
    content = {
        "name": "several",
        "data": {"train": [str(text)], "eval_fraction": 0.25},
        "evaluation": EVALUATION,
        "stages": [
            {**TRAIN, "training": settings},
            {**DISTILL, "training": settings, "loss": {"top_k": 8}},
        ][:stages],
    }
    path.write_text(json.dumps(content))
    return path


def figures(run: Path) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = json.loads((run / "metrics.json").read_text())["stages"]
    return stages


def test_a_recipe_names_its_processes_and_a_finished_stage_serves_any_number(
    tmp_path: Path, text_file: Path
) -> None:
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path, text_file, stages=1, processes=2)
    result = roots_compress("run", recipe, "--run", run)
    assert result.exit_code == 0, result.output
    assert [stage["notes"]["processes"]["number"] for stage in figures(run)] == [2]
    result = roots_compress("run", write_recipe(tmp_path, text_file, stages=1), "--run", run)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("finished earlier, reused") == 1


def test_a_number_that_cannot_share_a_step_is_refused_with_one_that_can(
    tmp_path: Path, text_file: Path
) -> None:
    result = roots_compress("run", write_recipe(tmp_path, text_file, processes=3), "--run", tmp_path / "run")
    assert result.exit_code == 2
    assert "3 processes cannot share the 2 windows of a step" in result.stderr
    assert "use 2 processes, or a batch_size of 3" in result.stderr
    assert not (tmp_path / "run").exists()


def torchrun(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, "-m", "--", "roots_compress", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.slow
@pytest.mark.processes
def test_torchrun_runs_a_recipe_on_all_the_processes_it_starts(tmp_path: Path, text_file: Path) -> None:
    run = tmp_path / "run"
    process = torchrun("run", write_recipe(tmp_path, text_file), "--run", run)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert [stage["notes"]["processes"]["number"] for stage in figures(run)] == [2, 2]
    assert output.count("Report: ") == 1


@pytest.mark.slow
@pytest.mark.processes
def test_torchrun_ends_where_the_request_is_bad(tmp_path: Path, text_file: Path) -> None:
    process = torchrun("run", write_recipe(tmp_path, text_file, batch_size=3), "--run", tmp_path / "run")
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "2 processes cannot share the 3 windows of a step" in output
    assert not (tmp_path / "run").exists()


START = """
import os, sys
if os.environ["RANK"] == "1":
    sys.path.insert(0, sys.argv.pop(1))
else:
    del sys.argv[1]
from roots_compress.cli.app import main
main()
"""


@pytest.mark.slow
@pytest.mark.processes
def test_processes_with_other_code_are_refused_before_the_first_step(tmp_path: Path, text_file: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(Path(roots_compress_package.__path__[0]), other / "roots_compress")
    with (other / "roots_compress" / "training" / "loop.py").open("a") as file:
        file.write("# changed\n")
    (tmp_path / "start.py").write_text(START)
    recipe, run = write_recipe(tmp_path, text_file), tmp_path / "run"
    command = [*TORCHRUN, *map(str, (tmp_path / "start.py", other, "run", recipe))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert ended.returncode != 0
    assert "process 1 of 2 has other code than process 0: code: " in ended.stderr
    assert list(run.rglob("step-*")) == []


@pytest.mark.slow
@pytest.mark.processes
def test_a_process_of_torchrun_that_is_killed_ends_all_and_the_run_goes_on(
    tmp_path: Path, text_file: Path
) -> None:
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path, text_file, steps=4000)
    process = torchrun("run", recipe, "--run", run)
    states = list[Path]()
    while not states and process.poll() is None:
        time.sleep(0.2)
        states = list(run.rglob("step-*"))
    workers = children(process.pid)
    os.kill(workers[-1], signal.SIGKILL)
    killed = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert process.returncode != 0
    assert all(not Path(f"/proc/{worker}").exists() for worker in workers), output
    recipe = write_recipe(tmp_path, text_file, steps=4000)
    again = torchrun("run", recipe, "--run", run)
    assert again.stdout is not None
    for line in again.stdout:
        if "going on from step" in line:
            break
    else:
        pytest.fail("the run began anew")
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)


def children(process: int) -> list[int]:
    """Return the processes that a process started."""
    stats = [(int(path.name), path / "stat") for path in Path("/proc").iterdir() if path.name.isdigit()]
    parents = {}
    for number, stat in stats:
        with suppress(OSError):
            parents[number] = int(stat.read_text().rpartition(")")[2].split()[1])
    return sorted(number for number, parent in parents.items() if parent == process)
