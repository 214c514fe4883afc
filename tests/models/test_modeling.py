"""The ROOTS model: cache, padding, packing, generation and its configuration."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from roots_compress.models.modeling import RootsForCausalLM
from tests.specs import SPECS
from tests.tiny import tiny_config, tiny_layer, tiny_model, tiny_tokens

BLOCK = {"kind": "block", "block_size": 4, "num_blocks": 2}
TOP_M = {"kind": "top_m", "top_m": 5}
MODELS: dict[str, dict[str, Any]] = {
    "dense": {},
    "top_m": {"attention": TOP_M},
    "block": {"attention": BLOCK},
    "block of default size": {"attention": {"kind": "block", "num_blocks": 2}, "max_position_embeddings": 41},
    "windows": {"layers": [tiny_layer(sliding_window=6), tiny_layer()]},
    "block in windows": {"attention": BLOCK, "layers": [tiny_layer(sliding_window=11), tiny_layer()]},
    "top_m in windows": {"attention": TOP_M, "layers": [tiny_layer(sliding_window=11), tiny_layer()]},
    "learned positions": {"position": "learned", "norm": "layer_norm", "gated_mlp": False},
    "qk-norm": {"qk_norm": True, "attention_scale": 0.2, "embedding_scale": 3.0, "logit_scale": 0.3},
    "uneven layers": {
        "layers": [tiny_layer(num_attention_heads=2, intermediate_size=7), tiny_layer(head_dim=16)],
        "tie_word_embeddings": False,
    },
}
EVERY_MODEL = pytest.mark.parametrize("kind", MODELS)
TOKENS = 40


@torch.no_grad()
def logits_of(model: RootsForCausalLM, tokens: Tensor, **arguments: Any) -> Tensor:
    output: Tensor = model(tokens, **arguments).logits
    return output


def generated(model: Any, tokens: Tensor, mask: Tensor, **settings: Any) -> Tensor:
    """Return prompts and nine greedy tokens each; the end token does not end them."""
    settings = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": None, **settings}
    output: Tensor = model.generate(tokens, attention_mask=mask, **settings)
    return output


def assert_close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_a_layer_s_output_goes_when_the_next_one_is_there() -> None:
    """At 32k tokens those of all layers together are gigabytes."""
    model = tiny_model(layers=[tiny_layer()] * 6)
    outputs, alive = list[weakref.ref[Tensor]](), list[int]()

    def note(_layer: object, _given: object, output: Tensor) -> None:
        outputs.append(weakref.ref(output))
        alive.append(sum(each() is not None for each in outputs))

    for layer in model.model.layers:
        layer.register_forward_hook(note)
    model(tiny_tokens())
    assert max(alive) <= 2


@EVERY_MODEL
def test_decoding_through_the_cache_equals_one_forward(kind: str) -> None:
    model, tokens = tiny_model(**MODELS[kind]), tiny_tokens(2, TOKENS)
    whole = logits_of(model, tokens)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        splits = torch.randint(1, TOKENS, (2,), generator=generator).sort().values.tolist()
        cache, parts = None, []
        # A prompt, a longer piece, then token by token.
        pieces = [(0, splits[0]), (splits[0], splits[1]), *((t, t + 1) for t in range(splits[1], TOKENS))]
        for start, end in pieces:
            if start == end:
                continue
            with torch.no_grad():
                output = model(tokens[:, start:end], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            parts.append(output.logits)
        assert_close(torch.cat(parts, dim=1), whole)


@EVERY_MODEL
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_real_token(kind: str, side: str) -> None:
    model, tokens = tiny_model(**MODELS[kind]), tiny_tokens(1, TOKENS - 9)
    padding = tiny_tokens(1, 9, seed=5)
    ones, zeros = torch.ones_like(tokens), torch.zeros_like(padding)
    padded, mask = (padding, tokens), (zeros, ones)
    if side == "right":
        padded, mask = padded[::-1], mask[::-1]
    ours = logits_of(model, torch.cat(padded, dim=1), attention_mask=torch.cat(mask, dim=1))
    assert_close(ours[torch.cat(mask, dim=1).bool()], logits_of(model, tokens)[0])


@EVERY_MODEL
def test_packed_documents_equal_separate_ones(kind: str) -> None:
    model, tokens = tiny_model(**MODELS[kind]), tiny_tokens(1, TOKENS)
    lengths = (5, 23, 12)
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    apart = [logits_of(model, part) for part in tokens.split(lengths, dim=1)]
    assert_close(logits_of(model, tokens, segment_ids=segments), torch.cat(apart, dim=1))


@EVERY_MODEL
def test_generation_is_the_same_with_and_without_the_cache(kind: str) -> None:
    model, tokens = tiny_model(**MODELS[kind]), tiny_tokens(2, 21)
    mask = torch.ones_like(tokens)
    with_cache = generated(model, tokens, mask, use_cache=True)
    without = generated(model, tokens, mask, use_cache=False)
    assert with_cache.shape == (2, 30)
    torch.testing.assert_close(with_cache, without)


@EVERY_MODEL
def test_generation_of_a_left_padded_batch_equals_single_prompts(kind: str) -> None:
    model = tiny_model(**MODELS[kind])
    prompts = [tiny_tokens(1, length, seed=length) for length in (4, 15, 21)]
    batch = torch.full((3, 21), 2)
    mask = torch.zeros_like(batch)
    for row, prompt in enumerate(prompts):
        batch[row, 21 - prompt.shape[1] :] = prompt
        mask[row, 21 - prompt.shape[1] :] = 1
    together = generated(model, batch, mask)[:, 21:]
    for row, prompt in enumerate(prompts):
        alone = generated(model, prompt, torch.ones_like(prompt))
        assert together[row].tolist() == alone[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("attention", [TOP_M, BLOCK], ids=["top_m", "block"])
def test_sparse_attention_differs_from_dense_where_it_leaves_keys_out(attention: dict[str, Any]) -> None:
    tokens = tiny_tokens(1, TOKENS)
    sparse, dense = logits_of(tiny_model(attention=attention), tokens), logits_of(tiny_model(), tokens)
    assert (sparse - dense).abs().max() > 0.01


@pytest.mark.parametrize(
    "attention",
    [{"kind": "top_m", "top_m": TOKENS}, {"kind": "block", "block_size": 4, "num_blocks": TOKENS // 4}],
    ids=["top_m", "block"],
)
def test_sparse_attention_equals_dense_where_it_covers_all_keys(attention: dict[str, Any]) -> None:
    tokens = tiny_tokens(1, TOKENS)
    assert_close(logits_of(tiny_model(attention=attention), tokens), logits_of(tiny_model(), tokens))


@pytest.mark.parametrize("kind", [*MODELS, "experts by sigmoids"])
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    model, tokens = tiny_model(**{**SPECS, **MODELS}[kind]).train(), tiny_tokens(2, TOKENS)
    model(tokens, labels=tokens).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_loss_skips_unscored_labels() -> None:
    model, tokens = tiny_model(), tiny_tokens(1, 8)
    labels = tokens.clone()
    labels[0, :5] = -100
    with torch.no_grad():
        output = model(tokens, labels=labels)
    chances = output.logits[0, 4:7].log_softmax(dim=-1)
    torch.testing.assert_close(output.loss, -chances[range(3), tokens[0, 5:]].mean())


def test_hidden_states_are_the_residual_stream() -> None:
    model, tokens = tiny_model(), tiny_tokens(1, 8)
    with torch.no_grad():
        output = model.model(tokens, output_hidden_states=True)
        assert len(output.hidden_states) == 3
        torch.testing.assert_close(model.model.norm(output.hidden_states[-1]), output.last_hidden_state)


def test_autocast_converts_what_several_projections_read_once() -> None:
    """Each conversion of its own would be kept for the backward pass."""
    model = tiny_model().train()
    read: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(lambda _, inputs, name=name: read.update({name: inputs[0]}))
    with torch.autocast("cpu", torch.bfloat16):
        model(tiny_tokens())
    for first, *others in (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("mlp.gate_proj", "mlp.up_proj"),
    ):
        shared = read[f"model.layers.0.{first}"]
        assert shared.dtype == torch.bfloat16
        assert all(read[f"model.layers.0.{other}"] is shared for other in others)


def test_shapes_can_be_asked_of_a_model_without_weights() -> None:
    with torch.device("meta"):
        model = tiny_model()
        logits_BTV = model(torch.zeros(2, 5, dtype=torch.long)).logits
    assert logits_BTV.shape == (2, 5, model.config.vocab_size)


def test_logits_of_the_last_tokens_only() -> None:
    model, tokens = tiny_model(), tiny_tokens(1, 8)
    torch.testing.assert_close(logits_of(model, tokens, logits_to_keep=2), logits_of(model, tokens)[:, -2:])


def test_mask_that_does_not_cover_the_cache_is_refused() -> None:
    model, tokens = tiny_model(), tiny_tokens(1, 8)
    cache = model(tokens, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="attention_mask"):
        model(tokens[:, :1], past_key_values=cache, attention_mask=torch.ones(1, 1))


def test_segments_do_not_go_on_from_a_cache() -> None:
    model, tokens = tiny_model(), tiny_tokens(1, 8)
    cache = model(tokens, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="segment_ids"):
        model(tokens, past_key_values=cache, segment_ids=torch.zeros_like(tokens))


@pytest.mark.parametrize("kind", ["dense", "top_m", "block"])
def test_float16_batch_with_a_fully_padded_row_is_finite(kind: str) -> None:
    model, tokens = tiny_model(**MODELS[kind]).half(), tiny_tokens(2, TOKENS)
    mask = torch.ones_like(tokens)
    mask[0] = 0
    assert torch.isfinite(logits_of(model, tokens, attention_mask=mask)).all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_size": "32"}, "hidden_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"norm_eps": "1e-6"}, "norm_eps"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"norm": "batch_norm"}, "batch_norm"),
        ({"activation": "mish"}, "mish"),
        ({"position": "alibi"}, "alibi"),
        ({"layers": None}, "layers"),
        ({"layers": [{"head_dim": 8}]}, "num_attention_heads is missing"),
        ({"layers": [tiny_layer(extra=1)]}, "extra"),
        ({"layers": [tiny_layer(head_dim=7)]}, "odd"),
        ({"layers": [tiny_layer(num_key_value_heads=3)]}, "do not divide"),
        ({"layers": [tiny_layer(intermediate_size=0)]}, "intermediate_size"),
        ({"layers": [tiny_layer(), tiny_layer(num_attention_heads="4")]}, "layers.1"),
        ({"layers": [tiny_layer(sliding_window=0)]}, "sliding_window"),
        ({"attention": {"kind": "sparse"}}, "sparse"),
        ({"attention": {}}, "attention.kind"),
        ({"attention": {"kind": "top_m"}}, "top_m"),
        ({"attention": {"kind": "top_m", "top_m": 0}}, "top_m"),
        ({"attention": {"kind": "block", "block_size": 4}}, "num_blocks"),
        ({"attention": {"kind": "dense", "top_m": 3}}, "unknown keys"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "dynamic"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ],
)
def test_impossible_configurations_are_refused_by_name(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        tiny_config(**changes)


def test_number_of_layers_follows_the_list() -> None:
    assert tiny_config(layers=[tiny_layer()] * 3, num_hidden_layers=7).num_hidden_layers == 3
