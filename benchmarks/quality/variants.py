"""The rows of each table: what is done to a model, and each idea left out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.prune import PruneConfig, RecoveryConfig, TargetConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.training import DistillLossConfig, TrainingConfig

UNCHANGED = "as it is"
"""The row of the model itself."""

Stage = DistillConfig | PruneConfig | QuantizeConfig


@dataclass(frozen=True)
class Table:
    """Rows that are compared with one another."""

    rows: Mapping[str, tuple[Stage, ...]]
    """By name, the stages that a copy of the model goes through."""
    reference: str = UNCHANGED
    """The row that ratios are to."""
    timed: bool = False
    """Whether the rows' graphs are timed too, in turns."""


def _mostly_teacher(**settings: Any) -> DistillLossConfig:
    """Return an objective of nine parts of what the teacher says to one of the text."""
    return DistillLossConfig(cross_entropy_weight=0.1, divergence_weight=0.9, **settings)


# 390 steps of one window of 512 tokens: 200,000 tokens.
RECOVERY = RecoveryConfig(
    training=TrainingConfig(steps=390, batch_size=1, block_size=512, learning_rate=1e-4)
)
FIFTH = TargetConfig(parameters=0.8)

PRUNE = Table(
    {
        "MLP 25%, magnitude": (PruneConfig(ratio=0.25, score="magnitude", refit=False, own_windows=0),),
        "MLP 25%, activation": (PruneConfig(ratio=0.25, score="activation", refit=False),),
        "MLP 25%, activation, refitted": (PruneConfig(ratio=0.25, score="activation"),),
        "MLP 25%, activation, refitted, without own text": (
            PruneConfig(ratio=0.25, score="activation", own_windows=0),
        ),
        "MLP 25%, magnitude, refitted": (PruneConfig(ratio=0.25, score="magnitude"),),
        "MLP 25%, Taylor, refitted": (PruneConfig(ratio=0.25, score="taylor"),),
        "MLP 25%, surgeon": (PruneConfig(ratio=0.25, score="obs", refit=False),),
        "MLP 25%, surgeon, refitted": (PruneConfig(ratio=0.25, score="obs"),),
        "MLP 25%, surgeon, refitted, widths by layer": (PruneConfig(ratio=0.25, score="obs", uniform=False),),
        # As many of SmolLM2's weights as "20% of the body", all of the MLPs'.
        "MLP 27%, surgeon, refitted": (PruneConfig(ratio=0.27, score="obs"),),
        "MLP 27%, surgeon, refitted, widths by layer": (PruneConfig(ratio=0.27, score="obs", uniform=False),),
        "MLP 50%, magnitude": (PruneConfig(ratio=0.5, score="magnitude", refit=False, own_windows=0),),
        "MLP 50%, activation": (PruneConfig(ratio=0.5, score="activation", refit=False),),
        "MLP 50%, activation, refitted": (PruneConfig(ratio=0.5, score="activation"),),
        "MLP 50%, surgeon, refitted": (PruneConfig(ratio=0.5, score="obs"),),
        "MLP 50%, surgeon, refitted, widths by layer": (PruneConfig(ratio=0.5, score="obs", uniform=False),),
        "a third of the key/value groups, surgeon": (PruneConfig(head_ratio=0.33, score="obs", refit=False),),
        "a third of the key/value groups, surgeon, refitted": (PruneConfig(head_ratio=0.33, score="obs"),),
        "a third of the query heads, surgeon, refitted": (PruneConfig(query_ratio=0.33, score="obs"),),
        "10% of the layers": (PruneConfig(layer_ratio=0.1),),
        "residual stream 12.5%": (PruneConfig(residual_ratio=0.125, refit=False),),
        "residual stream 12.5%, refitted": (PruneConfig(residual_ratio=0.125),),
        "residual stream 25%, refitted": (PruneConfig(residual_ratio=0.25),),
        "20% of the body, equal layers": (PruneConfig(target=FIFTH, score="obs"),),
        "20% of the body, by layer": (PruneConfig(target=FIFTH, score="obs", uniform=False),),
        "20% of the body, by layer, without own text": (
            PruneConfig(target=FIFTH, score="obs", uniform=False, own_windows=0),
        ),
    }
)


def _integer(**settings: Any) -> QuantizeConfig:
    """Return int8 with integer products: a row is of one form, whatever a timing would choose."""
    return QuantizeConfig(products="integer", **settings)


QUANTIZE = Table(
    {
        "int8": (_integer(),),
        "int8, with int8 cache": (_integer(cache="int8"),),
        "int8, without own text": (_integer(own_windows=0),),
        "int8, every input in 8 bits": (_integer(activation_loss=None),),
        "int8, every input in 8 bits, with int8 cache": (_integer(activation_loss=None, cache="int8"),),
        "int8, every input in 8 bits, not folded": (_integer(activation_loss=None, fold=False),),
        "int8, not compensated": (_integer(compensate=False),),
        "int8, inputs within 0.0015 nats": (_integer(activation_loss=0.0015),),
        "int8, weights only": (QuantizeConfig(products="float"),),
        "int4": (QuantizeConfig(scheme="int4"),),
        "int4, with int8 cache": (QuantizeConfig(scheme="int4", cache="int8"),),
        "int4, without own text": (QuantizeConfig(scheme="int4", own_windows=0),),
        "int4, not folded": (QuantizeConfig(scheme="int4", fold=False),),
        "int4, not compensated": (QuantizeConfig(scheme="int4", compensate=False),),
        "int4, groups of 32 and fewer 8-bit layers": (
            QuantizeConfig(scheme="int4", group_size=32, eight_bit_fraction=0.08),
        ),
        "int4, every layer in 4 bits": (QuantizeConfig(scheme="int4", eight_bit_fraction=0.0),),
    }
)

