"""The `tune` stage: training on answers, and held-out prompts answered before and after."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint
from roots_compress.configs.tune import TuneConfig
from roots_compress.data.chat.rendering import own_format, prompt_of
from roots_compress.data.conversations import PackedConversations
from roots_compress.data.documents import ASSISTANT, SOURCE, TARGET, Document, TextSplit
from roots_compress.data.special_tokens import stop_ids
from roots_compress.data.texts import evenly
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, located
from roots_compress.results import Json
from roots_compress.runtime.text import stream_text
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_of_model
from roots_compress.training.distillation.teacher import with_first_tokens
from roots_compress.training.distillation.vocabulary import require_same_tokenizer
from roots_compress.training.further import Judge, teach_further, train_further
from roots_compress.training.loop import fit, windows_needed
from roots_compress.training.summary import FitSummary

TOO_LONG = "(the prompt does not fit the model's context)"


def chosen(documents: Sequence[Document], count: int) -> list[Document]:
    """Return at most `count` evenly spaced pairs, or conversations that begin with a prompt."""
    answered = (each for each in documents if each.is_pair or (each.is_chat and _first_answer(each)))
    return evenly(list(answered), count)


def expected(documents: Sequence[Document]) -> list[str]:
    """Return the target of each pair, and the first answer of each conversation."""
    return [document.named(TARGET if document.is_pair else ASSISTANT) for document in documents]


def answers_of(checkpoint: Checkpoint, documents: Sequence[Document], tokens: int) -> list[str]:
    """Return a model's greedy answer to the source of each pair, or to a conversation's first prompt."""
    if not documents:
        return []
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    engine = task_of_model(model).serve_model(model.eval())
    named = None if model.generation_config is None else model.generation_config.eos_token_id
    stops = stop_ids(named, model.config.eos_token_id, tokenizer.eos_token_id)
    answers = []
    for document in documents:
        prompt = (
            document.named(SOURCE)
            if document.is_pair
            else prompt_of(document, _first_answer(document), tokenizer)
        )
        try:
            pieces = stream_text(engine, tokenizer, prompt, max_new_tokens=tokens, stop_tokens=stops)
            answers.append("".join(pieces).strip())
        except InputError:
            answers.append(TOO_LONG)
    return answers


def _first_answer(document: Document) -> int:
    """Return the number of turns before the first answer."""
    return [span.name for span in document.spans].index(ASSISTANT)


def tune(config: TuneConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
    """Train a model on the answers of the training text; the given checkpoint is not changed.

    The tuned checkpoint's tokenizer keeps the chat format of the tuning as its template.

    Args:
        checkpoint: where training starts; float weights.
        context: its training text is learnt; its held-out text gives the prompts for the report.

    Raises:
        InputError: no answer begins within a window, the teacher's tokenizer is another, or as `fit` does.
        StageError: as `fit` raises it.
    """
    tokenizer = _with_template(checkpoint.tokenizer, context.text.train)
    tuned = Checkpoint(copy.deepcopy(checkpoint.model).float(), tokenizer)
    teacher = None
    if config.teacher is not None:
        loaded = load_checkpoint(config.teacher)
        require_same_tokenizer(tokenizer, loaded.tokenizer, config.teacher)
        teacher = with_first_tokens(
            Checkpoint(loaded.model.float(), tokenizer), tuned.model.config.vocab_size
        )
    shown = chosen(context.text.held_out, config.answers)
    told = {"expected": expected(shown), "before": answers_of(checkpoint, shown, config.answer_tokens)}
    if teacher is not None:
        told["teacher"] = answers_of(teacher, shown, config.answer_tokens)
    windows = _Windows(task_of_model(tuned.model))
    summary = _learn(tuned, teacher, windows, config, context)
    told["after"] = answers_of(tuned, shown, config.answer_tokens)
    answers: list[Json] = [
        {"prompt": document.spans[0].text, **{who: texts[number] for who, texts in told.items()}}
        for number, document in enumerate(shown)
    ]
    return StageOutcome(
        tuned, {**windows.counts, **summary.to_json(), "answers": answers}, curves=summary.curves
    )


class _Windows:
    """Makes a task's windows, and counts the conversations in them."""

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self.counts: dict[str, Json] = {}

    def __call__(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        """Return the task's windows."""
        windows = self._task.training_windows(documents, tokenizer, block_size, seed=seed, limit=limit)
        if isinstance(windows, PackedConversations):
            self.counts = {name: getattr(windows, name) for name in ("conversations", "cut", "left_out")}
        return windows


def _learn(
    tuned: Checkpoint,
    teacher: Checkpoint | None,
    windows: _Windows,
    config: TuneConfig,
    context: StageContext,
) -> FitSummary:
    """Train the model in place."""
    place = context.training(config.name)
    if teacher is not None:
        return teach_further(tuned.model, teacher, context.text, windows, config.loss, config.training, place)
    model, tokenizer, training = tuned.model, tuned.tokenizer, config.training
    objective = task_of_model(model).objective()

    def train(text: TextSplit) -> FitSummary:
        needed = windows_needed(training)
        read = windows(text.train, tokenizer, training.block_size, seed=context.seed, limit=needed)
        with located(("training",)):
            return fit(model, read, objective, training, place)

    judge = Judge(objective, windows, tokenizer, training, place)
    return train_further(model, context.text, judge, train)


def _with_template(
    tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document]
) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the chat format of the conversations as its template."""
    own = own_format(documents[0], tokenizer) if documents and documents[0].is_chat else None
    if own is None:
        return tokenizer
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = own.template
    return changed
