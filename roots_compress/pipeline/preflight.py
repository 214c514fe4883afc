"""What can be said of a request before anything is made: whether it can be carried out, and from what.

Checks go by their cost: files and headers first, then tokenizers and text. Nothing is written, and nothing
that takes seconds to import, torch above all, is imported for a request that is refused without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.inspect import SourceInfo, inspect_source
from roots_compress.checkpoints.outline import WIDTHS, Outline, outline_of
from roots_compress.checkpoints.tokenizer import check_vocabulary, load_tokenizer
from roots_compress.configs.distill import STUDENT_PRESETS, DistillConfig, student_path
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.recipe.location import Location, dotted
from roots_compress.configs.recipe.schema import (
    Recipe,
    StageConfig,
    context_faults,
    located,
    losses_of,
    placed_stages,
    training_of,
)
from roots_compress.configs.train import TrainConfig
from roots_compress.data.corpora import load_held_out, load_text
from roots_compress.data.documents import TextSplit
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.fingerprint import text_sha256
from roots_compress.data.packing import pack
from roots_compress.data.windows import EvaluationWindows
from roots_compress.errors import InputError, RootsError
from roots_compress.io.atomic import real_path
from roots_compress.models.limits import Limits, is_fusible, require_fusible
from roots_compress.run.marker import refuse_foreign
from roots_compress.run.outputs import enclosing_run, refuse_inside
from roots_compress.runtime.graph_folder import holds_graph
from roots_compress.stages.distill.vocabulary import check_student
from roots_compress.stages.prune.plan import plan_ratios
from roots_compress.system.threads import default_threads


@dataclass(frozen=True)
class Setting:
    """What is the same for every stage of a run, checked before anything is written."""

    recipe: Recipe
    text: TextSplit
    device: str
    threads: int
    texts: dict[str, str]
    """sha256 of the training and the held-out text, which every stage reads."""


def prepare(recipe: Recipe, folder: Path) -> Setting:
    """Check all that can be checked before a stage runs, and read the text.

    Args:
        recipe: what is to be done.
        folder: the run it is to be done in.

    Raises:
        InputError: the folder is in use, the device, the model, a student or the text is missing or cannot be
            used, or a ratio leaves the model no legal width.
    """
    refuse_foreign(folder)
    refuse_inside(folder, recipe.model)
    _check_caches(recipe, folder)
    source = inspect_source(recipe.model) if recipe.model is not None else None
    if source is not None:
        _check_source(recipe, source)
        check_caches_fit(recipe, source.vocab_size)
    else:
        _check_limits(recipe, _planned_limits(recipe))
        check_caches_fit(recipe, _made_by_first(recipe).tokenizer.vocab_size)
    _check_first_cut(recipe, outline_of(source) if source is not None else _planned_outline(recipe))
    if _may_lack_device(recipe):
        _resolve_device(recipe)
    tokenizer = None
    if source is not None and any(True for _ in _student_paths(recipe)):
        tokenizer = _tokenizer_of(source)
        check_students(recipe, tokenizer, source.limits, vocab_size=source.vocab_size)
    text = load_text(recipe.data, seed=recipe.seed)
    if source is not None:
        # Not before the text, unless for a student: reading that of a large GGUF file takes seconds.
        tokenizer = tokenizer or _tokenizer_of(source)
        check_text(recipe, text, tokenizer, source.limits)
        if recipe.stages:
            check_stage(recipe.stages[0], ("stages", 0), source, tokenizer, text, seed=recipe.seed)
    return Setting(
        recipe=recipe,
        text=text,
        device=_resolve_device(recipe),
        threads=recipe.evaluation.threads or default_threads(),
        texts={"training text": text_sha256(text.train), "held-out text": text_sha256(text.held_out)},
    )


def prepare_evaluation(recipe: Recipe) -> TextSplit:
    """Check what is to be evaluated, a recipe's `model` that may also be a graph, and read the text.

    Raises:
        InputError: the model or the text is missing or cannot be used.
    """
    assert recipe.model is not None
    if not holds_graph(recipe.model):
        _check_source(recipe, inspect_source(recipe.model))
    return load_held_out(recipe.data, seed=recipe.seed)


def check_caches_fit(recipe: Recipe, vocab_size: int | None) -> None:
    """Check that no teacher is asked for more tokens than its vocabulary, where that is known, has.

    Raises:
        InputError: one is.
    """
    for place, stage in placed_stages(recipe):
        for keys, loss in losses_of(stage):
            if vocab_size is not None:
                with located((*place, *keys)):
                    loss.require_vocabulary(vocab_size)


def check_students(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, limits: Limits, *, vocab_size: int | None
) -> None:
    """Check the students that are files, and that what follows suits them too.

    Args:
        recipe: what is to be done.
        tokenizer: of the model the run begins with.
        limits: what bounds its use.
        vocab_size: rows of its embedding, where known.

    Raises:
        InputError: a student cannot learn from the model, windows are longer than a context, or a cache in
            int8 is asked for that cannot be.
    """
    places = [place for place, _ in placed_stages(recipe)]
    own = {}
    for index, path in _student_paths(recipe):
        try:
            own[index] = check_student(path, tokenizer, vocab_size)
        except InputError as error:
            # The file alone would not say that it is the student, and not the model.
            error.message = f"{error.where}: {error.message}"
            error.where = dotted((*places[index], "student"))
            presets = ", ".join(STUDENT_PRESETS)
            error.remedy = (
                f"{error.remedy}\nA preset ({presets}) or a ROOTS config file can be a student, too."
            )
            raise
    _check_limits(recipe, limits, own)


def check_text(recipe: Recipe, text: TextSplit, tokenizer: PreTrainedTokenizerFast, limits: Limits) -> None:
    """Check that the text fills a window of each length that the recipe asks for.

    Args:
        recipe: what is to be done.
        text: what it is done with.
        tokenizer: of the model the run begins with.
        limits: what bounds its use; calibration windows longer than its context are cut to it.

    Raises:
        InputError: the held-out or the training text is too short.
    """
    held_out_windows(recipe, text, tokenizer)
    lengths: list[tuple[int, Location]] = []
    for place, stage in placed_stages(recipe):
        for keys, training in training_of(stage):
            lengths.append((training.block_size, (*place, *keys, "block_size")))
        if isinstance(stage, PruneConfig | QuantizeConfig):
            length = stage.calibration.block_size
            key = (*place, "calibration", "block_size")
            lengths.append((min(length, limits.max_context or length), key))
    if lengths:
        longest, place = max(lengths, key=itemgetter(0))
        pack(text.train, tokenizer, longest, seed=recipe.seed, limit=1, key=dotted(place))


def held_out_windows(
    recipe: Recipe, text: TextSplit, tokenizer: PreTrainedTokenizerFast
) -> EvaluationWindows:
    """Return the windows that a run's perplexities are measured on, in a tokenizer's tokens.

    Raises:
        InputError: the text does not fill one.
    """
    protocol = recipe.evaluation
    try:
        return evaluation_windows(
            text.held_out, tokenizer, block_size=protocol.block_size, limit=protocol.windows
        )
    except InputError as error:
        if not recipe.data.eval:
            error.where = dotted(("data", "train"))
            error.remedy = (
                f"{error.remedy} Held out is data.eval_fraction of it, {recipe.data.eval_fraction}."
            )
        raise


def _check_source(recipe: Recipe, source: SourceInfo) -> None:
    stages = [stage for _, stage in placed_stages(recipe)]
    if source.quantized and stages:
        raise InputError(
            f"the model is quantized already, and '{stages[0].name}' cannot change quantized weights",
            where=source.path,
            remedy="Name the checkpoint from before quantization.",
        )
    _check_limits(recipe, source.limits)


def _student_paths(recipe: Recipe) -> Iterator[tuple[int, Path]]:
    """Yield the students that are read from files, each with its stage's index among `placed_stages`."""
    for index, (_, stage) in enumerate(placed_stages(recipe)):
        path = student_path(stage.student) if isinstance(stage, DistillConfig) else None
        if path is not None:
            yield index, path