RECOVERED = PruneConfig(target=FIFTH, score="obs", uniform=False, recovery=RECOVERY)
# As many tokens, at a rate that updates of low rank want.
RECOVERED_AT_16 = RECOVERED.model_copy(
    update={
        "recovery": RecoveryConfig(
            training=RECOVERY.training.model_copy(update={"learning_rate": 1e-3}), rank=16
        )
    }
)
# As many tokens, half of them of the teacher's writing.
RECOVERED_ON_BOTH = RECOVERED.model_copy(
    update={"recovery": RECOVERY.model_copy(update={"loss": _mostly_teacher(teacher_text_ratio=0.5)})}
)
INT4 = QuantizeConfig(scheme="int4", cache="int8")
# Layers, whose products are small and whose other operators are many, are what decoding waits for. A model
# that has lost so many learns at a higher rate, and from its teacher's hidden states too.
SHALLOW = PruneConfig(
    layer_ratio=0.34,
    ratio=0.2,
    score="obs",
    uniform=False,
    recovery=RecoveryConfig(
        loss=_mostly_teacher(hidden_weight=0.3),
        training=TrainingConfig(steps=1300, batch_size=1, block_size=512, learning_rate=4e-4),
    ),
)
MOSTLY_FOUR_BITS = INT4.model_copy(update={"eight_bit_fraction": 0.1})
CHAIN = Table(
    {
        "20% of the body, recovered": (RECOVERED,),
        "20% of the body, recovered, int4": (RECOVERED, INT4),
        "20% of the body, recovered at rank 16": (RECOVERED_AT_16,),
        "20% of the body, recovered, half on the teacher's text": (RECOVERED_ON_BOTH,),
        "a third of the layers, a fifth of the MLPs, recovered": (SHALLOW,),
        "a third of the layers, a fifth of the MLPs, recovered, int4": (SHALLOW, MOSTLY_FOUR_BITS),
        "10% of the body, int4": (
            PruneConfig(target=TargetConfig(parameters=0.9), score="obs", uniform=False),
            INT4,
        ),
        "int4": (INT4,),
    },
    timed=True,
)

CONTROL = "cross-entropy alone"
LOSSES = {
    CONTROL: DistillLossConfig(cross_entropy_weight=1.0, divergence_weight=0.0),
    "forward KL, a quarter of cross-entropy": DistillLossConfig(),
    "forward KL": _mostly_teacher(),
    "forward KL, top 64 from a cache": _mostly_teacher(top_k=64),
    "forward KL, top 16 from a cache": _mostly_teacher(top_k=16),
    "forward KL, temperature 2": _mostly_teacher(temperature=2.0),
    "forward KL, half cross-entropy": DistillLossConfig(cross_entropy_weight=0.5, divergence_weight=0.5),
    "forward KL, half cross-entropy, hidden states": DistillLossConfig(
        cross_entropy_weight=0.5, divergence_weight=0.5, hidden_weight=0.3
    ),
    "reverse KL": _mostly_teacher(divergence="reverse_kl"),
    "Jensen-Shannon": _mostly_teacher(divergence="jensen_shannon"),
    "forward KL, hidden states": _mostly_teacher(hidden_weight=0.3),
    "Jensen-Shannon, hidden states": _mostly_teacher(divergence="jensen_shannon", hidden_weight=0.3),
    "forward KL, attention relations": _mostly_teacher(relation_weight=1.0),
    "forward KL, a quarter on policy": _mostly_teacher(on_policy_ratio=0.25),
    "forward KL, half on the teacher's text": _mostly_teacher(teacher_text_ratio=0.5),
}


def distill_table(student: str, training: TrainingConfig) -> Table:
    """Return equal students that learn equally long, from a teacher in various ways and without one."""
    return Table(
        {
            name: (DistillConfig(student=student, loss=loss, training=training),)
            for name, loss in LOSSES.items()
        },
        reference=CONTROL,
    )


def with_calibration(stage: Stage, windows: int | None, own_windows: int | None) -> Stage:
    """Return a stage that looks at so many windows of training text, and of its model's own, if at any.

    Args:
        stage: as its row has it.
        windows: of training text; None for as many as the stage has.
        own_windows: of the model's own; likewise.
    """
    if isinstance(stage, DistillConfig):
        return stage
    changes: dict[str, object] = {}
    if windows is not None:
        changes["calibration"] = stage.calibration.model_copy(update={"windows": windows})
    if own_windows is not None and stage.own_windows:
        changes["own_windows"] = own_windows
    return stage.model_copy(update=changes)


def only(table: Table, names: Sequence[str]) -> Table:
    """Return the rows of these names, and the reference; all rows where none is named.

    Raises:
        ValueError: there is no row of such a name.
    """
    if unknown := [name for name in names if name not in table.rows]:
        raise ValueError(f"there is no row {unknown[0]!r}; the rows are {', '.join(map(repr, table.rows))}")
    kept = [name for name in table.rows if not names or name in names or name == table.reference]
    return replace(table, rows={name: table.rows[name] for name in kept})
