"""Bugs of number formats: scales, levels, masks and float16."""

from __future__ import annotations

from tests.planted.bug import Bug, Change, FailingTest

BUGS = (
    Bug(
        "zero-scale",
        "NaN or infinity after int8",
        "A row of zeros gets scale 0, and its levels become 0/0.",
        FailingTest("test_rows_and_groups_of_zeros_keep_scale_one"),
        (Change("rounding._scale", "torch.where(..., extent / levels, 1.0)", "extent / levels"),),
    ),
    Bug(
        "minus-infinity",
        "a mask overflows float16",
        "A padding query that sees no key of its block gets minus infinity everywhere.",
        FailingTest("test_float16_batch_with_a_fully_padded_row_is_finite"),
        (Change("block_attention._attend", "torch.finfo(query_BHtD.dtype).min", "-torch.inf"),),
    ),
    Bug(
        "late-scale",
        "float16 overflows elsewhere",
        "Attention scores are scaled after the product, which overflows before.",
        FailingTest("test_large_products_do_not_overflow_in_float16"),
        (
            Change(
                "top_m_attention",
                "(query_BHTD[:, :, chunk] * scale) @ key_BHSD.mT",
                "(query_BHTD[:, :, chunk] @ key_BHSD.mT) * scale",
            ),
        ),
    ),
    Bug(
        "full-range-levels",
        "integer products saturate",
        "The graph scales inputs to all 255 levels about a zero point of 128: half of the range is cut off.",
        FailingTest("test_every_format_equals_the_checkpoint"),
        (Change("export.weights", "1 / ACTIVATION_LEVELS", "1 / 255"),),
    ),
    Bug(
        "one-scale-for-all",
        "outliers give wrong int8 tokens",
        "Inputs are scaled by the largest of all tokens, so one outlier leaves the others a few levels.",
        FailingTest("test_every_format_equals_the_checkpoint"),
        (
            Change(
                "models.quantized",
                "x.abs().amax(dim=-1, keepdim=True)",
                "x.abs().amax().expand(*x.shape[:-1], 1)",
            ),
        ),
    ),
    Bug(
        "folded-backwards",
        "outliers give wrong int8 tokens",
        "Outliers are divided out of the inputs and of the weights.",
        FailingTest("test_a_folded_model_computes_the_same"),
        (
            Change(
                "BoundInput.fold",
                "linear.weight.mul_(...)",
                "linear.weight.div_(scale_C.to(linear.weight.dtype))",
            ),
        ),
    ),
    Bug(
        "silent-casts",
        "float16 runs through casts",
        "A float16 graph on a CPU, which runs through casts, is not cautioned against.",
        FailingTest("test_float16_on_a_cpu_is_cautioned_against"),
        (
            Change(
                "OnnxEngine.caution",
                "any(kv.dtype == np.float16 for kv in self._key_values)",
                "self._logits_dtype == np.float16",
            ),
        ),
    ),
    Bug(
        "truncated-levels",
        "compression damages the weights",
        "Weights are cut to whole levels where they should be rounded.",
        FailingTest("test_per_row_int8_equals_a_plain_reference"),
        (
            Change(
                "stages.quantize.rounding", "(weight / self.scale).round_()", "(weight / self.scale).trunc_()"
            ),
        ),
    ),
    Bug(
        "swapped-nibbles",
        "compression damages the weights",
        "Of two 4-bit values in a byte the first takes the high half, here and not in ONNX Runtime.",
        FailingTest("test_four_bits_split_as_onnx_runtime_reads_them"),
        (
            Change(
                "pack_nibbles",
                "values[..., 0::2] | (values[..., 1::2] << 4)",
                "values[..., 1::2] | (values[..., 0::2] << 4)",
            ),
            Change("unpack_nibbles", "(packed & 15, packed >> 4)", "(packed >> 4, packed & 15)"),
        ),
    ),
    Bug(
        "unordered-levels",
        "compression damages the weights",
        "Compensated columns stay in the order of their energy.",
        FailingTest("test_gptq"),
        (Change("stages.quantize.gptq", "unordered_CR[order_C] = levels_CR", "unordered_CR[:] = levels_CR"),),
    ),
    Bug(
        "blocks-apart",
        "compression damages the weights",
        "The errors of a block of columns are not made up for by the blocks after it.",
        FailingTest("test_equals_refitting_by_least_squares_after_each_column"),
        (Change("stages.quantize.gptq._compensate", "remaining_CR[stop:].addmm_(...)", ""),),
    ),
)
