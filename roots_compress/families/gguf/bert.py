"""Encoders like BERT as GGUF files: RoBERTa's and DistilBERT's are called `bert` too, Nomic's `nomic-bert`.

Texts are embedded by them, and their files hold no head. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from roots_compress.families.base import Computed, Rule
from roots_compress.families.encoder import encoder_spec, linear_rules
from roots_compress.families.gguf.metadata import KEYS, POOLING, POOLINGS, Metadata
from roots_compress.families.nomic_bert import joined_qkv, nomic_attention, nomic_spec
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.attention import Rope
from roots_compress.models.ops.heads import EmbeddingHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm

CAUSAL = "attention.causal"
BASE = "rope.freq_base"
TABLES = {
    "token_embd": "embed_tokens",
    "position_embd": "embed_positions",
    "token_types": "embed_token_types",
}
TOKEN_TYPES = "token_types.weight"
LAYER = {
    **{f"attn_{letter}": f"self_attn.{letter}_proj" for letter in "qkv"},
    "attn_output": "self_attn.o_proj",
    "attn_output_norm": "self_attn_stream_norm",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "layer_output_norm": "mlp_stream_norm",
}
"""Our names of a layer's modules, by GGUF's."""


class BertReader:
    """Makes the specification of an encoder that gives vectors of length 1, as llama.cpp does."""

    factors: ClassVar[tuple[str, ...]] = ()
    more_keys: ClassVar[frozenset[str]] = frozenset()

    def read(self, model: GgufModel) -> ModelSpec:
        """Return the specification that a file's metadata ask for.

        Raises:
            InputError: a key is absent, unknown, impossible or beyond ROOTS; the message names it.
        """
        metadata = Metadata(model, KEYS | {CAUSAL, POOLING} | self.more_keys)
        width, heads = metadata.number("embedding_length"), metadata.one("attention.head_count")
        usual = [heads] * metadata.layers
        if (groups := metadata.one("attention.head_count_kv", usual)) != heads:
            metadata.refuse("attention.head_count_kv", f"is {groups}, and encoders have {heads}, one a head")
        if (size := metadata.head_size(width, heads)) * heads != width:
            metadata.refuse("attention.key_length", f"is {size}, and {heads} heads share {width} channels")
        if metadata.get(CAUSAL) is not False:
            metadata.refuse(CAUSAL, "must be false: encoders read what comes later too")
        head = vectors_head(metadata)
        return self.spec(metadata, width, heads, head)

    def spec(self, metadata: Metadata, width: int, heads: int, head: EmbeddingHead) -> ModelSpec:
        """Return the specification of an encoder whose heads share its width."""
        typed = TOKEN_TYPES in metadata.model.tensors
        return encoder_spec(
            vocabulary=metadata.rows("token_embd.weight", "vocab_size"),
            width=width,
            layers=metadata.layers,
            heads=heads,
            channels=metadata.one("feed_forward_length"),
            activation="gelu",
            norm=Norm(kind="layer_norm", eps=metadata.positive("attention.layer_norm_epsilon")),
            positions=metadata.rows("position_embd.weight", "context_length"),
            token_types=metadata.rows(TOKEN_TYPES, "token_type_count") if typed else None,
            head=head,
            tied=True,
        )


def vectors_head(metadata: Metadata) -> EmbeddingHead:
    """Return how states make vectors: as a folder without modules does, where a file says nothing of it.

    Raises:
        InputError: the file names another way.
    """
    pooling = metadata.get(POOLING) or 1
    if pooling not in POOLINGS:
        said = ", ".join(f"{number} ({name})" for number, name in POOLINGS.items())
        metadata.refuse(POOLING, f"is {pooling!r:.100}; {said} can be read")
    return EmbeddingHead(pooling=POOLINGS[pooling])


class NomicReader(BertReader):
    """Makes the specification of a Nomic BERT, whose vocabulary's table alone has a row for each token."""

    more_keys = frozenset({BASE})

    def spec(self, metadata: Metadata, width: int, heads: int, head: EmbeddingHead) -> ModelSpec:
        """Return the specification of an encoder whose heads share its width."""
        return nomic_spec(
            vocabulary=metadata.rows("token_embd.weight", "vocab_size"),
            width=width,
            layers=metadata.layers,
            attention=nomic_attention(heads, width // heads, Rope(theta=metadata.positive(BASE, 10_000.0))),
            mlp=Mlp(channels=metadata.one("feed_forward_length"), activation="silu"),
            norm=Norm(kind="layer_norm", eps=metadata.positive("attention.layer_norm_epsilon")),
            token_types=metadata.rows(TOKEN_TYPES, "token_type_count"),
            head=head,
            max_positions=metadata.number("context_length"),
        )


class BertLayout:
    """How the files hold their tensors."""

    def rules(self, spec: ModelSpec) -> Iterator[Rule]:
        """Yield the place of each tensor that a model of this specification has."""
        for theirs, ours in TABLES.items():
            if theirs != "token_types" or spec.embeddings.token_types is not None:
                yield Rule(f"{theirs}.weight", (f"model.{ours}.weight",))
        yield from linear_rules("token_embd_norm", "model.embed_norm")
        for index in range(len(spec.layers)):
            for theirs, ours in LAYER.items():
                yield from linear_rules(f"blk.{index}.{theirs}", f"model.layers.{index}.{ours}")

    def others(self, spec: ModelSpec) -> Iterator[Rule]:
        """Return an empty iterator: converters join no tensors."""
        return iter(())

    def computed(self, spec: ModelSpec) -> Sequence[Computed]:
        """Return an empty sequence: no tensor is computed from others."""
        return ()


NOMIC_LAYER = {
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_down": "mlp.down_proj",
}
NOMIC_NORMS = {name: ours for name, ours in LAYER.items() if name.endswith("norm")}


class NomicLayout(BertLayout):
    """How the files of a Nomic BERT hold their tensors."""

    def rules(self, spec: ModelSpec) -> Iterator[Rule]:
        """Yield the place of each tensor that a model of this specification has."""
        yield Rule("token_embd.weight", ("model.embed_tokens.weight",))
        yield Rule(TOKEN_TYPES, ("model.embed_token_types.weight",))
        yield from linear_rules("token_embd_norm", "model.embed_norm")
        for index, (attention, _) in enumerate(spec.layers):
            theirs, ours = f"blk.{index}", f"model.layers.{index}"
            yield joined_qkv(f"{theirs}.attn_qkv.weight", f"{ours}.self_attn", attention, spec.width)
            for name, module in NOMIC_LAYER.items():
                yield Rule(f"{theirs}.{name}.weight", (f"{ours}.{module}.weight",))
            for name, module in NOMIC_NORMS.items():
                yield from linear_rules(f"{theirs}.{name}", f"{ours}.{module}")
