"""Bugs of what is measured and reported, and of the text that it is measured on."""

from __future__ import annotations

from tests.planted.bug import Bug, Change, FailingTest

BUGS = (
    Bug(
        "bos-counted",
        "perplexity over the wrong tokens",
        "The token that opens a window counts among the scored ones.",
        FailingTest("test_uniform_logits_score_exactly_the_vocabulary"),
        (Change("data.windows", "int(self.input_ids[:, 1:].size)", "int(self.input_ids.size)"),),
    ),
    Bug(
        "overlapping-windows",
        "perplexity over the wrong tokens",
        "Windows overlap by half, so most tokens are scored twice.",
        FailingTest("test_each_token_is_scored_once_after_bos"),
        (Change("data.evaluation", "start += stride", "start += stride // 2"),),
    ),
    Bug(
        "other-tokenizer",
        "perplexity across vocabularies",
        "Perplexities of different tokenizers are put side by side.",
        FailingTest("test_other_tokenizers_compare_bits_per_byte_alone"),
        (
            Change(
                "report.comparability",
                "first.tokenizer_sha256 == other.tokenizer_sha256",
                "first.bos == other.bos",
            ),
        ),
    ),
    Bug(
        "no-warm-up",
        "latency lies",
        "The first run of a graph, which packs its weights, is the one that sets the number of runs.",
        FailingTest("test_models_take_turns_after_a_warm_up"),
        (
            Change(
                "evaluation.speed",
                """
timed(label, context, 1)
once = ...
""",
                "once = sum(seconds for _, seconds in timed(label, context, 1))",
            ),
        ),
    ),
    Bug(
        "fixed-order",
        "latency lies",
        "The models are always timed in the same order.",
        FailingTest("test_models_take_turns_after_a_warm_up"),
        (Change("evaluation.speed", "repeat % len(labels)", "0"),),
    ),
    Bug(
        "prompt-in-decode",
        "latency lies",
        "The time to decode includes that of the prompt.",
        FailingTest("test_a_slow_prompt_does_not_slow_decoding"),
        (Change("tasks.causal_lm", "time.perf_counter() - filled", "time.perf_counter() - began"),),
    ),
    Bug(
        "leaking-split",
        "held-out text leaks",
        "Held-out documents stay in the training text.",
        FailingTest("test_a_folder_is_split_by_document"),
        (
            Change(
                "data.corpora",
                "tuple(... for index, document in enumerate(documents) if index not in chosen)",
                "documents",
            ),
        ),
    ),
    Bug(
        "seed-ignored",
        "a figure is of something else",
        "Text is drawn alike, whatever the seed.",
        FailingTest("test_the_seed_decides_what_is_held_out"),
        (
            Change(
                "data.corpora",
                "np.random.default_rng(seed).permutation",
                "np.random.default_rng(0).permutation",
            ),
        ),
    ),
    Bug(
        "mebibytes",
        "a figure is of something else",
        "A table headed MB shows mebibytes.",
        FailingTest("test_a_megabyte_is_a_million_bytes"),
        (
            Change(
                "report.text",
                "f'{count / 1e6:.1f}' if count >= 1e6 else ...",
                "f'{count / 2**20:.1f}' if count >= 1e6 else f'{count / 2**20:.3f}'",
            ),
        ),
    ),
    Bug(
        "infinite-figure",
        "a figure is of something else",
        "A figure without a bound keeps a gate from below.",
        FailingTest("test_a_figure_that_is_no_number_passes_no_gate"),
        (
            Change(
                "report.gates._judged",
                "if found.value is not None and not math.isfinite(found.value): ...",
                "",
            ),
        ),
    ),
)