def _check_caches(recipe: Recipe, folder: Path) -> None:
    """Refuse folders for teachers' caches that cannot be made, or that a run may delete.

    Raises:
        InputError: there is such a one.
    """
    for place, stage in placed_stages(recipe):
        for keys, loss in losses_of(stage):
            if loss.cache is None:
                continue
            where = dotted((*place, *keys, "cache"))
            try:
                there = next(path for path in (loss.cache, *loss.cache.parents) if path.exists())
            except OSError as error:  # such as a name too long for a folder
                raise InputError(
                    f"cannot be made: {error.strerror}", where=where, remedy="Name another folder."
                ) from None
            if not there.is_dir():
                raise InputError(f"cannot be made: {there} is a file", where=where, remedy="Name a folder.")
            within = real_path(loss.cache).is_relative_to(real_path(folder))
            if run := folder if within else enclosing_run(loss.cache):
                raise InputError(
                    f"lies in {run}, where stages give way to others",
                    where=where,
                    remedy="Name a folder outside, or leave the cache out: the run then keeps one itself.",
                )


def _tokenizer_of(source: SourceInfo) -> PreTrainedTokenizerFast:
    tokenizer = load_tokenizer(source)
    if source.vocab_size is not None:
        check_vocabulary(tokenizer, source.vocab_size, source.path)
    return tokenizer


