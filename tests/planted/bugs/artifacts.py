"""Bugs of what is read and written: checkpoints, tokenizers and graphs."""

from __future__ import annotations

from tests.planted.bug import Bug, Change, FailingTest, Guard

BUGS = (
    Bug(
        "forgotten-key",
        "a pruned model's config drifts",
        "A field of the specification is left out of config.json, and its default takes its place.",
        Guard("_require_agreement"),
        (
            Change(
                "ops.base.plain",
                "name == 'kind' or field.is_required() or getattr(value, name) != field.default",
                "name == 'kind' or field.is_required() or getattr(value, name) != field.default != 10000.0",
            ),
        ),
    ),
    Bug(
        "dropped-bias",
        "weights left random",
        "Biases of imported projections are passed over, and the new model's own zeros stay.",
        FailingTest("test_families.test_logits_equal_transformers", "InputError"),
        (
            Change(
                "to_roots",
                "sorted(names, ...)",
                "[name for name in sorted(names) if not name.endswith('attn.bias')]",
            ),
        ),
    ),
    Bug(
        "tolerant-load",
        "weights left random",
        "A tensor that the checkpoint lacks is filled with new random numbers.",
        FailingTest("test_checkpoint.test_missing_tensor", "Failed"),
        (
            Change(
                "checkpoint._assemble",
                "if missing := ...: ...",
                """
for name in sorted(expected.keys() - state.keys() - tied):
    state[name] = torch.randn(expected[name].shape)
""",
            ),
        ),
    ),
    Bug(
        "table-twice",
        "tied weights duplicated, or falsely tied",
        "The head of a tied model is written beside the embedding, which it equals.",
        Guard("exporter._check_weights"),
        (Change("export.layers", "EMBEDDING if ... else HEAD", "HEAD"),),
    ),
    Bug(
        "falsely-tied",
        "tied weights duplicated, or falsely tied",
        "A head of its own is left out, and the embedding used in its place.",
        FailingTest("test_logits_equal_the_models_in_prefill_and_at_every_split[qwen2]"),
        (Change("export.layers", "EMBEDDING if ... else HEAD", "EMBEDDING"),),
    ),
    Bug(
        "size-without-data",
        "sizes ignore or overcount external data",
        "The size of a graph is that of model.onnx alone.",
        FailingTest("test_bytes_are_those_of_graph_and_data_alone"),
        (Change("size.graph_bytes", "sum(...)", "graph_files(folder)[0].stat().st_size"),),
    ),
    Bug(
        "batch-of-one",
        "axes are baked in",
        "Logits are given the shape of a batch of one.",
        Guard("check_parity", "InputError"),  # ONNX Runtime sees that the logits do not fit their buffer.
        (
            Change(
                "export.graph",
                "builder.op('Shape', kept_BKW, end=2)",
                """builder.op(
    "Concat", builder.integers(1), builder.op("Shape", kept_BKW, start=1, end=2), axis=0
)""",
            ),
        ),
    ),
    Bug(
        "set-order",
        "exported bytes vary",
        "Values are named after the hash of a string, which Python draws anew in each process.",
        FailingTest("test_the_bytes_do_not_depend_on_the_hash_seed"),
        (
            Change(
                "export.builder",
                "name if outputs == 1 else ...",
                "name if outputs == 1 else f'{name}:{hash(name) % 1000}:{index}'",
            ),
        ),
    ),
    Bug(
        "prefix-space",
        "a tokenizer drifts",
        "A tokenizer is saved as one that puts a space before every text.",
        FailingTest("test_tokenizer_round_trip_keeps_every_id"),
        (
            Change(
                "save_tokenizer",
                "path = directory / TOKENIZER_CONFIG",
                """
text = (directory / TOKENIZER).read_text(encoding="utf-8")
text = text.replace('"add_prefix_space": false', '"add_prefix_space": true', 1)
(directory / TOKENIZER).write_text(text, encoding="utf-8")
path = directory / TOKENIZER_CONFIG
""",
            ),
        ),
    ),
    Bug(
        "another-checkpoint",
        "a figure is of something else",
        "The graph is exported from the checkpoint before the stage.",
        Guard("_require_agreement"),
        (
            Change(
                "pipeline.stage_runner",
                "export_checkpoint(outcome.checkpoint, ...)",
                """export_checkpoint(
    outcome.checkpoint if before is None else load_checkpoint(before.checkpoint),
    workspace.onnx,
    setting.recipe.export,
    release=True,
)""",
            ),
        ),
    ),
    Bug(
        "stale-graph",
        "a figure is of something else",
        "Perplexity is measured through the graph of the stage before.",
        Guard("_require_agreement"),
        (
            Change(
                "pipeline.stage_runner",
                "metrics, samples = measure_quality(task, ...)",
                """metrics, samples = measure_quality(
    task,
    workspace.onnx if before is None else before.onnx,
    lambda: load_checkpoint(workspace.checkpoint).model,
    setting.held_out.examples(tokenizer),
    setting.recipe.evaluation,
    threads=setting.threads,
    first=_first(run) if index else None,
    progress=progress,
)""",
            ),
        ),
    ),
    Bug(
        "path-is-identity",
        "a figure is of something else",
        "A model is known by its path: one that changed there is taken for the one before.",
        FailingTest("test_a_model_edited_while_it_is_imported_is_not_committed", "Failed"),
        (
            Change(
                "pipeline.steps",
                "source_sha256(path, ...)",
                "str(path)",
            ),
        ),
    ),
    Bug(
        "space-kept",
        "a tokenizer drifts",
        "The space behind the special tokens of Phi-3's GGUF files stays in the text.",
        FailingTest("test_a_known_spelling_is_special_and_phi_3s_tokens_take_the_space_behind_them"),
        (
            Change(
                "gguf.vocabulary.add_tokens",
                "AddedToken(token, special=special, normalized=False, rstrip=rstrip)",
                "AddedToken(token, special=special, normalized=False)",
            ),
        ),
    ),
    Bug(
        "nan-agrees",
        "the model computes something else",
        "A graph that gives NaN agrees with its checkpoint.",
        FailingTest("test_a_graph_that_gives_no_numbers_is_found", "Failed"),
        (
            Change(
                "ParityCase.passed",
                "self.difference <= self.tolerance",
                "not self.difference > self.tolerance",
            ),
        ),
    ),
)
