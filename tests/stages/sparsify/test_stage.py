"""The sparsify stage as the pipeline calls it, and its verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.sparsify import AdaptationConfig, SparsifyConfig
from roots_compress.configs.training import TrainingConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.errors import InputError
from roots_compress.events import Events
from roots_compress.models.ops.attention import BlockSparse, LongRopeScaling, Rope
from roots_compress.models.spec import ModelSpec
from roots_compress.stages.base import ModelInfo, StageContext, StageOutcome
from roots_compress.stages.sparsify.plan import make_plan
from roots_compress.stages.sparsify.protocol import SparsifyStage
from roots_compress.stages.sparsify.stage import sparsify
from tests.chains import TRAIN, recipe
from tests.export.quantized import tiny_quantized
from tests.specs import bert, with_attention
from tests.tasks.commands import roots
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer, tiny_tokenizer, tiny_tokens

SPLIT = TextSplit(tuple(Document.plain(f"{TEXT} {number}") for number in range(12)), (), "tiny")
CALIBRATION = CalibrationConfig(windows=2, block_size=128)


def run(tmp_path: Path, checkpoint: Checkpoint, **settings: Any) -> StageOutcome:
    config = SparsifyConfig(**{"size": 8, "calibration": CALIBRATION, **settings})
    return sparsify(config, checkpoint, StageContext(SPLIT, "cpu", 0, tmp_path, Events()))


def blocks_of(spec: ModelSpec) -> list[int | None]:
    return [
        each.sparse.blocks if isinstance(each.sparse, BlockSparse) else None for each in spec.attentions()
    ]


def test_layers_get_the_fewest_blocks_within_the_bound(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer()] * 3)
    chosen = []
    for bound in (1.0005, 1.02, 9.0):
        outcome = run(tmp_path, checkpoint, max_perplexity_ratio=bound)
        notes, blocks = outcome.notes, blocks_of(outcome.checkpoint.model.config.spec)
        dense, sparse = notes["dense_perplexity"], notes["sparse_perplexity"]
        assert isinstance(dense, float)
        assert isinstance(sparse, float)
        assert sparse / dense <= bound
        assert notes["blocks"] == blocks
        chosen.append(sum(each or 16 for each in blocks))
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] > chosen[-1] == 3 * 2
    assert blocks_of(checkpoint.model.config.spec) == [None] * 3


def test_all_blocks_are_what_the_dense_model_says_in_a_longer_context_too(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layers=[tiny_layer(), tiny_layer(sliding_window=20)])
    outcome = run(
        tmp_path,
        checkpoint,
        blocks=18,
        max_positions=512,
        calibration=CalibrationConfig(windows=1, block_size=160),
    )
    made = outcome.checkpoint.model
    assert blocks_of(made.config.spec) == [18, None]
    assert made.config.max_position_embeddings == 512
    tokens = tiny_tokens(1, 144)
    with torch.no_grad():
        torch.testing.assert_close(made(tokens).logits, checkpoint.model(tokens).logits, atol=1e-5, rtol=0)


def test_adaptation_comes_nearer_to_the_dense_model(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    before = {name: each.clone() for name, each in checkpoint.model.state_dict().items()}
    training = TrainingConfig(steps=12, batch_size=2, block_size=128, learning_rate=1e-3)
    outcome = run(tmp_path, checkpoint, blocks=1, adaptation=AdaptationConfig(training=training))
    adapted, sparse = outcome.notes["adapted_perplexity"], outcome.notes["sparse_perplexity"]
    assert isinstance(adapted, float)
    assert isinstance(sparse, float)
    assert adapted < sparse
    for name, each in checkpoint.model.state_dict().items():
        torch.testing.assert_close(each, before[name], atol=0, rtol=0)


def test_a_checkpoint_in_half_precision_is_adapted_in_float32(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.model.half()
    training = TrainingConfig(steps=2, batch_size=2, block_size=128)
    outcome = run(tmp_path, checkpoint, blocks=1, adaptation=AdaptationConfig(training=training))
    assert outcome.checkpoint.model.dtype == torch.float32
    assert checkpoint.model.dtype == torch.float16


LONGROPE = LongRopeScaling(
    short_factor=(1.0,) * 4,
    long_factor=(2.0,) * 4,
    original_max_position_embeddings=64,
    attention_factor=1.0,
)
REFUSED: dict[str, tuple[ModelSpec, dict[str, Any], str]] = {
    "encoder": (bert(), {}, "encoder"),
    "softcap": (with_attention(softcap=3.0), {}, "layer 0's attention bounds its scores"),
    "sparse already": (with_attention(sparse=BlockSparse(size=4, blocks=2)), {}, "sparse already (block)"),
    "windows": (with_attention(window=9), {}, "sliding window"),
    "too many blocks": (
        with_attention(),
        {"blocks": 17},
        "blocks: is 17, and a context of 128 tokens has 16",
    ),
    "too large blocks": (with_attention(), {"size": 65}, "size: is 65, and a context of 128"),
    "shorter": (with_attention(), {"max_positions": 64}, "not shortened"),
    "learned positions": (
        with_attention().with_embeddings(positions=128),
        {"max_positions": 256},
        "learned 128 positions",
    ),
    "longrope": (with_attention(rope=Rope(scaling=LONGROPE)), {"max_positions": 256}, "longrope"),
}


@pytest.mark.parametrize(("spec", "settings", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_sparse_is_refused_by_name(
    spec: ModelSpec, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError) as error:
        make_plan(SparsifyConfig(**{"size": 8, **settings}), spec)
    assert told in f"{error.value.where}: {error.value.message}"


def test_quantized_models_and_short_windows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quantized"):
        run(tmp_path, Checkpoint(tiny_quantized("w8"), tiny_tokenizer()))
    with pytest.raises(InputError, match="windows of 16 tokens have 2 blocks of 8 keys"):
        run(tmp_path, tiny_checkpoint(), calibration=CalibrationConfig(windows=1, block_size=16))


def test_an_int8_cache_cannot_follow(tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(layers=[tiny_layer(head_dim=16)] * 2), tmp_path / "dense")
    info = ModelInfo.of(inspect_source(tmp_path / "dense"))
    assert info.limits.fusible
    assert SparsifyStage().check(SparsifyConfig(size=8, blocks=4), info).limits.fusible is False


def test_a_recipe_ends_in_a_sparse_graph_and_a_verb_refuses_to_go_on(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{TEXT} {number}" for number in range(20)))
    stage = {
        "kind": "sparsify",
        "size": 4,
        "max_perplexity_ratio": 1.5,
        "calibration": {"windows": 2, "block_size": 64},
    }
    written = recipe(text, TRAIN, stage).model_dump(mode="json", exclude_unset=True)
    (tmp_path / "recipe.yaml").write_text(json.dumps(written))
    roots("run", tmp_path / "recipe.yaml", "--run", tmp_path / "run")
    row = json.loads((tmp_path / "run/metrics.json").read_text())["stages"][-1]
    assert row["kind"] == "sparsify"
    caption = SparsifyStage().caption(row["notes"])
    assert caption is not None
    assert "blocks of 4 keys" in caption

    sparse = tmp_path / "run/01-sparsify/checkpoint"
    options = ("--data", text, "--windows", "2", "--block-size", "32", "--run", tmp_path / "again")
    assert "is sparse already" in roots("sparsify", sparse, *options, code=2)
