"""Attention that meets distances, as DeBERTa's: packed texts, and cuts of its heads."""

from __future__ import annotations

import torch

from roots_compress.families.encoder import encoder_spec
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import TokenClassificationHead
from roots_compress.models.ops.positions import Disentangled
from roots_compress.models.resizing import keep_units
from roots_compress.models.spec import Norm, Place
from tests.tiny import VOCAB_SIZE, randomise, tiny_tokens


def model() -> RootsWithHead:
    spec = encoder_spec(
        vocabulary=VOCAB_SIZE,
        width=32,
        layers=2,
        heads=4,
        channels=48,
        activation="gelu",
        norm=Norm(kind="layer_norm"),
        positions=64,
        token_types=None,
        head=TokenClassificationHead(labels=3),
        tied=True,
    )
    for place, op in spec.blocks():
        if isinstance(op, Attention):
            spec = spec.with_op(place, changed(op, disentangled=Disentangled(rows=16, max_distance=12)))
    made = make_model(RootsConfig(spec=spec.with_embeddings(positions=None)))
    randomise(made.eval(), 0)
    return made


def test_a_packed_text_is_read_as_it_is_alone() -> None:
    read, ids_BT = model(), tiny_tokens(1, 40)
    with torch.no_grad():
        alone = read(ids_BT[:, 25:]).logits
        packed = read(ids_BT, segment_ids=(torch.arange(40) >= 25).long()[None]).logits[:, 25:]
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)


def test_a_head_is_cut_with_its_rows_of_distances() -> None:
    cut, whole, place = model(), model(), Place(1, "self_attn")
    assert cut.config.spec.parameters == cut.num_parameters()
    silent = whole.model.layers[1].self_attn.o_proj.weight
    with torch.no_grad():
        silent[:, 8:16] = 0
    cut.load_state_dict(whole.state_dict())
    keep_units(cut, place, "kv_groups", [0, 2, 3])
    assert cut.config.spec.parameters == cut.num_parameters() < whole.num_parameters()
    with torch.no_grad():
        torch.testing.assert_close(
            cut(tiny_tokens(1, 40)).logits, whole(tiny_tokens(1, 40)).logits, atol=1e-5, rtol=0
        )
