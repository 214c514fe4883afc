"""The tasks, and the choice of a model's task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from roots_compress.errors import InputError
from roots_compress.runtime.onnx.graph_config import CONFIG, OURS, config_beside, home_of, spec_of_family
from roots_compress.tasks.answering import Answering
from roots_compress.tasks.base import Task
from roots_compress.tasks.causal_lm import CausalLM
from roots_compress.tasks.classification import Classification
from roots_compress.tasks.embedding import SentenceEmbedding
from roots_compress.tasks.masked_lm import MaskedLM
from roots_compress.tasks.rating import Rating
from roots_compress.tasks.scoring import Scoring
from roots_compress.tasks.seq2seq_lm import Seq2SeqLM
from roots_compress.tasks.token_classification import TokenClassification

if TYPE_CHECKING:
    from roots_compress.models.spec import ModelSpec

CAUSAL_LM: Final = CausalLM()
TASKS: Final[tuple[Task[Any], ...]] = (
    CAUSAL_LM,
    Answering(),
    MaskedLM(),
    Classification(),
    Scoring(),
    Rating(),
    TokenClassification(),
    SentenceEmbedding(),
    Seq2SeqLM(),
)


def task_named(name: str) -> Task[Any]:
    """Return a task by its name.

    Raises:
        InputError: there is no such task.
    """
    for task in TASKS:
        if task.name == name:
            return task
    names = ", ".join(task.name for task in TASKS)
    raise InputError(f"no task is called '{name:.60}'", remedy=f"The tasks are: {names}.")


def task_of(architectures: Sequence[str] | None) -> Task[Any]:
    """Return the task of a model by its head.

    Args:
        architectures: names of the model's class, as in its config.json. Without any it is a causal LM, as
            all models once were.

    Raises:
        InputError: no task is known for the head.
    """
    if not architectures:
        return CAUSAL_LM
    for task in TASKS:
        if any(name.endswith(task.heads) for name in architectures):
            return task
    heads = ", ".join(head for task in TASKS for head in task.heads)
    raise InputError(
        f"no task is known for {', '.join(architectures):.80}",
        remedy=f"Name a model whose class ends in one of: {heads}.",
    )


def task_of_spec(spec: ModelSpec) -> Task[Any]:
    """Return the task of a model by its specification.

    Raises:
        InputError: no task is known for its head.
    """
    return _task_of_head(spec.head.kind)


def _task_of_head(kind: str) -> Task[Any]:
    for task in TASKS:
        if task.head_kind == kind:
            return task
    kinds = ", ".join(task.head_kind for task in TASKS)
    raise InputError(
        f"no task is known for a head of the kind '{kind:.60}'",
        remedy=f"Name a model with a head of the kind: {kinds}.",
    )


def task_of_model(model: object) -> Task[Any]:
    """Return the task of a model in memory, by its class."""
    return task_of([type(model).__name__])


def task_of_graph(graph: Path) -> Task[Any]:
    """Return the task of a graph, from the config.json in its folder.

    Raises:
        InputError: config.json is missing or cannot be read, or no task is known for its model.
    """
    config = config_beside(graph)
    named = config.get("architectures")
    known = isinstance(named, list) and all(isinstance(name, str) for name in named)
    try:
        if isinstance(ours := config.get(OURS), dict):
            # A family's class may serve several tasks; the specification leaves out the default head.
            head = ours.get("head")
            return _task_of_head(str(head.get("kind")) if isinstance(head, dict) else CAUSAL_LM.head_kind)
        if (theirs := spec_of_family(config, home_of(graph) / CONFIG)) is not None:
            return _task_of_head(theirs.head.kind)
        return task_of(named if known else None)
    except InputError as error:
        error.where = str(home_of(graph) / CONFIG)
        raise