def _made_by_first(recipe: Recipe) -> TrainConfig:
    """Return the stage that makes the model of a recipe that names none."""
    first = recipe.stages[0]
    assert isinstance(first, TrainConfig)
    return first


def _planned_limits(recipe: Recipe) -> Limits:
    """Return what bounds the use of the model that the recipe's first stage makes."""
    shape = _made_by_first(recipe).architecture
    return Limits(
        shape.max_position_embeddings, is_fusible(shape.position, shape.attention.kind, [shape.head_dim])
    )


def _check_limits(recipe: Recipe, limits: Limits, students: Mapping[int, Limits] | None = None) -> None:
    """Refuse what the models of a run cannot do.

    Args:
        recipe: what is to be done.
        limits: of the model the run begins with.
        students: of the students that are files, by their stages' indices among `placed_stages`; None where
            they are not read yet.

    Raises:
        InputError: windows are longer than a context, or a cache in int8 cannot be.
    """
    if students is None:
        students = {index: Limits(None, None) for index, _ in _student_paths(recipe)}
    along = [limits]
    for index, (place, stage) in enumerate(placed_stages(recipe)):
        # Choices follow the stages, not one another.
        before = along[min(index, len(recipe.stages))]
        along.append(students.get(index, before))
        if isinstance(stage, QuantizeConfig) and stage.cache == "int8":
            require_fusible(before.fusible is not False, where=dotted((*place, "cache")))
    if limits.max_context is None:
        return  # Loading the model will say what is wrong with its configuration.
    contexts = [each.max_context or limits.max_context for each in along]
    for location, text in context_faults(recipe, contexts):
        raise InputError(
            text, where=dotted(location), remedy="Lower it, or use a model with a longer context."
        )


def _planned_outline(recipe: Recipe) -> Outline:
    """Return the widths of the model that the recipe's first stage makes."""
    shape = _made_by_first(recipe).architecture
    layer = {key: getattr(shape, key) for key in WIDTHS}
    return Outline([layer] * shape.num_layers, shape.hidden_size)


def _check_first_cut(recipe: Recipe, outline: Outline | None) -> None:
    """Refuse ratios that leave the model no legal width, where they meet it in the shape that it begins with.

    Raises:
        InputError: they do; the nearest ratio is named.
    """
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, PruneConfig) and outline is not None:
            with located(("stages", index)):
                plan_ratios(stage, outline.layers, outline.hidden_size)
        if not isinstance(stage, TrainConfig):
            return


def check_stage(
    stage: StageConfig,
    place: Location,
    source: SourceInfo,
    tokenizer: PreTrainedTokenizerFast,
    text: TextSplit,
    *,
    seed: int,
) -> None:
    """Refuse at once what a stage would refuse by the text and the shape of the model it starts from.

    Args:
        stage: its settings.
        place: where in the recipe they stand.
        source: the model it starts from, whose weights are not read.
        tokenizer: of that model.
        text: what it calibrates on.
        seed: the recipe's.

    Raises:
        InputError: the stage cuts or quantizes, and its ratios, its target or its calibration cannot be.
        GateMissedError: no choice of bits meets its budget.
    """
    if not isinstance(stage, PruneConfig | QuantizeConfig):
        return
    from roots_compress.checkpoints.checkpoint import Checkpoint, without_weights
    from roots_compress.stages.prune import stage as pruning
    from roots_compress.stages.quantize import stage as quantization

    checkpoint = Checkpoint(without_weights(source), tokenizer)
    try:
        with located(place):
            if isinstance(stage, PruneConfig):
                pruning.planned(stage, checkpoint, text, seed=seed)
            else:
                quantization.planned(stage, checkpoint, text, seed=seed)
    except RootsError as error:
        error.where = error.where or dotted(place)
        raise


def _may_lack_device(recipe: Recipe) -> bool:
    """Whether the recipe asks for what only a GPU has; whether there is one takes torch to find out."""
    placed = placed_stages(recipe)
    precisions = {training.precision for _, stage in placed for _, training in training_of(stage)}
    return recipe.device == "cuda" or "fp16" in precisions


def _resolve_device(recipe: Recipe) -> str:
    """Return the device that stages compute on, after checking that it has the precisions they ask for."""
    from roots_compress.models.device import resolve_device, resolve_precision

    device = resolve_device(recipe.device)
    for place, stage in placed_stages(recipe):
        for keys, training in training_of(stage):
            with located((*place, *keys)):
                resolve_precision(training.precision, device)
    return device
