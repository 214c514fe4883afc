"""Faults in run folders, their stages and their gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from roots_compress.checkpoints import checkpoint as checkpoints
from roots_compress.configs.gates import GatesConfig
from roots_compress.errors import GateMissedError, StageError
from roots_compress.report import gates
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stage_commit import Workspace
from roots_compress.run.stages import newest_checkpoint, read_stages, verify
from tests.checks.removal import Check, NoticedError
from tests.report import figures
from tests.run.stubs import MACHINE, add_stage, make_key, make_result
from tests.tiny import tiny_checkpoint


def run_of_one_stage(folder: Path, content: str = "abc") -> Path:
    """Return the folder of a committed baseline."""
    with RunFolder.open(folder) as run:
        return add_stage(run, "baseline", content).path


def flipped_bit(folder: Path) -> None:
    weights = run_of_one_stage(folder) / "checkpoint" / "model.safetensors"
    weights.write_text("abb")
    (stage,), _ = read_stages(folder)
    if faults := verify(stage):
        raise NoticedError(faults[0])


def truncated_file(folder: Path) -> None:
    weights = run_of_one_stage(folder) / "checkpoint" / "model.safetensors"
    weights.write_text("a")
    newest_checkpoint(folder)


def changed_manifest(folder: Path) -> None:
    path = run_of_one_stage(folder) / "manifest.json"
    path.write_text(path.read_text().replace('"seconds": 1.25', '"seconds": 0.25'))
    newest_checkpoint(folder)


def stage_of_another_run(folder: Path) -> None:
    """Put another run's baseline under a pruned stage."""
    for name in ("one", "other"):
        with RunFolder.open(folder / name) as run:
            add_stage(run, "baseline", name)
            add_stage(run, "prune", name)
    (folder / "one" / "00-baseline").rename(folder / "elsewhere")
    (folder / "other" / "00-baseline").rename(folder / "one" / "00-baseline")
    _, left_out = read_stages(folder / "one")
    if left_out:
        raise NoticedError(*left_out.values())


def fresh_on_a_foreign_folder(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    RunFolder.open(folder, fresh=True).__exit__(None, None, None)


def two_writers(folder: Path) -> None:
    with RunFolder.open(folder), RunFolder.open(folder):
        pass


def commit(folder: Path, *, perplexity: float = 12.5, fill: Callable[[Workspace], object] = id) -> None:
    with RunFolder.open(folder) as run:
        workspace = run.begin(0, "baseline", "baseline", make_key(None))
        fill(workspace)
        workspace.commit(make_result(0, "baseline", "baseline", perplexity=perplexity), machine=MACHINE)


def save_over_something(folder: Path) -> None:
    (folder / "config.json").write_text("another model's")
    checkpoints.save_checkpoint(tiny_checkpoint(), folder)


def judge(perplexity: float) -> None:
    final = figures.stage(1, "quantize", perplexity=perplexity)
    run = replace(figures.run(figures.stage(), final))
    gates.require(gates.judge(GatesConfig(max_perplexity_ratio=1.1), run), "metrics.json")


CHECKS = [
    Check(
        "a bit of a stage is flipped",
        "find_faults",
        flipped_bit,
        NoticedError,
        guard="if actual.sha256 != record.sha256: ...",
    ),
    Check(
        "a file of a stage is cut short",
        "find_faults",
        truncated_file,
        guard="if actual.bytes != record.bytes: ...\nelse: ...",
    ),
    Check(
        "a manifest was edited",
        "Manifest.from_text",
        changed_manifest,
        guard="if not intact: ...",
    ),
    Check(
        "a stage stands on another run's",
        "read_stages",
        stage_of_another_run,
        NoticedError,
        guard="stage.key.parent != ...",
        without="False",
    ),
    Check(
        "--fresh meets a folder that is no run",
        "refuse_foreign",
        fresh_on_a_foreign_folder,
        guard="if names <= _BEFORE_MARKER: ...",
        without="return",
    ),
    Check(
        "two processes write to a run",
        "WriterLock.acquire",
        two_writers,
    ),
    Check(
        "a figure is NaN",
        "canonical_json",
        lambda folder: commit(folder, perplexity=float("nan")),
        StageError,
        guard="False",
        without="True",
    ),
    Check(
        "a stage holds a link",
        "list_files",
        lambda folder: commit(
            folder, fill=lambda workspace: (workspace.checkpoint / "link").symlink_to("/etc/hosts")
        ),
        StageError,
        guard="raise ManifestError(...)",
    ),
    Check(
        "a checkpoint is saved over something",
        "refuse_occupied",
        save_over_something,
    ),
    Check(
        "a gate is missed",
        "gates.require",
        lambda _: judge(25.0),
        GateMissedError,
    ),
    Check(
        "a gated figure is NaN",
        "gates._within",
        lambda _: judge(float("nan")),
        GateMissedError,
        guard="value is not None and ...",
        without="True",
    ),
]
