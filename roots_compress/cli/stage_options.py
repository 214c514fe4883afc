"""The options of the stage verbs, each group as the settings that it becomes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from roots_compress.cli.options import OptionGroup, Sets
from roots_compress.errors import InputError


class Divergence(StrEnum):
    """How a student's distribution is compared with its teacher's."""

    forward_kl = "forward_kl"
    reverse_kl = "reverse_kl"
    jensen_shannon = "jensen_shannon"


class ServeOn(StrEnum):
    """What kind of processor will serve a model."""

    auto = "auto"
    avx2 = "avx2"
    avx512_vnni = "avx512-vnni"
    amx = "amx"
    arm = "arm"


class Score(StrEnum):
    """How channels are ranked."""

    activation = "activation"
    magnitude = "magnitude"
    taylor = "taylor"
    obs = "obs"


@dataclass(frozen=True)
class ModelOptions(OptionGroup):
    """A model from scratch, in its size; a recipe has all of its shape."""

    vocab_size: Annotated[
        int | None,
        typer.Option("--vocab-size", help="Entries of a new model's tokenizer. Default: 4096."),
        Sets("tokenizer.vocab_size"),
    ] = None
    min_frequency: Annotated[
        int | None,
        typer.Option("--min-frequency", help="Pairs seen less often are not merged. Default: 2."),
        Sets("tokenizer.min_frequency"),
    ] = None
    special_token: Annotated[
        list[str] | None,
        typer.Option("--special-token", metavar="TOKEN", help="A further special token; repeatable."),
        Sets("tokenizer.special_tokens"),
    ] = None
    hidden_size: Annotated[
        int | None,
        typer.Option("--hidden-size", help="Width of a new model. Default: 256."),
        Sets("architecture.hidden_size"),
    ] = None
    layers: Annotated[
        int | None,
        typer.Option("--layers", help="Layers of a new model. Default: 6."),
        Sets("architecture.num_layers"),
    ] = None


@dataclass(frozen=True)
class DistillOptions(OptionGroup):
    """Who learns, and what from the text and from its teacher."""

    student: Annotated[
        str | None,
        typer.Option(
            "--student", help="`tiny`, `small`, `medium`, a config file or a checkpoint. Default: small."
        ),
        Sets("student"),
    ] = None

    ce_weight: Annotated[
        float | None,
        typer.Option("--ce-weight", help="Weight of the cross-entropy. Default: 0.25."),
        Sets("loss.cross_entropy_weight"),
    ] = None
    divergence_weight: Annotated[
        float | None,
        typer.Option("--divergence-weight", help="Weight of the divergence from the teacher. Default: 0.75."),
        Sets("loss.divergence_weight"),
    ] = None
    divergence: Annotated[
        Divergence | None,
        typer.Option(
            "--divergence",
            metavar="NAME",
            help="forward_kl: KL(teacher || student); reverse_kl: KL(student || teacher); jensen_shannon: "
            "of both to their mixture. Default: forward_kl.",
        ),
        Sets("loss.divergence"),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Softens both distributions in the divergence. Default: 1."),
        Sets("loss.temperature"),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", help="Ask the teacher once, before training, and cache its k most probable tokens."
        ),
        Sets("loss.top_k"),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="DIR", help="With --top-k: keep the cache here, for other stages and runs."
        ),
        Sets("loss.cache"),
    ] = None
    hidden_weight: Annotated[
        float | None,
        typer.Option("--hidden-weight", help="Weight of hidden-state matching. Default: 0."),
        Sets("loss.hidden_weight"),
    ] = None
    relation_weight: Annotated[
        float | None,
        typer.Option("--relation-weight", help="Weight of attention-relation matching. Default: 0."),
        Sets("loss.relation_weight"),
    ] = None
    on_policy_ratio: Annotated[
        float | None,
        typer.Option("--on-policy-ratio", help="Fraction of batches that the student writes. Default: 0."),
        Sets("loss.on_policy_ratio"),
    ] = None
    teacher_text_ratio: Annotated[
        float | None,
        typer.Option(
            "--teacher-text-ratio", help="Fraction of training windows that the teacher writes. Default: 0."
        ),
        Sets("loss.teacher_text_ratio"),
    ] = None


@dataclass(frozen=True)
class CutOptions(OptionGroup):
    """What pruning removes, by ratios or for a target, and what it does then."""

    ratio: Annotated[
        float | None,
        typer.Option(
            "--ratio",
            help="Fraction of the MLP channels to remove. Default: 0.25 without other ratios and targets.",
        ),
        Sets("ratio"),
    ] = None
    head_ratio: Annotated[
        float | None,
        typer.Option("--head-ratio", help="Fraction of the key/value groups to remove. Default: 0."),
        Sets("head_ratio"),
    ] = None
    query_ratio: Annotated[
        float | None,
        typer.Option("--query-ratio", help="Fraction of each group's query heads to remove. Default: 0."),
        Sets("query_ratio"),
    ] = None
    layer_ratio: Annotated[
        float | None,
        typer.Option("--layer-ratio", help="Fraction of whole layers to remove. Default: 0."),
        Sets("layer_ratio"),
    ] = None
    residual_ratio: Annotated[
        float | None,
        typer.Option(
            "--residual-ratio", help="Fraction of the residual stream's channels to remove. Default: 0."
        ),
        Sets("residual_ratio"),
    ] = None
    target_parameters: Annotated[
        float | None,
        typer.Option(
            "--target-parameters",
            help="In place of ratios: fraction of the parameters outside the embeddings that may stay.",
        ),
        Sets("target.parameters"),
    ] = None
    target_bytes: Annotated[
        int | None,
        typer.Option(
            "--target-bytes", help="In place of ratios: bytes that all weights may take in float32."
        ),
        Sets("target.bytes"),
    ] = None
    target_decode_ms: Annotated[
        float | None,
        typer.Option(
            "--target-decode-ms",
            help="In place of ratios: milliseconds that decoding a token may take in float32 here.",
        ),
        Sets("target.decode_ms"),
    ] = None
    score: Annotated[
        Score | None,
        typer.Option(
            "--score",
            metavar="SCORE",
            help="How channels and heads are ranked: activation, magnitude, taylor or obs. "
            "Default: activation.",
        ),
        Sets("score"),
    ] = None
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit", help="Refit the projection after each cut by least squares. Default: refit."
        ),
        Sets("refit"),
    ] = None
    per_layer: Annotated[
        bool,
        typer.Option("--per-layer", help="Let widths differ: each layer's by what it is measured to cost."),
        Sets("uniform", to=False),
    ] = False
    recover: Annotated[
        int | None,
        typer.Option(
            "--recover", metavar="STEPS", help="Then train so many steps on what the unpruned model predicts."
        ),
        Sets("recovery.training.steps"),
    ] = None


@dataclass(frozen=True)
class RoundingOptions(OptionGroup):
    """In how many bits weights are stored, and what else is."""

    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="8-bit weights, with integer products or weights only: what serves --workload sooner on "
            "--serve-on, timed for some seconds (the default).",
        ),
        Sets("scheme", to="int8"),
    ] = False
    int4: Annotated[
        bool,
        typer.Option("--int4", help="4-bit weights; 8 bits where 4 would cost most."),
        Sets("scheme", to="int4"),
    ] = False
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision."), Sets("scheme", to="fp16")] = False
    weights_only: Annotated[
        bool,
        typer.Option(
            "--weights-only", help="With --int8, untimed: faster decoding, slower prompts, less lost."
        ),
        Sets("products", to="float"),
    ] = False
    integer_products: Annotated[
        bool,
        typer.Option(
            "--integer-products", help="With --int8, untimed: faster prompts, slower decoding, smaller files."
        ),
        Sets("products", to="integer"),
    ] = False
    serve_on: Annotated[
        ServeOn | None,
        typer.Option(
            "--serve-on",
            metavar="PROCESSOR",
            help="With --int8: what will serve it: auto (this machine), avx2, avx512-vnni, amx or arm. "
            "Default: auto.",
        ),
        Sets("serve_on"),
    ] = None
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload",
            metavar="READ:WRITE",
            help="With --int8: tokens read and written that are to take the least time. Default: 512:128.",
        ),
        Sets("workload"),
    ] = None
    group_size: Annotated[
        int | None,
        typer.Option("--group-size", help="Weights that share a scale: 16, 32, 64, 128. Default: auto."),
        Sets("group_size"),
    ] = None
    int8_cache: Annotated[
        bool,
        typer.Option("--int8-cache", help="Cache keys and values in 8 bits: long contexts decode faster."),
        Sets("cache", to="int8"),
    ] = False

    def settings(self) -> dict[str, Any]:
        """Return what was given, as a part of a stage.

        Raises:
            InputError: options contradict one another.
        """
        schemes = {"int8": self.int8, "int4": self.int4, "fp16": self.fp16}
        chosen = [name for name, wanted in schemes.items() if wanted]
        if len(chosen) > 1:
            raise InputError(f"--{' and --'.join(chosen)} exclude one another", remedy="Choose one of them.")
        forced = {"--weights-only": self.weights_only, "--integer-products": self.integer_products}
        forms = [option for option, wanted in forced.items() if wanted]
        if len(forms) > 1:
            raise InputError(f"{' and '.join(forms)} exclude one another", remedy="Choose one of them.")
        timed = [option for option, _, _ in self.given() if option in ("--serve-on", "--workload")]
        for option in (*forms, *timed):
            if chosen not in ([], ["int8"]):
                raise InputError(
                    f"{option} goes with --int8, not with --{chosen[0]}",
                    remedy="Leave it out: --int4 and --fp16 never quantize activations.",
                )
        if forms and timed:
            raise InputError(
                f"{timed[0]} says what to choose by, and {forms[0]} leaves nothing to choose",
                remedy="Leave one of them out.",
            )
        settings = super().settings()
        return settings if self.workload is None else {**settings, "workload": _workload(self.workload)}


def _workload(text: str) -> dict[str, int]:
    """Return the tokens read and written of `READ:WRITE`.

    Raises:
        InputError: it is of another form.
    """
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text, re.ASCII)
    if found is None:
        raise InputError(
            f"{text[:60]!r} is not of the form READ:WRITE, two whole numbers",
            where="--workload",
            remedy="For example: --workload 512:128",
        )
    return {"read": int(found[1]), "write": int(found[2])}
