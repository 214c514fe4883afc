"""The `tune` stage as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.configs.tune import TuneConfig
from roots_compress.errors import InputError, Key, Text
from roots_compress.results import Json
from roots_compress.stages.base import Exchange, ModelInfo, Stage, StageContext, StageOutcome
from roots_compress.stages.expected import Estimate, Expected, ExpectedModel, Small, least
from roots_compress.training.distillation.vocabulary import (
    refuse_quantized,
    require_same_outputs,
    require_same_tokenizer,
)
from roots_compress.training.summary import harm_in

if TYPE_CHECKING:
    from roots_compress.checkpoints.checkpoint import Checkpoint

DECODED = 8.0
"""Cost of decoding a token, in forward passes of a token among many."""
ANSWERERS = ("expected", "before", "teacher", "after")
"""The models that answer a held-out prompt, in the order of reports."""


class TuneStage(Stage[TuneConfig]):
    """Trains a model on answers, without changing its shape."""

    def check(self, config: TuneConfig, info: ModelInfo) -> ModelInfo:
        """Check the teacher's files against the model, and return the same shape with other weights."""
        if config.teacher is not None:
            try:
                _check_teacher(config, config.teacher, info)
            except InputError as error:
                # The file name alone would not show that it is the teacher's, not the model's.
                error.message = Text(f"{error.where}: ", error.message)
                error.where = Key("teacher")
                raise
        return replace(info, source=None)

    def estimate(self, config: TuneConfig, parameters: float, *, device: str) -> Estimate:
        return least(parameters, parameters, trained_on=device)

    def expect(self, config: TuneConfig, before: ExpectedModel) -> Expected:
        from roots_compress.training.further import judging_passes

        answering = 2 if config.teacher is None else 3
        answers = DECODED * answering * config.answers * config.answer_tokens
        return Expected(before, passes=answers + judging_passes(config.training))

    def in_small(self, config: TuneConfig, small: Small) -> TuneConfig:
        """Give the teacher few layers, and the answers few tokens."""
        changes: dict[str, object] = {"answer_tokens": min(4, config.answer_tokens)}
        if config.teacher is not None:
            changes["teacher"] = small.stand_in(config.teacher)
        return small.lessened(config).model_copy(update=changes)

    def inputs(self, config: TuneConfig) -> dict[str, Path]:
        return {} if config.teacher is None else {"teacher": config.teacher}

    def caption(self, notes: Mapping[str, Json]) -> str | None:
        said = _shortened(notes), harm_in(dict(notes), "Tuning")
        return ". ".join(each for each in said if each is not None) or None

    def exchanges(self, notes: Mapping[str, Json]) -> list[Exchange]:
        """Return the held-out prompts and their answers."""
        answers = notes.get("answers")
        return [
            Exchange(str(each.get("prompt")), {who: str(each[who]) for who in ANSWERERS if who in each})
            for each in (answers if isinstance(answers, list) else [])
            if isinstance(each, dict)
        ]

    def run(self, config: TuneConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        from roots_compress.stages.tune.stage import tune

        return tune(config, checkpoint, context)


def _shortened(notes: Mapping[str, Json]) -> str | None:
    """Say how many conversations were too long for a window."""
    read, cut, left_out = (notes.get(key) for key in ("conversations", "cut", "left_out"))
    if not (isinstance(read, int) and isinstance(cut, int) and isinstance(left_out, int)) or not cut:
        return None
    gone = f", and {left_out:,} have no answer before that and were left out" if left_out else ""
    return f"{cut:,} of {read + left_out:,} conversations are longer than a window and were cut{gone}"


def _check_teacher(config: TuneConfig, path: Path, info: ModelInfo) -> None:
    """Refuse a teacher that does not fit the model.

    Raises:
        InputError: its files are damaged, quantized, or of another tokenizer or head; or its context is
            shorter than the training's windows.
    """
    source = inspect_source(path)
    refuse_quantized(source.quantized, path)
    if info.spec is not None:
        require_same_outputs(info.spec, source.spec, path)
    longest, own = source.limits.max_context, info.limits.max_context
    training = config.training if own is None else config.training.fitted(own)
    if longest is not None and training.block_size > longest:
        raise InputError(
            f"reads {longest} tokens, and the training's windows have {training.block_size}",
            where=path,
            remedy="Shorten the windows, or choose a teacher with a longer context.",
        )
    if info.tokenizer is not None:
        from roots_compress.checkpoints.tokenizer import check_vocabulary, load_tokenizer

        tokenizer = load_tokenizer(source)
        check_vocabulary(tokenizer, source.vocab_size, path)
        require_same_tokenizer(info.tokenizer(), tokenizer, path)
