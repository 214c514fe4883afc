"""The `prune` stage as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from roots_compress.configs.prune import PruneConfig, TargetConfig
from roots_compress.data.documents import TextSplit
from roots_compress.errors import InputError
from roots_compress.models.spec import ModelSpec
from roots_compress.results import Json
from roots_compress.stages.base import ModelInfo, Stage, StageContext, StageOutcome
from roots_compress.stages.expected import FLOAT_BYTES, SHORT, Estimate, Expected, ExpectedModel, Small, least
from roots_compress.stages.prune.plan import adapted, narrowed, plan_ratios
from roots_compress.stages.prune.targets.shapes import make_plan, parameters_to_save
from roots_compress.training.summary import harm_in

if TYPE_CHECKING:
    from roots_compress.checkpoints.checkpoint import Checkpoint


TRIALS = 24
"""Ratios that are tried for a target, by bisection."""


def planned_spec(config: PruneConfig, spec: ModelSpec) -> ModelSpec:
    """Return the shape for ratios; for a target, equally narrower feed-forward blocks that meet it.

    Which layers are removed depends on measurements; here the last of each stack are.

    Raises:
        InputError: the ratios leave no legal width.
    """
    if config.target is None:
        return _cut(config, spec)
    if config.target.decode_ms is not None:
        return spec  # Only timing shows how much must be removed.
    needed = parameters_to_save(config.target, spec, multiple_of=config.multiple_of)
    wanted = spec.parameters - needed
    low, high, best = 0.0, 1.0, spec
    for _ in range(TRIALS):
        ratio = (low + high) / 2
        trial = config.model_copy(update={"target": None, "ratio": ratio})
        try:
            cut = _cut(trial, spec)
        except InputError:
            # The nearest legal width is on the other side.
            low, high = (ratio, high) if ratio < 1 / 2 else (low, ratio)
            continue
        if cut.parameters <= wanted:
            best, high = cut, ratio
        else:
            low = ratio
    return best if best.parameters < spec.parameters else _fewer_layers(spec, wanted)


def _cut(config: PruneConfig, spec: ModelSpec) -> ModelSpec:
    plan = plan_ratios(config, spec)
    layers = tuple(narrowed(layer, target) for layer, target in zip(spec.layers, plan.targets, strict=True))
    chosen: list[int] = []
    for first, count in zip((0, spec.begins), plan.layers, strict=False):
        chosen += range(first, first + count)
    return spec.with_layers(layers).with_chosen(chosen).with_embeddings(width=plan.hidden_size)


def _fewer_layers(spec: ModelSpec, wanted: int) -> ModelSpec:
    """Return the model without enough of its last layers to meet the number of parameters."""
    count = len(spec.layers) - spec.begins
    while count > 1:
        count -= 1
        cut = spec.with_chosen([*range(spec.begins + count)])
        if cut.parameters <= wanted:
            return cut
    return spec


TIMED_GRAPHS = 3
"""Least memory of the graphs timed for a target in milliseconds, relative to the model."""


class PruneStage(Stage[PruneConfig]):
    """Removes units of a model, and refits the projections that read them."""

    def check(self, config: PruneConfig, info: ModelInfo) -> ModelInfo:
        """Refuse ratios or a target without a legal shape; with ratios, the resulting shape is known."""
        spec = None
        if info.spec is not None:
            adapted_config = adapted(config, info.spec)
            make_plan(adapted_config, info.spec)
            if adapted_config.target is None and adapted_config.uniform:
                spec = planned_spec(adapted_config, info.spec)
        return replace(info, spec=spec, source=None)

    def check_start(self, config: PruneConfig, info: ModelInfo, text: TextSplit, *, seed: int) -> None:
        """Refuse impossible ratios, targets, ranks or calibrations."""
        from roots_compress.stages.prune.stage import planned

        checkpoint = info.without_weights()
        planned(adapted(config, checkpoint.model.config.spec), checkpoint, text, seed=seed)

    def estimate(self, config: PruneConfig, parameters: float, *, device: str) -> Estimate:
        """Count the cut model, its recovery, and the graphs that are timed for a target in milliseconds."""
        recovery = config.recovery
        # Updates of low rank need next to nothing.
        trains = recovery is not None and recovery.rank is None
        estimate = least(parameters, _left(config, parameters), trained_on=device if trains else None)
        if config.target is None or config.target.decode_ms is None:
            return estimate
        # The model and smaller ones are run in turns to be timed.
        timed = TIMED_GRAPHS * FLOAT_BYTES * parameters
        return replace(
            estimate,
            working=max(estimate.working, timed),
            memory=max(estimate.memory, FLOAT_BYTES * parameters + timed),
        )

    def expect(self, config: PruneConfig, before: ExpectedModel) -> Expected:
        """Return the shape for ratios, or the likeliest shape that meets a target."""
        from roots_compress.stages.prune.expected_cost import FAST_CUTTING, phases_of
        from roots_compress.training.further import judging_passes

        spec = before.spec
        config = adapted(config, spec)
        length = min(config.calibration.block_size, spec.max_positions)
        windows = config.calibration.windows
        made = ExpectedModel(
            planned_spec(config, spec), certain=config.target is None and config.uniform and before.certain
        )
        tokens = (windows + config.own_windows) * length
        phases = phases_of(config, windows, length)
        del phases["writing text"]
        fast = FAST_CUTTING * tokens
        judging = 0.0 if config.recovery is None else judging_passes(config.recovery.training)
        return Expected(
            made,
            passes=sum(phases.values()) - fast + judging,
            fast_passes=fast,
            writes=(config.own_windows, length),
            held_bytes=FLOAT_BYTES * tokens * spec.width,
        )

    def in_small(self, config: PruneConfig, small: Small) -> PruneConfig:
        """Set a layer ratio or a target that a model of few layers can meet."""
        less, changes = small.lessened(config, shortest=SHORT), dict[str, object]()
        if less.calibration.windows * less.calibration.block_size >= small.tokens:
            changes["own_windows"] = min(1, config.own_windows)
        if config.layer_ratio:
            changes["layer_ratio"] = 0.5
        if config.target is not None:
            # Bytes and milliseconds apply to the whole model.
            changes["target"] = TargetConfig(parameters=config.target.parameters or 0.75)
        return less.model_copy(update=changes)

    def caption(self, notes: Mapping[str, Json]) -> str | None:
        return harm_in(notes.get("recovery"), "Recovery")

    def run(self, config: PruneConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        from roots_compress.stages.prune.stage import prune

        return prune(config, checkpoint, context)


def _left(config: PruneConfig, parameters: float) -> float:
    """Return the fewest parameters that pruning may leave, embeddings counted as if they shrank too."""
    if config.target is not None:
        # The result may be a channel below the target, which is negligible here.
        wanted = config.target.parameters
        return wanted * parameters if wanted is not None else (config.target.bytes or 0) / FLOAT_BYTES
    heads = (1 - config.head_ratio) * (1 - config.query_ratio)
    outer = (1 - config.layer_ratio) * (1 - config.residual_ratio)
    return (1 - config.ratio) * (1 - config.expert_ratio) * heads * outer * parameters
