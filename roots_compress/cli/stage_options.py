"""The options of the stage verbs, each group as the settings that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from roots_compress.cli.options import given
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


@dataclass(frozen=True)
class ModelOptions:
    """A model from scratch, in its size; a recipe has all of its shape."""

    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", help="Entries of a new model's tokenizer. Default: 4096.")
    ] = None
    min_frequency: Annotated[
        int | None, typer.Option("--min-frequency", help="Pairs seen less often are not merged. Default: 2.")
    ] = None
    special_token: Annotated[
        list[str] | None,
        typer.Option("--special-token", metavar="TOKEN", help="A further special token; repeatable."),
    ] = None
    hidden_size: Annotated[
        int | None, typer.Option("--hidden-size", help="Width of a new model. Default: 256.")
    ] = None
    layers: Annotated[int | None, typer.Option("--layers", help="Layers of a new model. Default: 6.")] = None

    def settings(self) -> dict[str, Any]:
        """Return what was given, as a part of a stage."""
        return {
            "architecture": given(hidden_size=self.hidden_size, num_layers=self.layers),
            "tokenizer": given(
                vocab_size=self.vocab_size,
                min_frequency=self.min_frequency,
                special_tokens=self.special_token or None,
            ),
        }


@dataclass(frozen=True)
class LossOptions:
    """What a student learns from the text, and what from its teacher."""

    ce_weight: Annotated[
        float | None, typer.Option("--ce-weight", help="Weight of the cross-entropy. Default: 0.1.")
    ] = None
    divergence_weight: Annotated[
        float | None,
        typer.Option("--divergence-weight", help="Weight of the divergence from the teacher. Default: 0.9."),
    ] = None
    divergence: Annotated[
        Divergence | None,
        typer.Option(
            "--divergence",
            help="KL(teacher || student), KL(student || teacher), or of both to their mixture. "
            "Default: forward_kl.",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Softens both distributions in the divergence. Default: 1."),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", help="Ask the teacher once, before training, and cache its k most probable tokens."
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="DIR", help="With --top-k: keep the cache here, for other stages and runs."
        ),
    ] = None
    hidden_weight: Annotated[
        float | None, typer.Option("--hidden-weight", help="Weight of hidden-state matching. Default: 0.")
    ] = None
    relation_weight: Annotated[
        float | None,
        typer.Option("--relation-weight", help="Weight of attention-relation matching. Default: 0."),
    ] = None
    on_policy_ratio: Annotated[
        float | None,
        typer.Option("--on-policy-ratio", help="Fraction of batches that the student writes. Default: 0."),
    ] = None
    teacher_text_ratio: Annotated[
        float | None,
        typer.Option(
            "--teacher-text-ratio", help="Fraction of training windows that the teacher writes. Default: 0."
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return what was given, as a stage's `loss`."""
        return given(
            cross_entropy_weight=self.ce_weight,
            divergence_weight=self.divergence_weight,
            divergence=self.divergence.value if self.divergence else None,
            temperature=self.temperature,
            top_k=self.top_k,
            cache=str(self.cache) if self.cache else None,
            hidden_weight=self.hidden_weight,
            relation_weight=self.relation_weight,
            on_policy_ratio=self.on_policy_ratio,
            teacher_text_ratio=self.teacher_text_ratio,
        )


@dataclass(frozen=True)
class CutOptions:
    """What pruning removes, by ratios or for a target, and what it does then."""

    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Fraction of the MLP channels to remove. Default: 0.25.")
    ] = None
    head_ratio: Annotated[
        float | None,
        typer.Option("--head-ratio", help="Fraction of the key/value groups to remove. Default: 0."),
    ] = None
    query_ratio: Annotated[
        float | None,
        typer.Option("--query-ratio", help="Fraction of each group's query heads to remove. Default: 0."),
    ] = None
    layer_ratio: Annotated[
        float | None, typer.Option("--layer-ratio", help="Fraction of whole layers to remove. Default: 0.")
    ] = None
    residual_ratio: Annotated[
        float | None,
        typer.Option(
            "--residual-ratio", help="Fraction of the residual stream's channels to remove. Default: 0."
        ),
    ] = None
    target_parameters: Annotated[
        float | None,
        typer.Option(
            "--target-parameters",
            help="In place of ratios: fraction of the parameters outside the embeddings that may stay.",
        ),
    ] = None
    target_bytes: Annotated[
        int | None,
        typer.Option(
            "--target-bytes", help="In place of ratios: bytes that all weights may take in float32."
        ),
    ] = None
    target_decode_ms: Annotated[
        float | None,
        typer.Option(
            "--target-decode-ms",
            help="In place of ratios: milliseconds that decoding a token may take in float32 here.",
        ),
    ] = None
    score: Annotated[
        Score | None, typer.Option("--score", help="How channels and heads are ranked. Default: activation.")
    ] = None
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit", help="Refit the projection after each cut by least squares. Default: refit."
        ),
    ] = None
    per_layer: Annotated[
        bool,
        typer.Option("--per-layer", help="Let widths differ: each layer's by what it is measured to cost."),
    ] = False
    recover: Annotated[
        int | None,
        typer.Option(
            "--recover", metavar="STEPS", help="Then train so many steps on what the unpruned model predicts."
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return what was given, as a part of a stage."""
        return given(
            ratio=self.ratio,
            head_ratio=self.head_ratio,
            query_ratio=self.query_ratio,
            layer_ratio=self.layer_ratio,
            residual_ratio=self.residual_ratio,
            target=self._target() or None,
            score=self.score.value if self.score else None,
            refit=self.refit,
            uniform=False if self.per_layer else None,
            recovery={"training": {"steps": self.recover}} if self.recover is not None else None,
        )

    def _target(self) -> dict[str, Any]:
        return given(
            parameters=self.target_parameters, bytes=self.target_bytes, decode_ms=self.target_decode_ms
        )


@dataclass(frozen=True)
class RoundingOptions:
    """In how many bits weights are stored, and what else is."""

    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights and, where it holds up, activations (the default).")
    ] = False
    int4: Annotated[bool, typer.Option("--int4", help="4-bit weights; 8 bits where 4 would cost most.")] = (
        False
    )
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision.")] = False
    weights_only: Annotated[
        bool,
        typer.Option("--weights-only", help="With --int8: faster decoding, slower prompts, less lost."),
    ] = False
    group_size: Annotated[
        int | None,
        typer.Option("--group-size", help="Weights that share a scale: 16, 32, 64, 128. Default: 64."),
    ] = None
    int8_cache: Annotated[
        bool,
        typer.Option("--int8-cache", help="Cache keys and values in 8 bits: long contexts decode faster."),
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
        scheme = chosen[0] if chosen else None
        if self.weights_only and scheme not in (None, "int8"):
            raise InputError(
                f"--weights-only goes with --int8, not with --{scheme}",
                remedy="Leave it out: --int4 and --fp16 never quantize activations.",
            )
        return given(
            scheme=scheme,
            group_size=self.group_size,
            activations="never" if self.weights_only else None,
            cache="int8" if self.int8_cache else None,
        )
