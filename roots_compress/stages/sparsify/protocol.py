"""The `sparsify` stage as the pipeline sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from roots_compress.configs.sparsify import SparsifyConfig
from roots_compress.data.documents import TextSplit
from roots_compress.models.limits import Limits
from roots_compress.models.ops.attention import BlockSparse
from roots_compress.models.ops.base import changed
from roots_compress.results import Json
from roots_compress.stages.base import ModelInfo, Stage, StageContext, StageOutcome
from roots_compress.stages.expected import Estimate, Expected, ExpectedModel, least
from roots_compress.stages.sparsify.plan import make_plan
from roots_compress.tasks.figures.figures import percent
from roots_compress.training.summary import harm_in

if TYPE_CHECKING:
    from roots_compress.checkpoints.checkpoint import Checkpoint


class SparsifyStage(Stage[SparsifyConfig]):
    """Gives a dense model block-sparse attention."""

    def check(self, config: SparsifyConfig, info: ModelInfo) -> ModelInfo:
        """Refuse a model whose attention cannot be block-sparse, and numbers that do not suit it."""
        if info.spec is not None:
            make_plan(config, info.spec)
        positions = config.max_positions or info.limits.max_context
        # If the number of blocks is chosen, every layer may stay dense.
        fusible = info.limits.fusible and (False if config.blocks is not None else None)
        return replace(info, limits=Limits(positions, fusible), spec=None, source=None)

    def check_start(self, config: SparsifyConfig, info: ModelInfo, text: TextSplit, *, seed: int) -> None:
        """Refuse a quantized model, and text that is too short."""
        from roots_compress.stages.sparsify.stage import planned

        planned(config, info.without_weights(), text)

    def estimate(self, config: SparsifyConfig, parameters: float, *, device: str) -> Estimate:
        """Count the training, if there is one."""
        return least(parameters, parameters, trained_on=None if config.adaptation is None else device)

    def expect(self, config: SparsifyConfig, before: ExpectedModel) -> Expected:
        """Count the measurements: the dense model, each layer alone, and the bisection."""
        from roots_compress.training.further import judging_passes

        plan = make_plan(config, before.spec)
        layers, length = len(plan.places), min(config.calibration.block_size, plan.max_positions)
        models = layers * max(1.0, math.log2(max(2, plan.blocks_of(length) / config.fewest)))
        measured = 2 if config.blocks is not None else 2 + layers + math.ceil(math.log2(models + 1))
        judging = 0.0 if config.adaptation is None else judging_passes(config.adaptation.training)
        sparse = changed(before.spec, max_positions=plan.max_positions)
        for place in plan.places:
            op = sparse.op(place)
            blocks = BlockSparse(size=plan.size, blocks=config.blocks or config.fewest)
            sparse = sparse.with_op(place, changed(op, sparse=blocks))
        return Expected(
            replace(before, spec=sparse, certain=before.certain and config.blocks is not None),
            passes=measured * config.calibration.windows * length + judging,
        )

    def caption(self, notes: Mapping[str, Json]) -> str | None:
        """Say how many blocks the layers got, and their cost."""
        blocks, before, after = (
            notes.get(key) for key in ("blocks", "dense_perplexity", "sparse_perplexity")
        )
        if not (isinstance(before, float) and isinstance(after, float) and before > 0):
            return None
        if not isinstance(blocks, list):
            return None
        given = [each for each in blocks if isinstance(each, int)]
        if not given:
            return "Every layer stays dense: the bound on perplexity allows no fewer blocks"
        few, many = min(given), max(given)
        number = f"{few}" if few == many else f"{few} to {many}"
        lost = percent(after / before)
        harm = harm_in(notes.get("adaptation"), "Adaptation")
        return (
            f"Of {notes.get('window_blocks')} blocks of {notes.get('size')} keys, a query reads {number} in"
            f" {len(given)} of {len(blocks)} layers; perplexity on long training text {lost}"
            f"{'' if harm is None else f'. {harm}'}"
        )

    def run(self, config: SparsifyConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        from roots_compress.stages.sparsify.stage import sparsify

        return sparsify(config, checkpoint, context)
