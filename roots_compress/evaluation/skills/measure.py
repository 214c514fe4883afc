"""Skills of one artifact, by the names of checks and of lm-eval's tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from roots_compress.data.documents import TextSplit
from roots_compress.errors import InputError
from roots_compress.evaluation.single import open_artifact
from roots_compress.evaluation.skills.builtin import CHECKS
from roots_compress.evaluation.skills.names import WHERE, require_known
from roots_compress.evaluation.skills.subject import Subject
from roots_compress.progress import Progress


class Skill(NamedTuple):
    """A figure of a check or of a task."""

    task: str
    metric: str
    value: float
    standard_error: float | None
    items: int
    """Number of questions."""


def measure_skills(
    path: Path,
    names: Sequence[str],
    text: TextSplit,
    *,
    threads: int,
    devices: str | None = None,
    seed: int,
    limit: int | None = None,
    chat: bool = False,
    progress: Progress | None = None,
) -> list[Skill]:
    """Measure a model's skills.

    Args:
        path: a folder with an ONNX graph, a stage of a run (its graph is taken), or a checkpoint.
        names: of the checks `cloze` and `choice`, of lm-eval's tasks, or paths of their YAML files.
        text: the checks are made from its held-out part.
        devices: over which a checkpoint is spread; None: all of it in memory.
        chat: whether these tasks ask in the tokenizer's chat template.
        progress: called with the texts read and their number, anew for each task.

    Raises:
        InputError: as `require_known` raises it; the model writes no text, a name is of no task, its data
            are not here, or the tokenizer has no chat template.
        StageError: a logit is not finite.
    """
    require_known(names, chat=chat)
    artifact = open_artifact(path, threads, devices)
    if not artifact.task.writes:
        raise InputError(
            f"is a model for {artifact.task.name}, which writes no text: tasks are for models that do",
            where=path,
            remedy=f"Leave {WHERE} out: its quality is measured by its own figures.",
        )
    subject = Subject(artifact.task, artifact.engine, artifact.tokenizer, artifact.stop_tokens)
    found: list[Skill] = []
    for name in (name for name in names if name in CHECKS):
        share = CHECKS[name](subject, text.held_out, seed=seed, progress=progress)
        found.append(Skill(name, "accuracy", *share))
    if others := [name for name in names if name not in CHECKS]:
        from roots_compress.evaluation.skills.harness import run_tasks

        outcomes = run_tasks(subject, others, seed=seed, limit=limit, chat=chat, progress=progress)
        found += [Skill(*each) for each in outcomes]
    return found
