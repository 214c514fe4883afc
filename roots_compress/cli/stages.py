"""The stage verbs: each appends a stage to a run, and goes on from the run's newest checkpoint."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from roots_compress.cli.console import stderr, stdout
from roots_compress.cli.options import CheckpointArgument, RunOptions, TrainingOptions, given, spread_options
from roots_compress.errors import InputError


class Divergence(StrEnum):
    """How a student's distribution is compared with its teacher's."""

    forward_kl = "forward_kl"
    reverse_kl = "reverse_kl"
    jensen_shannon = "jensen_shannon"


class Score(StrEnum):
    """How channels are ranked."""

    activation = "activation"
    magnitude = "magnitude"
    taylor = "taylor"
    obs = "obs"


@spread_options
def train(
    run: RunOptions,
    training: TrainingOptions,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CKPT",
            help="A ROOTS or Hugging Face directory, or a GGUF file. Default: the run's newest checkpoint; "
            "in a new run a new model.",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", help="Entries of a new model's tokenizer. Default: 4096.")
    ] = None,
    min_frequency: Annotated[
        int | None, typer.Option("--min-frequency", help="Pairs seen less often are not merged. Default: 2.")
    ] = None,
    special_token: Annotated[
        list[str] | None,
        typer.Option("--special-token", metavar="TOKEN", help="A further special token; repeatable."),
    ] = None,
    hidden_size: Annotated[
        int | None, typer.Option("--hidden-size", help="Width of a new model. Default: 256.")
    ] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Layers of a new model. Default: 6.")] = None,
) -> None:
    """Pre-train a ROOTS model: a new one as a run's baseline, or go on training a checkpoint."""
    stage = {
        "kind": "train",
        "architecture": given(hidden_size=hidden_size, num_layers=layers),
        "tokenizer": given(
            vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=special_token or None
        ),
        "training": training.settings(),
    }
    _append(stage, run, source=checkpoint)


@spread_options
def distill(
    run: RunOptions,
    training: TrainingOptions,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher",
            metavar="CKPT",
            help="A ROOTS or Hugging Face directory, or a GGUF file. Default: the run's newest checkpoint.",
        ),
    ] = None,
    student: Annotated[
        str, typer.Option("--student", help="`tiny`, `small`, `medium`, a config file or a checkpoint.")
    ] = "small",
    ce_weight: Annotated[
        float | None, typer.Option("--ce-weight", help="Weight of the cross-entropy. Default: 0.1.")
    ] = None,
    divergence_weight: Annotated[
        float | None,
        typer.Option("--divergence-weight", help="Weight of the divergence from the teacher. Default: 0.9."),
    ] = None,
    divergence: Annotated[
        Divergence | None,
        typer.Option(
            "--divergence",
            help="KL(teacher || student), KL(student || teacher), or of both to their mixture. "
            "Default: forward_kl.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Softens both distributions in the divergence. Default: 1."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", help="Ask the teacher once, before training, and cache its k most probable tokens."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="DIR", help="With --top-k: keep the cache here, for other stages and runs."
        ),
    ] = None,
    hidden_weight: Annotated[
        float | None, typer.Option("--hidden-weight", help="Weight of hidden-state matching. Default: 0.")
    ] = None,
    relation_weight: Annotated[
        float | None,
        typer.Option("--relation-weight", help="Weight of attention-relation matching. Default: 0."),
    ] = None,
    on_policy_ratio: Annotated[
        float | None,
        typer.Option("--on-policy-ratio", help="Fraction of batches that the student writes. Default: 0."),
    ] = None,
) -> None:
    """Train a smaller student to match its teacher."""
    from roots_compress.distill.config import STUDENT_PRESETS

    stage = {
        "kind": "distill",
        "student": student if student in STUDENT_PRESETS else str(Path(student).absolute()),
        "loss": given(
            cross_entropy_weight=ce_weight,
            divergence_weight=divergence_weight,
            divergence=divergence.value if divergence else None,
            temperature=temperature,
            top_k=top_k,
            cache=str(cache.absolute()) if cache else None,
            hidden_weight=hidden_weight,
            relation_weight=relation_weight,
            on_policy_ratio=on_policy_ratio,
        ),
        "training": training.settings(),
    }
    _append(stage, run, source=teacher)


