"""Tasks of lm-eval (EleutherAI's evaluation harness, Gao et al. 2021) for models of ours.

They are offline: a task's data are local files that its YAML file names, or lie in the cache of `datasets`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from difflib import get_close_matches
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

# Before lm-eval: its libraries read these when they are imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import datasets
import huggingface_hub.constants
import lm_eval.api.task
import lm_eval.evaluator
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from roots_compress.data.chat.rendering import prompt_of_messages, require_template
from roots_compress.errors import InputError, RootsError
from roots_compress.evaluation.skills.subject import Asked, Subject
from roots_compress.progress import Progress
from roots_compress.system.memory import lacks_memory

huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
# No bars of its own, and no errors of git without a repository.
lm_eval.api.task.tqdm = partial(lm_eval.api.task.tqdm, disable=True)
lm_eval.evaluator.get_git_commit_hash = lambda: None
MOST_NEW_TOKENS = 256
"""Most tokens of an answer, unless the task sets them."""
KEYS = ("temperature", "top_k", "top_p")
"""The `generation_kwargs` of a task that `generate` has too."""


class Outcome(NamedTuple):
    """A figure of a task."""

    task: str
    metric: str
    value: float
    standard_error: float | None
    items: int


class HarnessModel(LM):
    """A model of ours behind lm-eval's interface.

    Args:
        progress: called with the finished requests of a kind and their number.
    """

    def __init__(self, subject: Subject, progress: Progress | None = None) -> None:
        super().__init__()
        self.subject, self.progress = subject, progress

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, by which lm-eval distinguishes requests."""
        return str(self.subject.tokenizer.name_or_path)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return messages in the tokenizer's template; the last one may be the beginning of the answer."""
        return prompt_of_messages(chat_history, self.subject.tokenizer, begun=not add_generation_prompt)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return each continuation's log-probability after its context, and whether it is the likeliest."""
        asked = [self.subject.asked(*request.args) for request in requests]
        return [*self.subject.likelihoods(asked, progress=self.progress)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the log-probability of each text, in windows of the model's context."""
        subject, windows, owners = self.subject, list[Asked](), list[int]()
        for number, request in enumerate(requests):
            ids = subject.tokenizer.encode(request.args[0], add_special_tokens=False)
            for pair in get_rolling_token_windows(
                ids, subject.opening, max_seq_len=subject.engine.max_context, context_len=1
            ):
                windows.append(Asked(*make_disjoint_window(pair)))
                owners.append(number)
        totals = [0.0] * len(requests)
        found = subject.likelihoods(windows, progress=self.progress)
        for owner, likelihood in zip(owners, found, strict=True):
            totals[owner] += likelihood.log_probability
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return the model's text after each context, up to one of the task's stop texts."""
        written = []
        for request in requests:
            context, settings = request.args
            settings = dict(settings)
            stops = settings.get("until") or []
            samples = settings.get("do_sample") or (settings.get("temperature") or 0) > 0
            choice = {key: settings[key] for key in KEYS if samples and settings.get(key) is not None}
            written.append(
                self.subject.written(
                    context,
                    stops=[stops] if isinstance(stops, str) else list(stops),
                    max_new_tokens=int(settings.get("max_gen_toks") or MOST_NEW_TOKENS),
                    **choice,
                )
            )
            if self.progress is not None:
                self.progress(len(written), len(requests))
        return written


def run_tasks(
    subject: Subject,
    names: Sequence[str],
    *,
    seed: int,
    limit: int | None = None,
    chat: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Return the figures of tasks.

    Args:
        names: those of lm-eval's tasks or groups, or paths of tasks' YAML files.
        seed: that of the choice of examples before a question.
        limit: the most questions of a task.
        chat: whether questions are asked in the tokenizer's chat template, examples as earlier turns.
        progress: see `HarnessModel`.

    Raises:
        InputError: a name or a file is none of a task, its data are not here, or the tokenizer has no chat
            template, or one that cannot be rendered.
    """
    if chat:
        require_template(subject.tokenizer)
    files = [name for name in names if name.endswith((".yaml", ".yml")) and Path(name).is_file()]
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    manager = TaskManager(include_defaults=len(files) < len(names))
    for name in names:
        if name not in files and name not in manager.all_tasks:
            near = get_close_matches(name, manager.all_tasks, n=5)
            raise InputError(
                f"no task is called '{name:.60}'",
                where="--tasks",
                remedy=f"lm-eval has {len(manager.all_tasks):,}"
                + (f", such as {', '.join(near)}" if near else "")
                + "; cloze and choice are made of the held-out text, and a path names a task's YAML file.",
            )
    try:
        # It prints what it loads.
        with redirect_stdout(StringIO()):
            found = simple_evaluate(
                HarnessModel(subject, progress),
                tasks=list(names),
                task_manager=manager,
                limit=limit,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                log_samples=False,
                bootstrap_iters=1000,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except (RootsError, MemoryError):
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"lm-eval cannot carry out {', '.join(names)}: {cause[0]:.300}",
            where="--tasks",
            remedy="Data sets are never downloaded here: let the task's YAML file name local files"
            " (dataset_path: json, dataset_kwargs: data_files), or download the data set before.",
        ) from error
    return list(_outcomes(found or {}))


def _outcomes(found: dict[str, Any]) -> list[Outcome]:
    """Return the figures in lm-eval's results, whose keys are a metric and a filter of answers."""
    outcomes = []
    for task, figures in found.get("results", {}).items():
        items = int(found["n-samples"].get(task, {}).get("effective", 0))
        for key, value in figures.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = figures.get(f"{metric}_stderr,{filtered}")
            name = metric if filtered == "none" else f"{metric} ({filtered})"
            spread = float(error) if isinstance(error, int | float) else None
            outcomes.append(Outcome(task, name, float(value), spread, items))
    return outcomes
