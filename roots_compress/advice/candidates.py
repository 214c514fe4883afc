"""What may compress a model, ordered by what it is expected to lose.

The order and the first choice go by what each stage cost and gained on models that were measured:
SmolLM2-135M, MiniLM and the recipes' own (docs/figures/). Another model may differ: its own figures decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from roots_compress.advice.bounds import Bounds
from roots_compress.advice.facts import Facts
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.prune import PruneConfig, RecoveryConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.recipe.schema import StageConfig
from roots_compress.configs.training import TrainingConfig
from roots_compress.errors import InputError, RootsError
from roots_compress.pipeline.forecast.weights import graph_overhead, weight_bytes
from roots_compress.report.text import megabytes
from roots_compress.results import candidate_label
from roots_compress.stages.expected import ExpectedModel
from roots_compress.stages.registry import stage_of

Names = tuple[str, ...]


class Expected(NamedTuple):
    """What a candidate is expected to be, as factors on the model's own figures."""

    bytes: float
    time: float
    """Of the workload that decides."""
    cost: float
    """How many times worse the metric that decides gets."""

    def after(self, other: Expected) -> Expected:
        """Return what the two are one after the other: factors multiply."""
        return Expected(*(a * b for a, b in zip(self, other, strict=True)))


SCHEMES: Final[dict[str, Literal["int8", "int4"]]] = {"int8": "int8", "int4": "int4"}
"""Of the choices that quantize, by their names; each candidate ends with one."""
EXPECTED: Final = {
    "int8": Expected(0.26, 0.55, 1.01),
    "int4": Expected(0.195, 0.42, 1.04),
    "prune-25": Expected(0.85, 0.87, 1.05),
    "prune-50": Expected(0.70, 0.75, 1.25),
    "half": Expected(0.60, 0.55, 1.40),
}
READING: Final = {"int8": Expected(0.26, 0.6, 1.01), "int4": Expected(0.195, 1.0, 1.04)}
"""Of models that read only: 4-bit weights save no time where every product has many rows."""
LISTED: Final[tuple[Names, ...]] = (
    ("int8",),
    ("int4",),
    ("prune-25", "int8"),
    ("prune-25", "int4"),
    ("prune-50", "int8"),
    ("prune-50", "int4"),
    ("half", "int8"),
    ("half", "int4"),
    ("half", "prune-25", "int4"),
)
FILE_SHARE: Final = 0.97
"""Of the bytes that a graph may take, those that its weights may: the rest is the graph itself."""
SMALL: Final = 20_000_000
"""Bytes of a graph below which what it takes besides its weights is measured, and comes to that share."""
NEARLY: Final = 0.95
"""Of the bytes of 8-bit weights: 4-bit weights with so many 8-bit layers gain nothing."""
TRAINING_SHARE: Final = 6
"""A recovery may take one part in so many of a search's time; training a student, two."""
FLOPS_A_THREAD: Final = 25e9
LEAST_STEPS, MOST_STEPS = 20, 200
LEAST_STUDENT_STEPS = 100
"""A student that learns for fewer steps is not worth making."""
BATCH: Final = 4


@dataclass(frozen=True)
class Candidates:
    """The stages to choose from, and the candidates made of them, the least expected loss first."""

    choices: dict[str, StageConfig]
    listed: tuple[Names, ...]
    expected: dict[Names, Expected]
    left_out: dict[Names, str]
    """Why others are not listed."""

    def bytes_of(self, names: Names, facts: Facts) -> int:
        """Return about how many bytes a candidate takes."""
        return round(self.expected[names].bytes * facts.source.stored_bytes)

    def first_within(self, bounds: Bounds, facts: Facts) -> tuple[Names, bool]:
        """Return the first that is expected to keep bounds, or the nearest, and whether it is expected to."""

        def overrun(names: Names) -> float:
            expected = self.expected[names]
            over = [
                bounds.max_bytes and expected.bytes * facts.source.stored_bytes / bounds.max_bytes,
                bounds.min_speedup and expected.time * bounds.min_speedup,
                bounds.max_loss is not None and expected.cost / (1 + bounds.max_loss),
            ]
            return sum(math.log(max(1.0, each)) for each in over if each)

        nearest = min(self.listed, key=overrun)
        return nearest, overrun(nearest) == 0


