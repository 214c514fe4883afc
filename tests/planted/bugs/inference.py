"""Bugs of the forward pass: attention, positions, the KV cache, norms and dropout."""

from __future__ import annotations

from tests.planted.bug import Bug, Change, FailingTest, Guard

BUGS = (
    Bug(
        "cache-off-by-one",
        "the KV cache is wrong",
        "While decoding, a new token stands at the position of the one before it.",
        Guard("check_parity"),
        (
            Change(
                "token_feeds",
                "positions(mask)[:, -input_ids.shape[1]:]",
                "np.maximum(positions(mask)[:, -input_ids.shape[1] :] - (input_ids.shape[1] == 1), 0)",
            ),
        ),
    ),
    Bug(
        "rotated-late",
        "the KV cache is wrong",
        "Keys are cached as they are before rotary positions, and never rotated once cached.",
        FailingTest("test_decoding_through_the_cache_equals_one_forward"),
        (
            Change(
                "AttentionBlock._keys_and_values",
                'self._turned(key_BTGD, "k_norm", context)',
                "key_BTGD.transpose(1, 2)",
            ),
            Change(
                "AttentionBlock._keys_and_values",
                "return key_BGSD, value_BGSD",
                """
if self.spec.rope is not None:
    tokens = x_BTW.shape[1]
    new = rotate(key_BGSD[:, :, -tokens:], context.angles[self.spec.rope, self.spec.head_dim])
    key_BGSD = torch.cat((key_BGSD[:, :, :-tokens], new), dim=2)
return key_BGSD, value_BGSD
""",
            ),
        ),
    ),
    Bug(
        "forgetful-growth",
        "the KV cache is wrong",
        "A cache that has to grow loses the newest token it held.",
        FailingTest("test_the_engine_writes_into_one_cache_until_it_must_grow"),
        (
            Change(
                "OnnxEngine._with_room",
                "buffer[:, :, :held] = ...",
                "buffer[:, :, : held - 1] = value.numpy()[:, :, : held - 1]",
            ),
        ),
    ),
    Bug(
        "padded-positions",
        "positions ignore padding",
        "Padding on the left counts as tokens, so a short prompt in a batch begins later.",
        Guard("check_parity"),
        (
            Change(
                "prompts.positions",
                "np.maximum(...)",
                "np.broadcast_to(np.arange(attention_mask.shape[1]), attention_mask.shape)",
            ),
        ),
    ),
    Bug(
        "padding-seen",
        "positions ignore padding",
        "The mask hides no padding.",
        Guard("check_parity"),
        (
            Change(
                "models.attention",
                "allowed_TS & self.key_valid_BS[:, None, :]",
                "allowed_TS & (self.key_valid_BS | True)[:, None, :]",
            ),
        ),
    ),
    Bug(
        "dropout",
        "dropout in evaluation",
        "The MLP drops a tenth of what it gives, while evaluating as well.",
        Guard("check_parity"),
        (
            Change(
                "MlpBlock.contribution",
                "super().contribution(x_BTW, context)",
                "F.dropout(super().contribution(x_BTW, context), 0.1)",
            ),
        ),
    ),
    Bug(
        "norm-epsilon",
        "the model computes something else",
        "An imported model keeps the usual epsilon of its norms, not its own.",
        FailingTest("test_families.test_logits_equal_transformers"),
        (Change("make_norm", "RMSNorm(width, eps=...)", "RMSNorm(width, eps=1e-5)"),),
    ),
    Bug(
        "interleaved-groups",
        "the model computes something else",
        "Sparse attention repeats key/value heads in turn instead of side by side.",
        FailingTest("test_top_m_equals_brute_force"),
        (
            Change(
                "repeat_heads",
                "tensor_BGSD.repeat_interleave(...)",
                "tensor_BGSD.repeat(1, heads // tensor_BGSD.shape[1], 1, 1)",
            ),
        ),
    ),
    Bug(
        "sees-the-next",
        "the model computes something else",
        "A query sees the token after its own.",
        FailingTest("test_decoding_through_the_cache_equals_one_forward"),
        (Change("models.attention", "distance_TS >= 0", "distance_TS >= -1"),),
    ),
    Bug(
        "documents-seen",
        "distillation scales, directions and padding",
        "Tokens attend across the documents that are packed into one window.",
        FailingTest("test_packed_documents_equal_separate_ones"),
        (
            Change(
                "models.attention",
                "own_BT1 == self.segments_BS[:, None, :]",
                "own_BT1 >= self.segments_BS[:, None, :]",
            ),
        ),
    ),
    Bug(
        "first-stop",
        "the model computes something else",
        "Of several stop tokens only the first ends a text.",
        FailingTest("test_a_stop_token_ends_its_row_alone_and_is_the_last_it_yields"),
        (Change("runtime.generate", "list(stop_tokens)", "list(stop_tokens)[:1]"),),
    ),
)
