"""The `sparsify` stage: measure the cost of blocks for each layer, choose their number, and adapt."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.sparsify import AdaptationConfig, SparsifyConfig
from roots_compress.data.documents import TextSplit
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.windows import EvaluationWindows
from roots_compress.errors import InputError, Key, Text, located
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.attention import Attention, BlockSparse
from roots_compress.models.ops.base import changed
from roots_compress.models.resizing import block_at
from roots_compress.models.working_copy import part_with, sharing_copy
from roots_compress.progress import track
from roots_compress.results import Json, Point
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.sparsify.choice import Blocks, counts, first_within, succession
from roots_compress.stages.sparsify.plan import Plan, make_plan
from roots_compress.tasks.figures.perplexity import perplexity
from roots_compress.tasks.registry import task_of_model
from roots_compress.training.further import teach_further
from roots_compress.training.summary import FitSummary


def sparsify(config: SparsifyConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
    """Return the model with block attention and the decisions; the given checkpoint is not changed.

    Args:
        checkpoint: the dense model; also the teacher of the adaptation.
        context: calibration and adaptation read its training documents.

    Raises:
        InputError: the settings do not suit the model, the model is quantized, or the text is too short.
        StageError: a logit is not finite, or as `teach` raises it.
    """
    plan, windows = planned(config, checkpoint, context.text)
    dense = checkpoint.model.eval()
    model = (sharing_copy(dense) if context.device == "cpu" else copy.deepcopy(dense)).eval()
    model.config.spec = changed(model.config.spec, max_positions=plan.max_positions)
    meter = _Meter(model, plan, windows, context.device)
    notes = _choose(config, meter, context.events)
    curves: dict[str, tuple[Point, ...]] = {}
    if config.adaptation is not None:
        part_with(model, dense)
        # A checkpoint may be stored in half precision; training needs float32, of model and teacher.
        plain = dense.dtype == torch.float32
        teacher = checkpoint if plain else Checkpoint(copy.deepcopy(dense).float(), checkpoint.tokenizer)
        summary = _adapt(config.adaptation, model.float(), teacher, context)
        notes["adaptation"], curves = summary.to_json(), summary.curves
        notes["adapted_perplexity"] = math.exp(meter.measure())
    return StageOutcome(Checkpoint(model, checkpoint.tokenizer), notes, curves=curves)


def planned(
    config: SparsifyConfig, checkpoint: Checkpoint, text: TextSplit
) -> tuple[Plan, EvaluationWindows]:
    """Return the plan for the model, and the long windows to measure on.

    The model's weights are not read: they need no storage.

    Raises:
        InputError: as `sparsify` does.
    """
    model, settings = checkpoint.model, config.calibration
    if model.config.quantization:
        raise InputError(
            "the model is quantized, and no stage changes a quantized model",
            remedy="Make it sparse first, then quantize: give the checkpoint from before quantization.",
        )
    plan = make_plan(config, model.config.spec)
    tokens = min(settings.block_size, plan.max_positions)
    least, there = config.blocks or config.fewest, plan.blocks_of(tokens)
    if there <= least:
        raise InputError(
            f"windows of {tokens} tokens have {there} blocks of {plan.size} keys: with {least} for each query"
            " nothing is left out, and nothing is measured",
            where=Key("calibration", "block_size"),
            remedy=Text(f"Raise it above {least * plan.size}, or lower ", Key("size"), "."),
        )
    windows = evaluation_windows(
        text.train, checkpoint.tokenizer, block_size=tokens, limit=settings.windows, part="train"
    )
    return plan, windows


class _Meter:
    """Measures a model with one number of blocks after another."""

    def __init__(self, model: RootsWithHead, plan: Plan, windows: EvaluationWindows, device: str) -> None:
        self.model, self.plan, self.windows, self.device = model, plan, windows, device
        self.tokens = windows.input_ids.shape[1]
        """Tokens of a window."""
        self._known: dict[Blocks, float] = {}

    def nats(self, blocks: Blocks) -> float:
        """Set the layers' numbers of blocks; return a token's mean negative log-likelihood."""
        for place, count in zip(self.plan.places, blocks, strict=True):
            block, config = block_at(self.model, place), self.model.config
            assert isinstance(block.spec, Attention)
            sparse = None if count is None else BlockSparse(size=self.plan.size, blocks=count)
            block.spec = changed(block.spec, sparse=sparse)
            config.spec = config.spec.with_op(place, block.spec)
        if blocks not in self._known:
            self._known[blocks] = self.measure()
        return self._known[blocks]

    def measure(self) -> float:
        """Return a token's mean negative log-likelihood with the current model."""
        nn.Module.to(self.model, self.device)
        try:
            engine = task_of_model(self.model).serve_model(self.model)
            return perplexity(engine, self.windows).nll_nats / self.windows.scored_tokens
        finally:
            nn.Module.to(self.model, "cpu")


@torch.no_grad()
def _choose(config: SparsifyConfig, meter: _Meter, events: Events) -> dict[str, Json]:
    """Give the model its blocks; return the notes."""
    layers = range(len(meter.plan.places))
    none: Blocks = (None,) * len(layers)
    dense, full = meter.nats(none), meter.plan.blocks_of(meter.tokens)
    costs: list[float] = []
    if config.blocks is not None:
        chosen: Blocks = (config.blocks,) * len(layers)
    else:
        for layer in track(layers, events, "sparsify"):
            alone = (*none[:layer], config.fewest, *none[layer + 1 :])
            costs.append(meter.nats(alone) - dense)
        bound = dense + math.log(config.max_perplexity_ratio)
        models = succession(costs, counts(config.fewest, full))
        chosen = first_within(models, lambda each: meter.nats(each) <= bound)
    return {
        "size": meter.plan.size,
        "blocks": list(chosen),
        "costs": [round(cost, 6) for cost in costs],
        "window_tokens": meter.tokens,
        "window_blocks": full,
        "dense_perplexity": math.exp(dense),
        "sparse_perplexity": math.exp(meter.nats(chosen)),
        "max_positions": meter.plan.max_positions,
    }


def _adapt(
    config: AdaptationConfig, model: RootsWithHead, dense: Checkpoint, context: StageContext
) -> FitSummary:
    """Train the sparse model in place to match the dense one's outputs."""
    with located(("adaptation",)):
        return teach_further(
            model,
            dense,
            context.text,
            task_of_model(model).training_windows,
            config.loss,
            config.training,
            context.training("adaptation"),
        )
