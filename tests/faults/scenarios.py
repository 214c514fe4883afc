"""What the store is asked to do while it is disturbed, and the states a reader may find afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from roots_compress.run.folders import set_aside
from roots_compress.run.outputs import RunFile
from roots_compress.run.run_folder import COVERED, RunFolder
from roots_compress.run.run_manifest import run_manifest_faults
from roots_compress.run.stage_commit import Workspace
from roots_compress.run.stages import read_stages
from tests.run.stubs import add_stage, contents, make_key

State = tuple[tuple[tuple[str, str], ...], tuple[str | None, ...]]
"""Name and content of each committed stage, and the texts that describe the run."""

DESCRIPTIONS: tuple[RunFile, ...] = ("recipe.yaml", "resolved.json", "metrics.json", "report.html")
OLD = (("00-baseline", "b"), ("01-prune", "old"), ("02-quantize", "q"))


@dataclass(frozen=True)
class Scenario:
    """One action on a run, and every chain of stages that may stand after it was cut short, its end last."""

    name: str
    act: Callable[[Path], None]
    chains: tuple[tuple[tuple[str, str], ...], ...]
    begins: Callable[[Path], None]
    """Makes the folder that the action starts from."""
    described: str = "old"
    """The text of the run's descriptions once the action is complete."""

    def allows(self, state: State) -> bool:
        """Whether a reader may find this state after a fault."""
        stages, texts = state
        return stages in self.chains and all(text in (None, "old", self.described) for text in texts)

    def is_complete(self, state: State) -> bool:
        """Whether the action was carried out."""
        return state[0] == self.chains[-1] and all(text in (None, self.described) for text in state[1])


def state_of(run: Path) -> State:
    """Return what the next process finds once it has recovered the folder.

    Raises:
        AssertionError: something is left over, half deleted or not as its manifest says, or the manifest of
            the run does not fit it.
    """
    with RunFolder.open(run):
        stages = tuple(contents(run))
    assert read_stages(run)[1] == {}
    assert not [*run.glob(".*.replaced"), *run.glob(".*.discarded")]
    if (run / "manifest.json").exists():
        assert run_manifest_faults(run, COVERED, [name for name, _ in stages]) == []
    paths = [run / name for name in DESCRIPTIONS]
    return stages, tuple(path.read_text() if path.exists() else None for path in paths)


def describe(run: RunFolder, text: str) -> None:
    """Write all the files that describe a run, as its end does."""
    for name in DESCRIPTIONS:
        run.write_text(name, text)
    run.finish()


def _nothing(run: Path) -> None:
    run.mkdir()


def _finished(path: Path) -> None:
    with RunFolder.open(path) as run:
        add_stage(run, "baseline", "b")
        add_stage(run, "prune", "old")
        add_stage(run, "quantize", "q")
        describe(run, "old")


def _interrupted(path: Path) -> None:
    """A stage was begun and saved its state, and later a commit died just before its rename."""
    _finished(path)
    with RunFolder.open(path) as run:
        workspace = _begin(run)
        (workspace.work / "step").write_text("7")
        (workspace.onnx / "model.onnx").write_text("half")
        set_aside(path, range(1, 3))


def _begin(run: RunFolder) -> Workspace:
    return run.begin(2, "quantize", "quantize", make_key(run.stages()[1], content="next"))


def _append(path: Path) -> None:
    with RunFolder.open(path) as run:
        add_stage(run, "quantize", "new")


def _replace(path: Path, kind: str, index: int) -> None:
    with RunFolder.open(path) as run:
        add_stage(run, kind, "new", at=index)


def _repair(path: Path) -> None:
    """Make a stage again that is as it was: what was made from it stays."""
    with RunFolder.open(path) as run:
        add_stage(run, "prune", "old", at=1)


def _redo(path: Path) -> None:
    """A whole second run: one stage made again, those after it dropped, everything described anew."""
    with RunFolder.open(path) as run:
        run.write_text("recipe.yaml", "new")
        add_stage(run, "prune", "new", at=1)
        describe(run, "new")


def _discard(path: Path) -> None:
    with RunFolder.open(path) as run:
        run.discard(1)


def _fresh(path: Path) -> None:
    RunFolder.open(path, fresh=True).__exit__(None, None, None)


def _go_on(path: Path) -> None:
    with RunFolder.open(path) as run:
        assert (_begin(run).work / "step").read_text() == "7", "the work of the interrupted stage is lost"


NEW = ("01-prune", "new")
SCENARIOS = (
    Scenario(
        "first stage", partial(_replace, kind="baseline", index=0), ((), (("00-baseline", "new"),)), _nothing
    ),
    Scenario("append", _append, (OLD, (*OLD, ("03-quantize", "new"))), _finished),
    Scenario("replace", partial(_replace, kind="prune", index=1), (OLD, (OLD[0], NEW)), _finished),
    Scenario(
        "replace by another kind",
        partial(_replace, kind="distill", index=1),
        (OLD, (OLD[0], ("01-distill", "new"))),
        _finished,
    ),
    Scenario(
        "replace all",
        partial(_replace, kind="baseline", index=0),
        (OLD, (("00-baseline", "new"),)),
        _finished,
    ),
    Scenario("repair", _repair, (OLD,), _finished),
    Scenario("redo", _redo, (OLD, (OLD[0], NEW)), _finished, "new"),
    Scenario("discard", _discard, (OLD, OLD[:2], OLD[:1]), _finished),
    Scenario("fresh", _fresh, (OLD, OLD[:2], OLD[:1], ()), _finished),
    Scenario("recover and go on", _go_on, (OLD,), _interrupted),
)
