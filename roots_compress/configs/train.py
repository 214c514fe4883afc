"""Settings of the `train` stage."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.configs.base import PositiveFloat, PositiveInt, Settings, StageName, faults_at
from roots_compress.configs.data import TokenizerConfig
from roots_compress.configs.options import Option
from roots_compress.configs.stage import StageSettings
from roots_compress.configs.training import TrainingConfig
from roots_compress.errors import Location


class SparseAttentionConfig(Settings):
    """Which keys a query attends to: all of them, its `top_m` best, or its best blocks."""

    kind: Literal["dense", "top_m", "block"] = "dense"
    """`dense`: every visible key; `top_m`: the m best keys; `block`: the highest-scoring blocks."""
    top_m: PositiveInt = 64
    """Keys each query attends to, with `kind: top_m`."""
    block_size: PositiveInt | None = None
    """Keys in a block, with `kind: block`; without it, the square root of the context length."""
    num_blocks: PositiveInt = 4
    """Blocks each query attends to, its own included, with `kind: block`."""


class ArchitectureConfig(Settings):
    """The shape of a new model; every layer gets the same widths."""

    recipe_only: ClassVar[str] = (
        "num_attention_heads num_key_value_heads head_dim intermediate_size max_position_embeddings norm "
        "position rope_theta activation gated_mlp attention_bias qk_norm tie_word_embeddings attention"
    )
    hidden_size: PositiveInt = 256
    """Width of a new model's residual stream."""
    num_layers: Annotated[PositiveInt, Option("--layers")] = 6
    """Transformer layers of a new model, or of its decoder."""
    encoder_layers: PositiveInt | None = None
    """Layers of an encoder that the decoder reads: the model then writes a target for each source."""
    num_attention_heads: PositiveInt = 4
    """Query heads in each layer."""
    num_key_value_heads: PositiveInt = 2
    """Key/value heads in each layer; divides the query heads."""
    head_dim: PositiveInt = 64
    """Width of a head; even, as rotary positions need."""
    intermediate_size: PositiveInt = 768
    """Width of the MLP."""
    max_position_embeddings: PositiveInt = 1024
    """The longest context."""
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    """Normalisation before attention and MLP."""
    position: Literal["rotary", "learned", "relative"] = "rotary"
    """Kind of positions. `relative`: each head adds a bias by distance to its scores, as in T5; only with
    `encoder_layers`."""
    rope_theta: PositiveFloat = 10000.0
    """Base of the rotary frequencies."""
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    """Nonlinearity of the MLP."""
    gated_mlp: bool = True
    """Whether the MLP has a gate, which multiplies the up projection."""
    attention_bias: bool = False
    """Biases on the query, key and value projections."""
    qk_norm: bool = False
    """RMS norms on queries and keys."""
    tie_word_embeddings: bool = True
    """Whether the output head shares the embedding's weights."""
    attention: SparseAttentionConfig = SparseAttentionConfig()
    """Dense or sparse attention."""

    @model_validator(mode="after")
    def _must_fit_together(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            fault = (
                f"({self.num_key_value_heads}) must divide num_attention_heads ({self.num_attention_heads})"
            )
            raise faults_at([((), f"num_key_value_heads {fault}")])
        sparse, positions = self.attention, self.max_position_embeddings
        size = sparse.block_size or isqrt(positions)
        if sparse.kind == "block" and sparse.num_blocks > (there := -(-positions // size)):
            fault = (
                f"is {sparse.num_blocks}; a context of {positions} tokens has {there} blocks of {size} keys"
            )
            raise faults_at([(("attention", "num_blocks"), fault)])
        if self.position == "relative" and self.encoder_layers is None:
            raise faults_at([(("position",), "relative is for a model with encoder_layers")])
        if self.encoder_layers is not None and self.attention.kind != "dense":
            raise faults_at([(("attention",), "must be dense with encoder_layers")])
        if self.position == "rotary" and self.head_dim % 2:
            raise faults_at([((), f"head_dim ({self.head_dim}) must be even for rotary positions")])
        return self


class ObjectiveConfig(Settings):
    """The losses that pre-train an encoder, as a weighted sum. A new model is then an encoder."""

    mlm: PositiveFloat = 1.0
    """Weight of masked language modelling. 15% of the tokens are chosen; of these 80% are masked, 10%
    replaced by a random token, 10% kept. With this, `nsp` or `rtd` a new model is an encoder; without any, it
    predicts the next token."""
    nsp: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of next-sentence prediction: whether one part of a text follows another. Half do."""
    rtd: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of replaced-token detection: which tokens a small generator, trained at the same time, has
    replaced."""
    generator: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    """Width of the generator, as a share of the model's."""

    @property
    def whole_micro_batches(self) -> bool:
        """Whether a loss needs whole micro-batches, so that processes cannot divide them."""
        return self.nsp > 0 or self.rtd > 0


DECODER_KEYS = (
    "encoder_layers",
    "num_key_value_heads", "head_dim", "norm", "position", "rope_theta", "activation", "gated_mlp",
    "attention_bias", "qk_norm", "tie_word_embeddings", "attention",
)  # fmt: skip
"""Settings that do not apply to an encoder: it has BERT's shape."""


class TrainConfig(StageSettings):
    """Train a new model, or a checkpoint further, by cross-entropy on text or labels.

    As the first stage of a recipe without `model` it makes a new model and tokenizer, which become the
    run's baseline; later, or with a `model`, it trains the given model further.
    """

    makes_model: ClassVar[bool] = True
    example: ClassVar[str] = "roots-compress train --data text.txt --steps 300"
    kind: Literal["train"] = "train"
    """Names the stage."""
    name: StageName = "train"
    """Label of the row in reports."""
    architecture: ArchitectureConfig = ArchitectureConfig()
    """Shape of a model made from scratch."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Tokenizer of a model made from scratch."""
    objective: ObjectiveConfig | None = None
    """The losses that pre-train an encoder. Without it, the loss is that of the model's task: next tokens,
    masked tokens or labels. A new model is an encoder with it, and a decoder without it."""
    training: TrainingConfig = TrainingConfig()
    """The training loop."""
    text: Literal["run", "builtin"] = "run"
    """The text to train on. `run`: that of the run; `builtin`: Python's documentation, for a run on
    instructions that first trains a model and then tunes it."""

    @property
    def new_context(self) -> int:
        """The longest context of the model that the settings describe."""
        return self.architecture.max_position_embeddings

    @property
    def decodes(self) -> bool:
        """An encoder does not."""
        return self.objective is None

    def faults_in_recipe(self, *, makes_model: bool, portable: bool) -> Iterator[tuple[Location, str]]:
        """Refuse settings of a new model if there is a model already."""
        for key in () if makes_model else ("architecture", "tokenizer"):
            if getattr(self, key) != type(self).model_fields[key].default:
                because = "because this stage goes on training a model that exists already"
                yield (key,), f"would have no effect, {because}"
        if makes_model and self.objective is not None:
            yield from self._faults_of_encoder()

    def _faults_of_encoder(self) -> Iterator[tuple[Location, str]]:
        shape = self.architecture
        for key in DECODER_KEYS:
            if getattr(shape, key) != ArchitectureConfig.model_fields[key].default:
                yield (
                    ("architecture", key),
                    "would have no effect: with an objective a new model has BERT's shape",
                )
        if shape.hidden_size % shape.num_attention_heads:
            heads = shape.num_attention_heads
            yield (
                ("architecture", "hidden_size"),
                f"({shape.hidden_size}) must be a multiple of the {heads} heads",
            )