@spread_options
def prune(
    run: RunOptions,
    checkpoint: CheckpointArgument = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Fraction of the MLP channels to remove. Default: 0.25.")
    ] = None,
    head_ratio: Annotated[
        float | None,
        typer.Option("--head-ratio", help="Fraction of the key/value groups to remove. Default: 0."),
    ] = None,
    query_ratio: Annotated[
        float | None,
        typer.Option("--query-ratio", help="Fraction of each group's query heads to remove. Default: 0."),
    ] = None,
    layer_ratio: Annotated[
        float | None, typer.Option("--layer-ratio", help="Fraction of whole layers to remove. Default: 0.")
    ] = None,
    residual_ratio: Annotated[
        float | None,
        typer.Option(
            "--residual-ratio", help="Fraction of the residual stream's channels to remove. Default: 0."
        ),
    ] = None,
    target_parameters: Annotated[
        float | None,
        typer.Option(
            "--target-parameters",
            help="In place of ratios: fraction of the parameters outside the embeddings that may stay.",
        ),
    ] = None,
    target_bytes: Annotated[
        int | None,
        typer.Option(
            "--target-bytes", help="In place of ratios: bytes that all weights may take in float32."
        ),
    ] = None,
    target_decode_ms: Annotated[
        float | None,
        typer.Option(
            "--target-decode-ms",
            help="In place of ratios: milliseconds that decoding a token may take in float32 here.",
        ),
    ] = None,
    score: Annotated[
        Score | None, typer.Option("--score", help="How channels and heads are ranked. Default: activation.")
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit", help="Refit the projection after each cut by least squares. Default: refit."
        ),
    ] = None,
    per_layer: Annotated[
        bool,
        typer.Option("--per-layer", help="Let widths differ: each layer's by what it is measured to cost."),
    ] = False,
    recover: Annotated[
        int | None,
        typer.Option(
            "--recover", metavar="STEPS", help="Then train so many steps on what the unpruned model predicts."
        ),
    ] = None,
) -> None:
    """Remove whole channels, heads or layers, and refit what follows them."""
    stage = {
        "kind": "prune",
        **given(
            ratio=ratio,
            head_ratio=head_ratio,
            query_ratio=query_ratio,
            layer_ratio=layer_ratio,
            residual_ratio=residual_ratio,
            target=given(parameters=target_parameters, bytes=target_bytes, decode_ms=target_decode_ms)
            or None,
            score=score.value if score else None,
            refit=refit,
            uniform=False if per_layer else None,
            recovery={"training": {"steps": recover}} if recover is not None else None,
        ),
    }
    _append(stage, run, source=checkpoint)


@spread_options
def quantize(
    run: RunOptions,
    checkpoint: CheckpointArgument = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights and, where it holds up, activations (the default).")
    ] = False,
    int4: Annotated[
        bool, typer.Option("--int4", help="4-bit weights; 8 bits where 4 would cost most.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision.")] = False,
    weights_only: Annotated[
        bool,
        typer.Option("--weights-only", help="With --int8: faster decoding, slower prompts, less lost."),
    ] = False,
    group_size: Annotated[
        int | None,
        typer.Option("--group-size", help="Weights that share a scale: 16, 32, 64, 128. Default: 64."),
    ] = None,
    int8_cache: Annotated[
        bool,
        typer.Option("--int8-cache", help="Cache keys and values in 8 bits: long contexts decode faster."),
    ] = False,
) -> None:
    """Store weights, and where it holds up compute, in fewer bits."""
    chosen = [name for name, wanted in (("int8", int8), ("int4", int4), ("fp16", fp16)) if wanted]
    if len(chosen) > 1:
        raise InputError(f"--{' and --'.join(chosen)} exclude one another", remedy="Choose one of them.")
    scheme = chosen[0] if chosen else "int8"
    if weights_only and scheme != "int8":
        raise InputError(
            f"--weights-only goes with --int8, not with --{scheme}",
            remedy="Leave it out: --int4 and --fp16 never quantize activations.",
        )
    stage = {
        "kind": "quantize",
        "scheme": scheme,
        **given(
            group_size=group_size,
            activations="never" if weights_only else None,
            cache="int8" if int8_cache else None,
        ),
    }
    _append(stage, run, source=checkpoint)


def _append(stage: dict[str, Any], run: RunOptions, *, source: Path | None) -> None:
    from roots_compress.recipe.growth import grow
    from roots_compress.recipe.loading import check_paths

    recipe = grow(run.run, stage, source=source, fresh=run.fresh, settings=run.settings())
    check_paths(recipe)
    from roots_compress.preparation import prepare

    setting = prepare(recipe, run.run)
    from roots_compress.pipeline import run_recipe
    from roots_compress.report.gates import require
    from roots_compress.report.text import table

    metrics = run_recipe(setting, run.run, fresh=run.fresh, console=stderr())
    stdout().print(table(metrics))
    require(metrics.gates, where=str(run.run))
