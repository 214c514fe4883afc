"""The shape of a model from scratch: a decoder with an encoder before it, and sparse attention."""

from __future__ import annotations

from typing import Any

from roots_compress.configs.train import ArchitectureConfig
from roots_compress.models.ops.attention import Attention, TopM
from roots_compress.models.ops.heads import Seq2SeqHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec
from roots_compress.stages.train.architecture import architecture_spec


def made(**fields: Any) -> ModelSpec:
    return architecture_spec(ArchitectureConfig.model_validate({"num_layers": 2, **fields}), 300, start=7)


def test_a_decoder_reads_what_its_encoder_made() -> None:
    for position in ("relative", "rotary"):
        spec = made(encoder_layers=3, position=position)
        assert spec.head == Seq2SeqHead(start=7)
        assert spec.source is not None
        encoder, decoder = spec.source, spec.stack
        assert (len(encoder.layers), len(decoder.layers)) == (3, 2)
        (read, first), (own, cross, last) = encoder.layers[0], decoder.layers[0]
        assert isinstance(read.op, Attention)
        assert isinstance(own.op, Attention)
        assert isinstance(cross.op, Attention)
        assert isinstance(first.op, Mlp)
        assert first == last
        assert (read.op.causal, own.op.causal) == (False, True)
        assert (cross.op.source, cross.op.rope, cross.op.relative) == ("cross", None, None)
        relative = position == "relative"
        assert (own.op.relative is not None, own.op.rope is None) == (relative, relative)


def test_attention_to_the_best_keys_alone() -> None:
    attention = made(attention={"kind": "top_m", "top_m": 4}).layers[0][0].op
    assert isinstance(attention, Attention)
    assert attention.sparse == TopM(keys=4)
