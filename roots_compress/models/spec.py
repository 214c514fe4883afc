"""The specification of a model by its blocks: typed, frozen and torch-free.

`config.json` of a checkpoint is its JSON (version 2). A model is one stack of layers, or an encoder and a
decoder that reads its output; layers are numbered in running order, the encoder's first. A layer is a
sequence of sublayers; a sublayer adds its block's output to the residual stream:

    x + post_norm(block(pre_norm(x)))       then stream_scale times the sum, and stream_norm of it, if any

The output of a `parallel` one is added together with that of the next one, which reads the same stream.

Layers may differ in every number and every switch, so a pruned model is an ordinary one. All checks of a
model are here and in `ops/`; other code reads switches only from the specification.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import Count, Matrix, OpSpec, Part, State, changed, first_fault, plain
from roots_compress.models.ops.heads import (
    ClassificationHead,
    EmbeddingHead,
    LmHead,
    MaskedLmHead,
    ScoreHead,
    Seq2SeqHead,
    TokenClassificationHead,
)
from roots_compress.models.ops.mlp import LayerInput
from roots_compress.models.ops.stack import Layer as Layer
from roots_compress.models.ops.stack import Stack as Stack
from roots_compress.models.ops.stream import Embeddings as Embeddings
from roots_compress.models.ops.stream import Norm as Norm

Head = Annotated[
    LmHead
    | MaskedLmHead
    | ClassificationHead
    | ScoreHead
    | TokenClassificationHead
    | EmbeddingHead
    | Seq2SeqHead,
    Field(discriminator="kind"),
]


class Place(NamedTuple):
    """The place of a block."""

    layer: int
    """Number of its layer, in running order."""
    name: str


class ModelSpec(Part):
    """A whole model."""

    stacks: Mapping[Literal["decoder", "encoder"], Stack]
    embeddings: Embeddings
    head: Head = LmHead()
    tied: bool = True
    """Whether the head and the embedding share one matrix."""
    max_positions: Count
    """Longest text, in tokens."""

    @model_validator(mode="after")
    def _stacks_fit(self) -> Self:
        if not self.stacks:
            raise ValueError("stacks is empty: a model has a decoder, an encoder, or both")
        both = self.source is not None
        if both != isinstance(self.head, Seq2SeqHead):
            raise ValueError(
                "an encoder and a decoder together have the head 'seq2seq_lm', and no other model has"
            )
        if self.embeddings.tables is not None and self.stacks.keys() != {"encoder"}:
            raise ValueError("embeddings.tables is for an encoder alone")
        wanted = self.embeddings.layer_inputs
        reading = [[each.op for each in layer if isinstance(each.op, LayerInput)] for layer in self.layers]
        if wanted is not None and (self.stacks.keys() != {"decoder"} or not all(reading)):
            raise ValueError("embeddings.layer_inputs is for a decoder alone, each layer of which reads them")
        for read in (op for each in reading for op in each):
            if wanted is None or read.channels != wanted.channels:
                raise ValueError("a layer reads other layer_inputs than the embeddings hold")
        for place, op in self.blocks():
            if (
                isinstance(op, Attention)
                and op.source == "cross"
                and not (both and place.layer >= self.begins)
            ):
                raise ValueError("cross-attention is for a decoder that reads an encoder's output")
        return self

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> ModelSpec:
        """Return the specification that JSON values describe.

        Raises:
            ValueError: the first fault in them, with its key.
        """
        try:
            return cls.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            raise ValueError(first_fault(error)) from None

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON values; fields that have their defaults are left out."""
        values: dict[str, Any] = plain(self)
        return values

    @property
    def stack(self) -> Stack:
        """The stack under the head: the only one, or the decoder."""
        return self.stacks["decoder" if "decoder" in self.stacks else "encoder"]

    @property
    def source(self) -> Stack | None:
        """The encoder that the decoder's cross-attention reads; None in a model of one stack."""
        return self.stacks["encoder"] if len(self.stacks) == 2 else None

    @property
    def begins(self) -> int:
        """The number of the first layer of `stack`, which is the number of the encoder's layers."""
        return 0 if self.source is None else len(self.source.layers)

    @property
    def running(self) -> tuple[Stack, ...]:
        """The stacks in the order in which they run."""
        return (self.stack,) if self.source is None else (self.source, self.stack)

    @property
    def lm_head(self) -> LmHead:
        """The head of a model that predicts the next token.

        Raises:
            ValueError: the model has another kind of head.
        """
        if not isinstance(self.head, LmHead):
            raise ValueError(f"the model does not predict the next token; its head is {self.head.kind}")
        return self.head

    @property
    def is_endless(self) -> bool:
        """Whether positions enter by distances alone, so that the length is unlimited."""
        own = (each for each in self.attentions() if each.source == "self")
        return self.embeddings.positions is None and all(each.relative is not None for each in own)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, in the order in which they run."""
        return tuple(layer for stack in self.running for layer in stack.layers)

    @property
    def needed(self) -> frozenset[int]:
        """Numbers of the layers whose keys and values other layers take."""
        return frozenset(self.begins + index for index in self.stack.needed)

    def layer_path(self, index: int) -> str:
        """Return the name of a layer's module, the prefix of its tensors' names."""
        if index < self.begins:
            return f"{ENCODER}.layers.{index}"
        return f"model.layers.{index - self.begins}"

    def path(self, place: Place) -> str:
        """Return the name of a block's module."""
        return f"{self.layer_path(place.layer)}.{place.name}"

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.embeddings.width

    @property
    def body_parameters(self) -> int:
        """Parameters of the layers and of the norms after them."""
        norms = [stack.final_norm for stack in self.running if stack.final_norm is not None]
        found = sum(sublayer.parameters(self.width) for layer in self.layers for sublayer in layer)
        return found + sum(norm.parameters(self.width) for norm in norms)

    @property
    def parameters(self) -> int:
        """Parameters of the whole model; a shared matrix counts once."""
        each = self.embeddings
        begins = len(self.stacks) * each.parameters
        tables = (1 if self.tied else 2) * self.table_weights
        head = self.head.parameters(self.width, each.table_width, each.vocabulary)
        own = self.layer_input_channels * (each.vocabulary + self.width)
        own += 0 if each.layer_inputs is None else each.layer_inputs.channels
        return tables + begins + self.body_parameters + head + own

    @property
    def layer_input_channels(self) -> int:
        """Channels of the per-layer embeddings of all layers together."""
        inputs = self.embeddings.layer_inputs
        return 0 if inputs is None else inputs.channels * len(self.layers)

    @property
    def table_weights(self) -> int:
        """Weights in the tokens' table; twice as many with an untied head that predicts tokens."""
        return self.embeddings.vocabulary * self.embeddings.table_width

    def blocks(self) -> Iterator[tuple[Place, OpSpec]]:
        """Yield every block with its place, in running order."""
        for index, layer in enumerate(self.layers):
            for sublayer in layer:
                yield Place(index, sublayer.name), sublayer.op

    def states(self) -> tuple[State, ...]:
        """Return the cached states of the stack under the head, in running order."""
        layers = enumerate(self.stack.layers)
        return tuple(state for index, layer in layers for each in layer for state in each.op.states(index))

    def attentions(self) -> tuple[Attention, ...]:
        """Return every attention, in running order."""
        return tuple(op for _, op in self.blocks() if isinstance(op, Attention))

    def op(self, place: Place) -> OpSpec:
        """Return the block at a place."""
        return next(each.op for each in self.layers[place.layer] if each.name == place.name)

    def matrices(self) -> dict[str, Matrix]:
        """Return every matrix that may be quantized, by module name: the tables, then the layers'."""
        table = Matrix(self.embeddings.vocabulary, self.embeddings.table_width, False)
        found = {EMBEDDING: table}
        if self.head.predicts_tokens and not self.tied:
            found[HEAD] = table
        if channels := self.layer_input_channels:
            found[LAYER_TABLE] = Matrix(self.embeddings.vocabulary, channels, False)
            found[LAYER_PROJECTION] = Matrix(channels, self.width, False)
        for place, op in self.blocks():
            found |= {f"{self.path(place)}.{name}": each for name, each in op.matrices(self.width).items()}
        return found

    def with_layers(self, layers: tuple[Layer, ...], *, begins: int | None = None) -> ModelSpec:
        """Return the specification with other layers.

        Args:
            layers: in running order.
            begins: how many of them belong to the encoder before a decoder; None: as many as now.
        """
        first = self.begins if begins is None else begins
        stacks = {
            name: changed(stack, layers=layers[first:] if stack is self.stack else layers[:first])
            for name, stack in self.stacks.items()
        }
        return changed(self, stacks=stacks)

    def with_chosen(self, layers: Sequence[int]) -> ModelSpec:
        """Return the specification with only these layers, by their numbers in rising order."""
        chosen = tuple(self.layers[index] for index in layers)
        return self.with_layers(chosen, begins=sum(index < self.begins for index in layers))

    def with_op(self, place: Place, op: OpSpec) -> ModelSpec:
        """Return the specification with another block at a place."""
        layer = tuple(
            changed(each, op=op) if each.name == place.name else each for each in self.layers[place.layer]
        )
        return self.with_layers((*self.layers[: place.layer], layer, *self.layers[place.layer + 1 :]))

    def with_embeddings(self, **changes: Any) -> ModelSpec:
        """Return the specification with other values for its embeddings."""
        return changed(self, embeddings=changed(self.embeddings, **changes))


EMBEDDING, HEAD, ENCODER = "model.embed_tokens", "lm_head", "model.encoder"
"""The modules of the token embedding, of the output head, and of the encoder before a decoder."""
LAYER_TABLE, LAYER_PROJECTION = "model.embed_layers.table", "model.embed_layers.projection"
"""The modules of per-layer embeddings."""
