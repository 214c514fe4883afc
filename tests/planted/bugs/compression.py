"""Bugs of pruning and quantization: what is cut, kept and left out."""

from __future__ import annotations

from tests.planted.bug import Bug, Change, FailingTest, Guard

BUGS = (
    Bug(
        "forgotten-projection",
        "a kind of layer is never quantized",
        "Projections that write to the stream are not among the inputs that quantization walks over.",
        Guard("quantize.stage._check_result"),
        (Change("bound_inputs", "half.block.spec.inputs()", "half.block.spec.inputs()[:1]"),),
    ),
    Bug(
        "ignored-choice",
        "a module is ignored, or quantized anyway",
        "Inputs that are to be kept in higher precision get the usual format like the others.",
        FailingTest("test_int4_keeps_the_dearest_inputs_in_eight_bits"),
        (Change("stages.quantize.plan", "'w8' if name in self.higher else self.usual", "self.usual"),),
    ),
    Bug(
        "mask-only",
        "pruning only masks",
        "MLP channels are set to zero and stay where they are.",
        Guard("prune.stage._check_result"),
        (
            Change(
                "LayerwiseCutter._cut_projection",
                """
keep_units(self.model, ...)
columns = ...
if self.refitted: ...
""",
                """
gone = torch.ones(projection.in_features, dtype=torch.bool)
gone[columns_of(axis, units)] = False
projection.weight[:, gone] = 0
""",
            ),
        ),
    ),
    Bug(
        "stale-widths",
        "a pruned model's config drifts",
        "Dropping layers keeps the first layers' widths and windows, not those of the layers kept.",
        FailingTest("test_dropped_layers_leave_the_others_renumbered_for_the_cache"),
        (
            Change(
                "ModelSpec.with_chosen",
                "tuple(self.layers[index] for index in layers)",
                "self.layers[: len(layers)]",
            ),
        ),
    ),
    Bug(
        "old-numbers",
        "a pruned model's config drifts",
        "Layers keep their old numbers when others leave, and so their places in the KV cache.",
        FailingTest("test_a_cut_model_decodes_as_it_reads"),
        (
            Change(
                "models.resizing",
                "half.block.layer_idx = number",
                "half.block.layer_idx = max(half.block.layer_idx, number)",
            ),
        ),
    ),
    Bug(
        "worst-units",
        "compression damages the weights",
        "The channels that matter least are the ones that stay.",
        FailingTest("test_the_best_units_stay_in_their_order"),
        (Change("best_units", "scores_U.cpu().argsort(...)", "scores_U.cpu().argsort(stable=True)"),),
    ),
    Bug(
        "refit-backwards",
        "compression damages the weights",
        "The refit's correction has the wrong sign.",
        FailingTest("test_without_damping_it_is_least_squares"),
        (
            Change(
                "stages.prune.refit",
                "residual_OK = weight_OC[:, gone] @ ...",
                "residual_OK = -weight_OC[:, gone] @ gram_CC[gone][:, index]",
            ),
        ),
    ),
)
