"""T5's encoder as a GGUF file: its states make vectors. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from roots_compress.families.base import Computed, Rule
from roots_compress.families.gguf.bert import vectors_head
from roots_compress.families.gguf.metadata import KEYS, POOLING, Metadata
from roots_compress.families.seq2seq import encoder_layer
from roots_compress.families.t5 import POSITIONS
from roots_compress.families.transforms import Shared
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.positions import Relative
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack

BUCKETS, FARTHEST = "attention.relative_buckets_count", 128
"""The key of how many kinds of distances there are, and the distance that no key says: llama.cpp's."""
GATE = "enc.blk.0.ffn_gate.weight"
LAYER = {
    "attn_norm": "self_attn_pre_norm",
    **{f"attn_{letter}": f"self_attn.{letter}_proj" for letter in "qkvo"},
    "ffn_norm": "mlp_pre_norm",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Our names of a layer's modules, by GGUF's."""


class T5EncoderReader:
    """Makes the specification of an encoder that gives vectors of length 1, as llama.cpp does."""

    factors: ClassVar[tuple[str, ...]] = ()

    def read(self, model: GgufModel) -> ModelSpec:
        """Return the specification that a file's metadata ask for; activations are those of llama.cpp.

        Raises:
            InputError: a key is absent, unknown, impossible or beyond ROOTS; the message names it.
        """
        metadata = Metadata(model, KEYS | {BUCKETS, POOLING})
        width, heads = metadata.number("embedding_length"), metadata.one("attention.head_count")
        eps = metadata.positive("attention.layer_norm_rms_epsilon")
        metadata.agree("attention.layer_norm_epsilon", eps)
        gated, norm = GATE in model.tensors, Norm(eps=eps)
        attention = Attention(
            heads=heads,
            kv_heads=heads,
            head_dim=metadata.head_size(width, heads),
            scale=1.0,
            relative=Relative(buckets=metadata.number(BUCKETS), max_distance=FARTHEST),
            causal=False,
        )
        mlp = Mlp(
            channels=metadata.one("feed_forward_length"),
            activation="gelu_tanh" if gated else "relu",
            gated=gated,
        )
        layer = encoder_layer(attention, mlp, norm)
        return ModelSpec(
            stacks={"encoder": Stack(layers=(layer,) * metadata.layers, final_norm=norm)},
            embeddings=Embeddings(vocabulary=metadata.rows("token_embd.weight", "vocab_size"), width=width),
            head=vectors_head(metadata),
            max_positions=POSITIONS,
        )


class T5EncoderLayout:
    """How the files hold their tensors."""

    def rules(self, spec: ModelSpec) -> Iterator[Rule]:
        """Yield the place of each tensor that a model of this specification has."""
        yield Rule("token_embd.weight", ("model.embed_tokens.weight",))
        yield Rule("enc.output_norm.weight", ("model.norm.weight",))
        layers = range(len(spec.layers))
        distances = tuple(f"model.layers.{index}.self_attn.relative.weight" for index in layers)
        yield Rule("enc.blk.0.attn_rel_b.weight", distances, Shared(len(layers)))
        for index, layer in enumerate(spec.layers):
            gate = {"ffn_gate": "mlp.gate_proj"} if "gate_proj" in layer[1].op.matrices(spec.width) else {}
            for theirs, ours in {**LAYER, **gate}.items():
                yield Rule(f"enc.blk.{index}.{theirs}.weight", (f"model.layers.{index}.{ours}.weight",))

    def others(self, spec: ModelSpec) -> Iterator[Rule]:
        """Return an empty iterator: converters join no tensors."""
        return iter(())

    def computed(self, spec: ModelSpec) -> Sequence[Computed]:
        """Return an empty sequence: no tensor is computed from others."""
        return ()
