"""Bugs of specifications, of blocks, of encoders' graphs, and of which task a model is for."""

from __future__ import annotations

from tests.planted.bug import Bug, Change, FailingTest

BUGS = (
    Bug(
        "impossible-experts",
        "the model computes something else",
        "A specification may choose more experts for a token than there are.",
        FailingTest("test_what_cannot_be_is_refused_by_its_key", "Failed"),
        (Change("Moe._enough_experts", "self.chosen > self.experts", "False"),),
    ),
    Bug(
        "norm-left-whole",
        "a pruned model's config drifts",
        "Norms over whole projections do not belong to the heads that are cut.",
        FailingTest("test_norms_over_the_projection_are_cut_with_their_heads"),
        (
            Change(
                "models.ops.attention.Attention.axes",
                "(Member('q_norm.weight', 0, group), Member('k_norm.weight', 0, head))",
                "(Member('q_norm.weight', 0, group),)",
            ),
        ),
    ),
    Bug(
        "one-expert",
        "the model computes something else",
        "A graph sends each token to its best expert alone.",
        FailingTest("compare.test_models.test_a_folder[qwen3_moe-qwen2]", "StageError"),
        (
            Change("export.ops.moe._fused", "op.chosen", "1"),
            Change("export.ops.moe._routed", "builder.integers(op.chosen)", "builder.integers(1)"),
        ),
    ),
    Bug(
        "padding-pooled",
        "the model computes something else",
        "An encoder's graph pools padding into the vectors of texts.",
        FailingTest("test_checkpoint_and_graphs_give_the_source_s_vectors[mean]"),
        (Change("export.encoder._pooled", "builder.op('Mul', hidden_BTW, mask_BT1)", "hidden_BTW"),),
    ),
    Bug(
        "every-task-causal",
        "a figure is of something else",
        "Every model is measured as one that predicts the next token.",
        FailingTest("test_a_model_s_head_names_its_task"),
        (Change("tasks.registry.task_of", "not architectures", "True"),),
    ),
)
