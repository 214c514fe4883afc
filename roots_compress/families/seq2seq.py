"""What families of an encoder and a decoder share."""

from __future__ import annotations

from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.heads import Seq2SeqHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Layer, ModelSpec, Norm, Stack

SHARED = {f"{side}.embed_tokens.weight": "shared.weight" for side in ("encoder", "decoder")}
"""Names of the table of tokens within the stacks."""


def require_both(switches: Switches) -> None:
    """Refuse a configuration of an encoder or a decoder alone.

    Raises:
        InputError: it is one.
    """
    switches.require_writer()
    if switches.said("is_encoder_decoder", True) is not True:
        switches.refuse("is_encoder_decoder must be true: the model has an encoder and a decoder")


def encoder_layer(attention: Attention, mlp: Mlp, norm: Norm, *, pre_norm: bool = True) -> Layer:
    """Return a layer of an encoder: its norms before the blocks, or after each addition to the stream."""
    return tuple(_normed(op, norm, pre_norm=pre_norm) for op in (attention, mlp))


def decoder_layer(
    attention: Attention, cross: Attention, mlp: Mlp, norm: Norm, *, pre_norm: bool = True
) -> Layer:
    """Return a layer of a decoder, whose second block reads the encoder's output."""
    return tuple(_normed(op, norm, pre_norm=pre_norm) for op in (attention, cross, mlp))


def _normed(op: Attention | Mlp, norm: Norm, *, pre_norm: bool) -> Sublayer:
    return Sublayer(op=op, pre_norm=norm) if pre_norm else Sublayer(op=op, stream_norm=norm)


def sides(spec: ModelSpec) -> tuple[Stack, Stack]:
    """Return the encoder and the decoder of a model that is to be written.

    Raises:
        ValueError: it lacks one of them, or one of them has no layer.
    """
    if spec.source is None or not isinstance(spec.head, Seq2SeqHead):
        raise ValueError("it is not an encoder and a decoder")
    if not spec.source.layers or not spec.stack.layers:
        raise ValueError("its encoder or its decoder has no layer")
    return spec.source, spec.stack


def start_token(switches: Switches, default: object) -> int:
    """Return the token that the decoder begins with."""
    start = switches.said("decoder_start_token_id", None)
    start = default if start is None else start
    if type(start) is not int or start < 0:
        switches.refuse(f"decoder_start_token_id is {shown(start)}; it must be the number of a token")
    return start
