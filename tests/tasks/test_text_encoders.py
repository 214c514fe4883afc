"""Decoders that make vectors of texts, as Qwen3-Embedding does; dense layers after pooling, as LaBSE has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, BertModel, PreTrainedModel

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.checkpoints.fingerprint import source_sha256
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError
from roots_compress.models.encoders import RootsForEmbedding
from roots_compress.models.ops.heads import EmbeddingHead, Pooling
from tests.encoders import save_bert
from tests.families.gguf_files import gguf_model, write_gguf
from tests.families.sources import each_family, save_source, source_model
from tests.tasks.commands import (
    PRUNE,
    QUANTIZE,
    carry_out,
    graph_outputs,
    metrics_of,
    recipe,
    roots,
    training,
)
from tests.tasks.test_embedding import NORMALIZE, POOLING, TRANSFORMER, describe
from tests.tiny import TEXT, tiny_tokens

REFUSED = {
    "gemma4_text": "norms after positions, or of values",
    "hunyuan_v1_dense": "norms after positions, or of values",
    "hunyuan_v1_moe": "norms after positions, or of values",
    "lfm2": "a block of the kind short_conv",
    "lfm2_moe": "a block of the kind short_conv",
    "qwen3_5_text": "a block of the kind gated_delta_net",
    "qwen3_5_moe_text": "a block of the kind gated_delta_net",
    "qwen3_next": "a block of the kind gated_delta_net",
    "falcon_h1": "a block of the kind mamba2",
    "gpt_oss": "sinks",
    "granite_swa": "sinks",
    "deepseek_v2": "keys and values of a latent vector",
    "deepseek_v3": "keys and values of a latent vector",
    "glm4_moe_lite": "keys and values of a latent vector",
    "minicpm3": "keys and values of a latent vector",
}
"""Families whose layers no encoder has, and why."""
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}


def padded_tokens(side: str = "right") -> tuple[Tensor, Tensor]:
    """Return two texts, of 12 and of 7 tokens, and their mask."""
    ids_BT = tiny_tokens(2, 12)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, slice(7, None) if side == "right" else slice(5)] = 0
    return ids_BT, mask_BT


def vectors_of(model: PreTrainedModel, pooling: str, side: str = "right") -> Tensor:
    """Return the vectors that sentence-transformers makes of what a model of transformers gives."""
    ids_BT, mask_BT = padded_tokens(side)
    positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    places = {} if isinstance(model, BertModel) else {"position_ids": positions_BT}
    with torch.no_grad():
        hidden_BTW: Tensor = model(ids_BT, attention_mask=mask_BT, **places).last_hidden_state
    if pooling == "mean":
        return (hidden_BTW * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
    last_B = (mask_BT * torch.arange(12)).argmax(dim=1)
    return hidden_BTW[torch.arange(2), 0 if pooling == "first" else last_B]


def require_equal(source: Path, folder: Path, expected_BW: Tensor, side: str = "right") -> None:
    """Require that our model of a source, and its graphs, make these vectors."""
    ids_BT, mask_BT = padded_tokens(side)
    with torch.no_grad():
        ours_BW = load_checkpoint(source).model(ids_BT, attention_mask=mask_BT).last_hidden_state
    torch.testing.assert_close(ours_BW, expected_BW, atol=1e-5, rtol=0)
    if side == "right":
        feeds = {"input_ids": ids_BT, "attention_mask": mask_BT}
        for vectors_BW in graph_outputs(source, folder, "sentence_embedding", feeds):
            np.testing.assert_allclose(vectors_BW, expected_BW.numpy(), atol=1e-5)


@pytest.mark.parametrize("family", each_family())
def test_the_last_token_of_a_decoder_makes_the_source_s_vectors(family: str, tmp_path: Path) -> None:
    source = save_source(source_model(family), tmp_path / "source")
    describe(source, "last", TRANSFORMER, POOLING, NORMALIZE)
    if family in REFUSED:
        with pytest.raises(InputError, match=f"layer 0 has {REFUSED[family]}") as caught:
            inspect_source(source)
        assert caught.value.where == str(source / "modules.json")
        return
    spec = inspect_source(source).spec
    assert (spec.head, [*spec.stacks]) == (EmbeddingHead(pooling="last"), ["encoder"])
    model = AutoModel.from_pretrained(source).eval()
    expected_BW = torch.nn.functional.normalize(vectors_of(model, "last"))
    require_equal(source, tmp_path, expected_BW)
    write_back(load_checkpoint(source), family, tmp_path / "back")
    assert inspect_source(tmp_path / "back").spec == spec
    again = AutoModel.from_pretrained(tmp_path / "back").eval()
    torch.testing.assert_close(torch.nn.functional.normalize(vectors_of(again, "last")), expected_BW)


@pytest.mark.parametrize(("number", "pooling"), [(1, "mean"), (2, "first"), (3, "last")])
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_says_how_its_states_make_vectors(
    tmp_path: Path, number: int, pooling: Pooling, tied: bool
) -> None:
    whole = gguf_model("qwen3", tie_word_embeddings=tied)
    settings = {"pooling_type": number}
    general = {"tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.add_bos_token": False}
    source = write_gguf(tmp_path / "model.gguf", whole, settings=settings, general=general)
    checkpoint = load_checkpoint(source)
    assert checkpoint.model.config.spec.head == EmbeddingHead(pooling=pooling)
    expected_BW = torch.nn.functional.normalize(vectors_of(whole.model.eval(), pooling))
    ids_BT, mask_BT = padded_tokens()
    with torch.no_grad():
        ours_BW = checkpoint.model(ids_BT, attention_mask=mask_BT).last_hidden_state
    torch.testing.assert_close(ours_BW, expected_BW, atol=1e-5, rtol=0)
    assert checkpoint.tokenizer("a text").input_ids[-1] == checkpoint.tokenizer.eos_token_id


def test_a_gguf_file_of_layers_that_no_encoder_has_makes_no_vectors(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "model.gguf", gguf_model("gpt_oss"), settings={"pooling_type": 3})
    with pytest.raises(InputError, match=r"states make vectors \(gpt-oss\.pooling_type\).* has sinks"):
        load_checkpoint(source)


def test_padding_may_stand_before_a_text(tmp_path: Path) -> None:
    source = save_source(source_model("qwen3"), tmp_path / "source")
    describe(source, "last", TRANSFORMER, POOLING, NORMALIZE)
    model = AutoModel.from_pretrained(source).eval()
    right_BW, left_BW = (vectors_of(model, "last", side) for side in ("right", "left"))
    require_equal(source, tmp_path, torch.nn.functional.normalize(left_BW), "left")
    assert not torch.allclose(right_BW, left_BW)
    ids_BT, mask_BT = padded_tokens("left")
    feeds = {"input_ids": ids_BT, "attention_mask": mask_BT}
    for vectors_BW in graph_outputs(source, tmp_path, "sentence_embedding", feeds):
        np.testing.assert_allclose(vectors_BW, torch.nn.functional.normalize(left_BW).numpy(), atol=1e-5)


def test_packed_texts_make_the_vectors_of_each(tmp_path: Path) -> None:
    source = save_source(source_model("qwen3"), tmp_path / "source")
    describe(source, "last", TRANSFORMER, POOLING)
    model = load_checkpoint(source).model
    ids_BT = tiny_tokens(1, 12)
    segments_BT = torch.tensor([[0] * 5 + [1] * 7])
    with torch.no_grad():
        packed_NW = model(ids_BT, segment_ids=segments_BT).last_hidden_state
        alone = [model(part).last_hidden_state for part in (ids_BT[:, :5], ids_BT[:, 5:])]
    torch.testing.assert_close(packed_NW, torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "sizes", [{}, {"num_key_value_heads": 4, "sliding_window": 3}], ids=["grouped", "even"]
)
def test_a_gemma_that_sees_both_sides_makes_the_source_s_vectors(
    tmp_path: Path, sizes: dict[str, Any]
) -> None:
    """As EmbeddingGemma, whose two linear layers after pooling are one here."""
    changes = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"], **sizes}
    whole = source_model("gemma3_text", use_bidirectional_attention=True, **changes)
    source = save_source(whole.model, tmp_path / "source")
    other = {**DENSE, "path": "3_Dense"}
    describe(source, "mean", TRANSFORMER, POOLING, DENSE, other, NORMALIZE)
    wide, narrow = add_dense(source, 32, 80, bias=False), add_dense(source, 80, 24, "3_Dense", bias=False)
    model = AutoModel.from_pretrained(source).eval()
    linear_BW = vectors_of(model, "mean") @ wide["linear.weight"].T @ narrow["linear.weight"].T
    expected_BW = torch.nn.functional.normalize(linear_BW)
    assert inspect_source(source).spec.head == EmbeddingHead(outputs=24, dense_bias=False)
    require_equal(source, tmp_path, expected_BW)
    write_back(load_checkpoint(source), "gemma3_text", tmp_path / "back")
    assert inspect_source(tmp_path / "back").spec == inspect_source(source).spec
    assert json.loads((tmp_path / "back" / "config.json").read_text())["use_bidirectional_attention"] is True
    require_equal(tmp_path / "back", tmp_path / "again", expected_BW)


def add_dense(
    source: Path, given: int, wanted: int, folder: str = "2_Dense", *, bias: bool = True, **settings: Any
) -> dict[str, Tensor]:
    """Add the files of a dense layer; return its tensors."""
    generator = torch.Generator().manual_seed(given + wanted)
    tensors = {"linear.weight": torch.randn(wanted, given, generator=generator) / given**0.5}
    tensors |= {"linear.bias": torch.randn(wanted, generator=generator)} if bias else {}
    (source / folder).mkdir(exist_ok=True)
    save_file(tensors, source / folder / "model.safetensors")
    named = {"activation_function": "torch.nn.modules.linear.Identity", **settings}
    config = {"in_features": given, "out_features": wanted, "bias": bias, **named}
    (source / folder / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.fixture
def labse(tmp_path: Path) -> Path:
    """A BERT with a dense layer and its activation after pooling, as LaBSE."""
    source = tmp_path / "source"
    save_bert(source, BertModel)
    describe(source, "first", TRANSFORMER, POOLING, DENSE, NORMALIZE)
    add_dense(source, 32, 24, activation_function="torch.nn.modules.activation.Tanh")
    return source


def test_a_dense_layer_after_pooling_makes_the_source_s_vectors(labse: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(labse).eval()
    tensors = add_dense(labse, 32, 24, activation_function="torch.nn.modules.activation.Tanh")
    dense_BV = vectors_of(model, "first") @ tensors["linear.weight"].T + tensors["linear.bias"]
    expected_BV = torch.nn.functional.normalize(torch.tanh(dense_BV))
    assert inspect_source(labse).spec.head == EmbeddingHead(pooling="first", outputs=24, activation="tanh")
    ids_BT, mask_BT = padded_tokens()
    for folder in (labse, tmp_path / "back"):
        with torch.no_grad():
            ours = load_checkpoint(folder).model(ids_BT, attention_mask=mask_BT).last_hidden_state
        torch.testing.assert_close(ours, expected_BV, atol=1e-5, rtol=0)
        feeds = {"input_ids": ids_BT, "attention_mask": mask_BT, "token_type_ids": torch.zeros_like(ids_BT)}
        for vectors_BV in graph_outputs(folder, tmp_path / f"of {folder.name}", "sentence_embedding", feeds):
            np.testing.assert_allclose(vectors_BV, expected_BV.numpy(), atol=1e-5)
        if folder == labse:
            write_back(load_checkpoint(labse), "bert", tmp_path / "back")


def test_biases_of_layers_in_a_row_are_counted_up(labse: Path) -> None:
    other = {**DENSE, "path": "3_Dense"}
    describe(labse, "first", TRANSFORMER, POOLING, DENSE, other)
    first, second = add_dense(labse, 32, 24), add_dense(labse, 24, 8, "3_Dense")
    dense = load_checkpoint(labse).model.get_submodule("dense")
    x_BW = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    between_BV = x_BW @ first["linear.weight"].T + first["linear.bias"]
    expected_BV = between_BV @ second["linear.weight"].T + second["linear.bias"]
    torch.testing.assert_close(dense(x_BW), expected_BV, atol=1e-5, rtol=0)


def test_a_layer_s_weights_are_of_the_source_s_fingerprint(labse: Path) -> None:
    before = source_sha256(labse)
    add_dense(labse, 32, 24, bias=False, activation_function="torch.nn.modules.activation.Tanh")
    assert source_sha256(labse) != before


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"in_features": 31}, "in_features 31, and the layer before gives 32"),
        ({"in_features": None}, "must have numbers"),
        ({"out_features": 0}, "must have numbers"),
        ({"bias": "no"}, "must have numbers"),
        ({"activation_function": "torch.nn.modules.activation.GELU"}, "has the activation_function"),
        ({"dropout": 0.5}, "keys that are not known: dropout"),
        ({"out_features": 23}, r"shape \(24, 32\) where the configuration needs \(23, 32\)"),
        ({"bias": False}, "'dense.bias' has no place"),
    ],
)
def test_a_dense_layer_at_fault_is_refused(labse: Path, settings: dict[str, Any], fault: str) -> None:
    path = labse / "2_Dense" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(InputError, match=fault):
        load_checkpoint(labse)


def test_files_of_a_dense_layer_at_fault_are_refused(labse: Path) -> None:
    weights = labse / "2_Dense" / "model.safetensors"
    save_file({"weight": torch.zeros(24, 32)}, weights)
    with pytest.raises(InputError, match=r"holds weight, not linear\.weight"):
        load_checkpoint(labse)
    weights.unlink()
    (labse / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"lacks model\.safetensors") as caught:
        load_checkpoint(labse)
    assert "Pickles" in str(caught.value.remedy)
    describe(labse, "first", TRANSFORMER, POOLING, DENSE, {**DENSE, "path": "3_Dense"})
    add_dense(labse, 32, 24, activation_function="torch.nn.modules.activation.Tanh")
    add_dense(labse, 24, 8, "3_Dense")
    with pytest.raises(InputError, match="reads what a layer with an activation gives"):
        inspect_source(labse)


def test_a_recipe_compresses_a_decoder_that_makes_vectors(tmp_path: Path) -> None:
    """Heads and channels are pruned, products are of integers, and the pruned model is written back."""
    source = save_source(source_model("qwen3"), tmp_path / "source")
    describe(source, "last", TRANSFORMER, POOLING, DENSE, NORMALIZE)
    add_dense(source, 32, 24)
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("\n\n".join([TEXT] * 40))
    prune = {**PRUNE, "head_ratio": 0.5, "recovery": {"training": training(10)}}
    quantize = {**QUANTIZE, "products": "integer"}
    carry_out(recipe(source, text, prune, quantize, gates={"min_cosine": 0.5}), run)
    metrics = metrics_of(run)
    assert metrics["task"] == "sentence_embedding"
    cosines = [stage["cosine"] for stage in metrics["stages"]]
    assert cosines[0] == pytest.approx(1, abs=1e-6)
    assert all(0.5 < each < 1 for each in cosines[1:])
    assert abs(cosines[2] - cosines[1]) < 0.05
    write_back(load_checkpoint(run / "01-prune" / "checkpoint"), "qwen3", tmp_path / "back")
    assert inspect_source(tmp_path / "back").spec.head == EmbeddingHead(pooling="last", outputs=24)


def test_a_checkpoint_of_ours_keeps_the_dense_layer(labse: Path, tmp_path: Path) -> None:
    before = load_checkpoint(labse)
    save_checkpoint(before, tmp_path / "ours")
    after = load_checkpoint(tmp_path / "ours")
    assert isinstance(after, Checkpoint)
    assert isinstance(after.model, RootsForEmbedding)
    assert after.model.config.spec == before.model.config.spec
    ids_BT, mask_BT = padded_tokens()
    with torch.no_grad():
        vectors = [each.model(ids_BT, attention_mask=mask_BT).last_hidden_state for each in (before, after)]
    torch.testing.assert_close(*vectors)


def test_a_graph_without_caches_is_one_that_optimum_loads(tmp_path: Path) -> None:
    """Whatever the size of its heads, which optimum takes for caches alone."""
    source = save_source(source_model("qwen3", head_dim=16), tmp_path / "source")
    describe(source, "last", TRANSFORMER, POOLING)
    assert "optimum cannot" not in roots("export", source, "--out", tmp_path / "graph")
    assert json.loads((tmp_path / "graph" / "config.json").read_text())["model_type"] == "qwen3"