def candidates_for(facts: Facts, bounds: Bounds, *, minutes: float) -> Candidates:
    """Return what may compress a model; what has no legal shape, or would be too large, is left out.

    Where everything would be too large, the smallest is listed, to show what it costs.

    Args:
        facts: the model and the machine.
        bounds: what the result must keep. Where 8-bit weights are too large, 4-bit ones spend what is left of
            the bytes on 8-bit layers.
        minutes: how long the whole may take, of which training gets its part.
    """
    besides = {name: _besides_weights(facts, bounds, scheme) for name, scheme in SCHEMES.items()}
    choices = _choices(facts, bounds, minutes, besides["int4"])
    listed = LISTED
    if bounds.max_bytes is None and bounds.min_speedup is None and bounds.max_loss is not None:
        # Nothing but the loss is bounded: the smallest model comes first.
        listed = ("int4",), ("int8",)
    effects = EXPECTED | ({} if facts.task.writes else READING)
    expected: dict[Names, Expected] = {}
    left_out: dict[Names, str] = {}
    for names in listed:
        if missing := [name for name in names if name not in choices]:
            left_out[names] = (
                f"to train {missing[0]} needs --max-minutes {math.ceil(_student_minutes(facts)):,} or more"
            )
            continue
        try:
            size = _bytes_of([choices[name] for name in names], facts) + besides[names[-1]]
        except RootsError as error:
            left_out[names] = str(error.message)
            continue
        whole = Expected(1, 1, 1)
        for name in names:
            whole = whole.after(effects[name])
        expected[names] = whole._replace(bytes=size / facts.source.stored_bytes)
    most = math.inf if bounds.max_bytes is None else bounds.max_bytes / facts.source.stored_bytes
    smallest = min((each.bytes for each in expected.values()), default=math.inf)
    for names, each in expected.items():
        other = expected.get((*names[:-1], "int8"))
        if each.bytes > max(most, smallest):
            left_out[names] = f"about {megabytes(each.bytes * facts.source.stored_bytes)} MB"
        elif names[-1] == "int4" and other is not None and NEARLY * other.bytes < each.bytes <= most:
            left_out[names] = f"no smaller than {candidate_label((*names[:-1], 'int8'))}"
    kept = tuple(names for names in expected if names not in left_out)
    if not kept:
        raise InputError(
            "no stage can compress a model of this shape",
            where=facts.source.path,
            remedy="Write a recipe with stages that suit it: roots-compress init",
        )
    used = {name for names in kept for name in names}
    choices = {name: each for name, each in choices.items() if name in used}
    if smallest > most and "int4" in choices:
        # No number of bytes that is allowed can be met: as few as there can be.
        least = {"max_bytes": None, "eight_bit_fraction": 0.0}
        choices["int4"] = choices["int4"].model_copy(update=least)
    return Candidates(choices, kept, expected, left_out)


def may_stay(facts: Facts, bounds: Bounds) -> bool:
    """Return whether the model as it is may keep bounds on its size and its speed, of which there is one."""
    if bounds.max_bytes is None and bounds.min_speedup is None:
        return False
    fits = bounds.max_bytes is None or facts.source.stored_bytes <= bounds.max_bytes
    return fits and (bounds.min_speedup is None or bounds.min_speedup <= 1)


def _bytes_of(stages: Sequence[StageConfig], facts: Facts) -> int:
    """Return the bytes of the weights that stages leave, in their order.

    Raises:
        InputError: one cannot be done.
    """
    model = ExpectedModel(facts.source.spec)
    for stage in stages:
        info = replace(facts.info, spec=model.spec)
        stage_of(stage).check(stage, info)
        model = stage_of(stage).expect(stage, model).model
    return weight_bytes(model)


def _step_seconds(facts: Facts) -> float:
    """Return about how long an optimizer step takes: a teacher reads, and its copy learns."""
    operations = (2 + 6) * facts.source.parameters * BATCH * _window(facts)
    return operations / (facts.machine.threads * FLOPS_A_THREAD)


def _student_minutes(facts: Facts) -> float:
    """Return of how many minutes the part that may train a student is enough for it."""
    return LEAST_STUDENT_STEPS * _step_seconds(facts) * TRAINING_SHARE / 2 / 60


def _window(facts: Facts) -> int:
    return min(256, facts.context)


def _besides_weights(facts: Facts, bounds: Bounds, scheme: Literal["int8", "int4"]) -> int:
    """Return the bytes that a small graph takes besides its weights; 0 where more room is left for that."""
    if bounds.max_bytes is None or bounds.max_bytes >= SMALL:
        return 0
    config = QuantizeConfig(kind="quantize", scheme=scheme)
    with suppress(RootsError):
        model = stage_of(config).expect(config, ExpectedModel(facts.source.spec)).model
        return graph_overhead(model, portable=False)
    return 0


def _choices(facts: Facts, bounds: Bounds, minutes: float, besides: int) -> dict[str, StageConfig]:
    steps = min(max(int(60 * minutes / TRAINING_SHARE / _step_seconds(facts)), LEAST_STEPS), MOST_STEPS)
    training = TrainingConfig(steps=steps, batch_size=BATCH, block_size=_window(facts), learning_rate=2e-4)
    recovery = RecoveryConfig(training=training)
    loss = None if bounds.max_loss is None else round(math.log1p(bounds.max_loss), 4)
    room = None
    if bounds.max_bytes is not None:
        room = max(1, int(FILE_SHARE * bounds.max_bytes) - besides)
    alone = bounds.max_bytes is None and bounds.min_speedup is None and loss is not None
    student_steps = 3 * steps
    choices: dict[str, StageConfig] = {
        "int8": QuantizeConfig(kind="quantize", name="int8", scheme="int8"),
        "int4": QuantizeConfig(
            kind="quantize", name="int4", scheme="int4", max_bytes=room, max_loss=loss if alone else None
        ),
        "prune-25": PruneConfig(kind="prune", name="prune-25", ratio=0.25, recovery=recovery),
        "prune-50": PruneConfig(kind="prune", name="prune-50", ratio=0.5, recovery=recovery),
    }
    with suppress(RootsError):
        if room is not None and _bytes_of([choices["int8"]], facts) <= room:
            # 8 bits fit everywhere: 4 bits are for a model that is smaller and faster still.
            choices["int4"] = choices["int4"].model_copy(update={"max_bytes": None})
    if minutes >= _student_minutes(facts):
        learning = training.model_copy(update={"steps": student_steps, "learning_rate": 1e-3})
        choices["half"] = DistillConfig(kind="distill", name="half", student="small", training=learning)
    return choices
