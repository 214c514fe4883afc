"""What a student takes over from its teacher, and what it leaves fresh."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.spec import Place
from roots_compress.stages.distill.inherit import inherit
from roots_compress.stages.distill.presets import spread
from tests.specs import SPECS
from tests.tiny import tiny_layer, tiny_model, tiny_tokens


def student(**overrides: Any) -> RootsForCausalLM:
    return tiny_model(9, **overrides)


def test_layers_are_spread_evenly_with_both_ends() -> None:
    assert spread(4, 8) == (0, 2, 5, 7)
    assert spread(2, 30) == (0, 29)
    assert spread(1, 6) == (0,)
    assert spread(6, 6) == (0, 1, 2, 3, 4, 5)


def test_a_student_of_the_teachers_shape_becomes_the_teacher() -> None:
    teacher, same = (
        tiny_model(0, attention_bias=True, qk_norm=True),
        student(attention_bias=True, qk_norm=True),
    )
    taken = inherit(same, teacher)
    assert taken.fresh == 0
    torch.testing.assert_close(same(tiny_tokens()).logits, teacher(tiny_tokens()).logits, rtol=0, atol=0)


@pytest.mark.parametrize("kind", SPECS)
def test_so_it_does_with_norms_in_other_places_and_with_experts(kind: str) -> None:
    teacher, same = tiny_model(0, **SPECS[kind]), student(**SPECS[kind])
    assert inherit(same, teacher).fresh == 0
    assert torch.equal(same(tiny_tokens()).logits, teacher(tiny_tokens()).logits)


def test_experts_are_taken_by_number() -> None:
    teacher = tiny_model(0, **SPECS["experts"])
    spec = teacher.config.spec
    place = Place(1, "mlp")
    fewer = student(spec=spec.with_op(place, spec.op(place).cut("experts", 3)))
    assert inherit(fewer, teacher).fresh == 0
    theirs = dict(teacher.named_parameters())
    for name, parameter in fewer.named_parameters():
        assert torch.equal(parameter, theirs[name][: len(parameter)]), name


def test_experts_in_groups_are_the_first_of_each() -> None:
    teacher = tiny_model(0, **SPECS["experts in groups"])
    spec = teacher.config.spec
    place = Place(1, "mlp")
    fewer = student(spec=spec.with_op(place, spec.op(place).cut("experts", 6)))
    assert inherit(fewer, teacher).fresh == 0
    name = "model.layers.1.mlp.selection_bias"
    kept = teacher.get_buffer(name)[[0, 1, 2, 4, 5, 6]]
    assert torch.equal(fewer.get_buffer(name), kept)


def test_a_shallower_student_has_the_teachers_layers() -> None:
    teacher = tiny_model(0, layers=[tiny_layer()] * 5)
    shallow = student(layers=[tiny_layer()] * 3)
    taken = inherit(shallow, teacher)
    assert taken.layers == (0, 2, 4)
    assert taken.fresh == 0
    for mine, theirs in enumerate(taken.layers):
        old = teacher.model.layers[theirs].state_dict()
        assert all(
            torch.equal(value, old[name]) for name, value in shallow.model.layers[mine].state_dict().items()
        )


def test_unused_channels_and_heads_are_the_ones_left_out() -> None:
    """A teacher in which whole channels and heads contribute nothing is reproduced exactly without them."""
    teacher = tiny_model(0)
    with torch.no_grad():
        for layer, dead in zip(teacher.model.layers, (range(0, 48, 3), range(1, 48, 3)), strict=True):
            layer.mlp.down_proj.weight[:, list(dead)] = 0
            # Query heads 0 and 1 read key/value head 0, and contribute nothing.
            layer.self_attn.o_proj.weight[:, :16] = 0
    narrow = student(
        layers=[tiny_layer(num_attention_heads=2, num_key_value_heads=1, intermediate_size=32)] * 2
    )
    assert inherit(narrow, teacher).fresh == 0
    torch.testing.assert_close(narrow(tiny_tokens()).logits, teacher(tiny_tokens()).logits)


def test_one_head_of_each_group_can_be_taken() -> None:
    teacher = tiny_model(0)
    with torch.no_grad():
        for layer in teacher.model.layers:
            for dead in (1, 2):  # The second head of the first group, the first of the second.
                layer.self_attn.o_proj.weight[:, 8 * dead : 8 * dead + 8] = 0
    narrow = student(layers=[tiny_layer(num_attention_heads=2)] * 2)
    inherit(narrow, teacher)
    torch.testing.assert_close(narrow(tiny_tokens()).logits, teacher(tiny_tokens()).logits)


def test_residual_channels_are_the_same_everywhere() -> None:
    """Channels that nothing writes to are left out, and the norms do not feel the change of width."""
    teacher = tiny_model(0, norm_eps=1e-12)
    dead = [3, 4, 10, 11, 20, 25, 30, 31]
    with torch.no_grad():
        teacher.model.embed_tokens.weight[:, dead] = 0
        for layer in teacher.model.layers:
            layer.self_attn.o_proj.weight[dead] = 0
            layer.mlp.down_proj.weight[dead] = 0
    narrow = student(hidden_size=24, norm_eps=1e-12)
    assert inherit(narrow, teacher).fresh == 0
    torch.testing.assert_close(narrow(tiny_tokens()).logits, teacher(tiny_tokens()).logits)


@pytest.mark.parametrize(
    ("overrides", "fresh"),
    [
        ({"activation": "relu"}, "mlp"),
        ({"gated_mlp": False}, "mlp"),
        ({"layers": [tiny_layer(intermediate_size=64)] * 2}, "mlp"),
        ({"layers": [tiny_layer(head_dim=4)] * 2}, "self_attn"),
        ({"layers": [tiny_layer(num_attention_heads=8)] * 2}, "self_attn"),
        ({"position": "learned"}, "self_attn"),
    ],
)
def test_a_block_that_does_not_fit_is_left_fresh(overrides: dict[str, Any], fresh: str) -> None:
    teacher, other = tiny_model(0), student(**overrides)
    before = {name: p.detach().clone() for name, p in other.named_parameters()}
    taken = inherit(other, teacher)
    for name, parameter in other.named_parameters():
        unchanged = torch.equal(parameter, before[name])
        assert unchanged == (f"{fresh}." in name or "embed_positions" in name), name
    assert taken.fresh == sum(
        p.numel() for name, p in other.named_parameters() if torch.equal(p, before[name])
    )


def test_a_wider_student_inherits_nothing() -> None:
    taken = inherit(student(hidden_size=40), tiny_model(0))
    assert taken.inherited == 0


def test_an_untied_head_is_taken_from_a_tied_teacher() -> None:
    teacher, untied = tiny_model(0), student(tie_word_embeddings=False)
    assert inherit(untied, teacher).fresh == 0
    torch.testing.assert_close(untied(tiny_tokens()).logits, teacher(tiny_tokens()).logits, rtol=0, atol=0)
