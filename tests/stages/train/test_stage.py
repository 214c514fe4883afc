"""A model from scratch, and the `train` stage on real documents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from roots_compress.configs.data import TokenizerConfig
from roots_compress.configs.train import ArchitectureConfig, SparseAttentionConfig, TrainConfig
from roots_compress.configs.training import TrainingConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.errors import InputError
from roots_compress.events import Events
from roots_compress.models.ops.attention import Attention, BlockSparse, Rope
from roots_compress.models.ops.mlp import Mlp
from roots_compress.stages.base import StageContext
from roots_compress.stages.train.architecture import architecture_spec
from roots_compress.stages.train.stage import new_model, train

SENTENCES = ("The quick brown fox jumps over the lazy dog. ", "A model reads tokens and guesses the next. ")
TEXT = TextSplit(tuple(Document.plain(sentence * 40) for sentence in SENTENCES), (), "two sentences")
CONFIG = TrainConfig(
    architecture=ArchitectureConfig(
        hidden_size=32,
        num_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=64,
    ),
    tokenizer=TokenizerConfig(vocab_size=290),
    training=TrainingConfig(steps=100, batch_size=4, block_size=32, learning_rate=1e-2),
)


def test_a_new_model_has_the_shape_asked_for() -> None:
    checkpoint = new_model(CONFIG, TEXT, seed=0)
    config = checkpoint.model.config
    assert config.vocab_size == len(checkpoint.tokenizer)
    assert (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings) == (32, 2, 64)
    assert [axis.units for sublayer in config.spec.layers[1] for axis in sublayer.op.axes()][-1] == 48
    assert config.bos_token_id == checkpoint.tokenizer.bos_token_id is not None
    assert checkpoint.model.lm_head.weight is checkpoint.model.model.embed_tokens.weight


def test_a_new_model_follows_from_the_seed() -> None:
    first, again, other = (new_model(CONFIG, TEXT, seed=seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_what_writes_to_the_residual_stream_starts_smaller_the_deeper_the_model() -> None:
    model = new_model(CONFIG, TEXT, seed=0).model
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            assert parameter.detach().std().item() == pytest.approx(0.01 if writes else 0.02, rel=0.1), name


def test_an_untrained_model_guesses_evenly() -> None:
    """Its loss is that of a uniform guess, so no scale of the initial weights is far off."""
    checkpoint = new_model(CONFIG, TEXT, seed=0)
    tokens = torch.arange(40)[None] + 10
    loss = checkpoint.model(tokens, labels=tokens).loss
    assert loss.detach().item() == pytest.approx(torch.tensor(290.0).log().item(), abs=0.15)


def test_every_switch_of_the_architecture_reaches_the_model() -> None:
    architecture = ArchitectureConfig(
        norm="layer_norm",
        position="learned",
        activation="gelu",
        gated_mlp=False,
        attention_bias=True,
        qk_norm=True,
        tie_word_embeddings=False,
        attention=SparseAttentionConfig(kind="block", block_size=16, num_blocks=3),
    )
    spec = architecture_spec(architecture, 300)
    attention, mlp = (sublayer.op for sublayer in spec.layers[-1])
    assert isinstance(attention, Attention)
    assert isinstance(mlp, Mlp)
    assert (attention.bias, attention.qk_norm is not None, attention.rope) == (True, True, None)
    assert (mlp.activation, mlp.gated) == ("gelu", False)
    assert spec.stack.final_norm == spec.layers[0][0].pre_norm
    assert spec.stack.final_norm is not None
    assert (spec.stack.final_norm.kind, spec.tied, spec.embeddings.positions) == ("layer_norm", False, 1024)
    assert attention.sparse == BlockSparse(size=16, blocks=3)
    blocks = ArchitectureConfig(attention=SparseAttentionConfig(kind="block"))
    assert architecture_spec(blocks, 300).attentions()[0].sparse == BlockSparse(size=32, blocks=4)
    assert architecture_spec(ArchitectureConfig(rope_theta=500.0), 300).attentions()[0].rope == Rope(
        theta=500.0
    )


def test_training_learns_the_text_and_leaves_its_input_alone(tmp_path: Path) -> None:
    checkpoint = new_model(CONFIG, TEXT, seed=0)
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    events = Events()
    outcome = train(CONFIG, checkpoint, StageContext(TEXT, "cpu", 0, tmp_path, events))
    assert all(torch.equal(before[name], value) for name, value in checkpoint.model.state_dict().items())
    assert not outcome.checkpoint.model.training
    losses = outcome.notes["losses"]
    assert isinstance(losses, dict)
    assert isinstance(losses["cross_entropy"], float)
    assert losses["cross_entropy"] < 3.0
    tokens = outcome.checkpoint.tokenizer("The quick brown fox jumps over the", return_tensors="pt").input_ids
    guess = int(outcome.checkpoint.model(tokens).logits[0, -1].argmax())
    assert guess == outcome.checkpoint.tokenizer(" lazy", add_special_tokens=False).input_ids[0]


def test_a_checkpoint_in_half_precision_is_trained_in_float32(tmp_path: Path) -> None:
    checkpoint = new_model(CONFIG, TEXT, seed=0)
    checkpoint.model.half()
    short = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"steps": 2})})
    events = Events()
    outcome = train(short, checkpoint, StageContext(TEXT, "cpu", 0, tmp_path, events))
    assert {p.dtype for p in outcome.checkpoint.model.parameters()} == {torch.float32}
    assert {p.dtype for p in checkpoint.model.parameters()} == {torch.float16}


def test_text_shorter_than_a_window_is_an_input_error(tmp_path: Path) -> None:
    checkpoint = new_model(CONFIG, TEXT, seed=0)
    short = TextSplit((Document.plain("too short"),), (), "short")
    with pytest.raises(InputError, match="fewer than one window"):
        train(CONFIG, checkpoint, StageContext(short, "cpu", 0, tmp_path, Events()))
