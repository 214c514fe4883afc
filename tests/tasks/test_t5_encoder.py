"""The encoder of a T5 alone, whose states make vectors: sentence-T5, GTR, and GGUF's t5encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.models.ops.heads import EmbeddingHead
from tests.families.sources import save_source, seq2seq
from tests.tasks.commands import graph_outputs, roots
from tests.tasks.test_embedding import NORMALIZE, POOLING, TRANSFORMER, describe
from tests.tiny import TEXT, tiny_tokens

CLASSES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel"}
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
VARIANTS = [(family, dict(changes)) for family in CLASSES for changes in FAMILIES[family].variants]


def alone(whole: PreTrainedModel, family: str, folder: Path) -> PreTrainedModel:
    """Return the encoder of a model, as transformers loads it, and write it into a folder."""
    whole.save_pretrained(folder / "whole")
    theirs: PreTrainedModel = getattr(transformers, CLASSES[family]).from_pretrained(folder / "whole").eval()
    save_source(theirs, folder / "source")
    return theirs


def texts() -> tuple[Tensor, Tensor]:
    """Return three texts, and the mask of their tokens: one is padded before, one after."""
    ids_BT, mask_BT = tiny_tokens(3, 20), torch.ones(3, 20, dtype=torch.long)
    mask_BT[0, 13:] = 0
    return ids_BT[:2], mask_BT[:2]


def vectors(theirs: PreTrainedModel, weight_OW: Tensor | None = None) -> Tensor:
    """Return the mean states of texts, times a matrix, of length 1."""
    ids_BT, mask_BT = texts()
    with torch.no_grad():
        states_BTW = theirs(ids_BT, attention_mask=mask_BT).last_hidden_state
    mean_BW = (states_BTW * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
    made_BO = mean_BW if weight_OW is None else mean_BW @ weight_OW.T
    return torch.nn.functional.normalize(made_BO)


def require_equal(source: Path, expected_BO: Tensor, graphs: Path | None = None) -> None:
    """Require that our model of a source makes these vectors, and its graphs do, if they are asked for."""
    ids_BT, mask_BT = texts()
    with torch.no_grad():
        ours_BO = load_checkpoint(source).model(ids_BT, attention_mask=mask_BT).last_hidden_state
    torch.testing.assert_close(ours_BO, expected_BO, atol=1e-4, rtol=0)
    feeds = {"input_ids": ids_BT, "attention_mask": mask_BT}
    for made_BO in graph_outputs(source, graphs, "sentence_embedding", feeds) if graphs else ():
        np.testing.assert_allclose(made_BO, expected_BO.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("family", "changes"), VARIANTS, ids=["-".join((name, *map(str, each))) for name, each in VARIANTS]
)
def test_states_equal_those_of_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = alone(seq2seq(family, changes), family, tmp_path)
    require_equal(tmp_path / "source", vectors(theirs))
    ours = load_checkpoint(tmp_path / "source")
    assert ours.model.config.spec.parameters == ours.model.num_parameters()
    write_back(ours, family, tmp_path / "back")
    assert inspect_source(tmp_path / "back").spec == ours.model.config.spec
    again = getattr(transformers, CLASSES[family]).from_pretrained(tmp_path / "back").eval()
    torch.testing.assert_close(vectors(again), vectors(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"feed_forward_proj": "gated-gelu", "num_heads": 2, "d_kv": 12}])
def test_a_graph_makes_the_vectors(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = alone(seq2seq("t5", changes), "t5", tmp_path)
    require_equal(tmp_path / "source", vectors(theirs), tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_as_sentence_t5_has_it(whole: bool, tmp_path: Path) -> None:
    """The mean, a dense layer without a bias, and the length 1; sentence-transformers takes the encoder."""
    theirs = alone(seq2seq("t5", {}), "t5", tmp_path)
    source = tmp_path / "source"
    if whole:
        for name in ("config.json", "model.safetensors"):
            (tmp_path / "whole" / name).replace(source / name)
    describe(source, "mean", TRANSFORMER, POOLING, DENSE, {**NORMALIZE, "path": "3_Normalize"})
    (source / "2_Dense").mkdir()
    identity = "torch.nn.modules.linear.Identity"
    settings = {"in_features": 32, "out_features": 24, "bias": False, "activation_function": identity}
    (source / "2_Dense" / "config.json").write_text(json.dumps(settings))
    weight_OW = torch.randn(24, 32, generator=torch.Generator().manual_seed(0))
    save_file({"linear.weight": weight_OW}, source / "2_Dense" / "model.safetensors")
    (source / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    spec = inspect_source(source).spec
    assert spec.head == EmbeddingHead(outputs=24, dense_bias=False)
    assert (spec.max_positions, [*spec.stacks]) == (32, ["encoder"])
    require_equal(source, vectors(theirs, weight_OW), tmp_path)


def test_of_a_bart_s_folder_no_encoder_is_taken(tmp_path: Path) -> None:
    source = save_source(seq2seq("bart", {}), tmp_path / "source")
    describe(source, "mean", TRANSFORMER, POOLING)
    with pytest.raises(InputError, match="an encoder before a decoder is for models that write text"):
        inspect_source(source)


def test_a_tensor_of_no_part_is_refused(tmp_path: Path) -> None:
    alone(seq2seq("t5", {}), "t5", tmp_path)
    path = tmp_path / "source" / "model.safetensors"
    save_file({**load_file(path), "encoder.block.7.layer.0.layer_norm.weight": torch.ones(32)}, path)
    with pytest.raises(InputError, match=r"encoder\.block\.7"):
        load_checkpoint(tmp_path / "source")


def test_a_chain(tmp_path: Path) -> None:
    source = tmp_path / "source"
    alone(seq2seq("t5", {"num_layers": 3}), "t5", tmp_path)
    describe(source, "mean", TRANSFORMER, POOLING, NORMALIZE)
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("\n\n".join([TEXT] * 40))
    calibration = {"windows": 8, "block_size": 32}
    training = {"steps": 10, "batch_size": 4, "block_size": 32, "learning_rate": 0.003}
    cut = {"ratio": 0.25, "head_ratio": 0.5, "multiple_of": 4, "calibration": calibration}
    recipe = {
        "name": "tiny",
        "model": str(source),
        "data": {"train": [str(text)]},
        "evaluation": {"windows": 4, "block_size": 32, "contexts": [16], "repeats": 1},
        "stages": [
            {"kind": "distill", "student": "small", "training": training},
            {"kind": "prune", **cut, "recovery": {"training": training}},
            {"kind": "quantize", "scheme": "int8", "calibration": calibration},
        ],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    roots("run", path, "--run", run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["task"] == "sentence_embedding"
    sizes = [stage["bytes"] for stage in metrics["stages"]]
    assert len(sizes) == 4
    assert sizes == sorted(sizes, reverse=True)
    assert all(0.5 < stage["cosine"] <= 1.000001 for stage in metrics["stages"])


PIECES = ["<pad>", "</s>", "<unk>", *(f"\u2581{each}" for each in "abcdefgh"), *"abcdefghijklmnopqrstuvwxyz"]
NORMAL, UNKNOWN, CONTROL = 1, 2, 3


def write_gguf(path: Path, model: PreTrainedModel, **changes: Any) -> Path:
    """Write an encoder as llama.cpp's converter does, with a tokenizer of some letters."""
    config: Any = model.config
    keys = {
        "block_count": config.num_layers,
        "context_length": 512,
        "embedding_length": config.d_model,
        "feed_forward_length": config.d_ff,
        "attention.head_count": config.num_heads,
        "attention.key_length": config.d_kv,
        "attention.value_length": config.d_kv,
        "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        "attention.layer_norm_rms_epsilon": config.layer_norm_epsilon,
        "attention.relative_buckets_count": config.relative_attention_num_buckets,
        **changes,
    }
    writer = gguf.GGUFWriter(path, "t5encoder")
    for name, value in keys.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"t5encoder.{name}", value)
    writer.add_tokenizer_model("t5")
    writer.add_token_list(PIECES)
    writer.add_token_scores([0.0] * 3 + [-float(each) for each in range(len(PIECES) - 3)])
    writer.add_token_types([CONTROL, CONTROL, UNKNOWN, *[NORMAL] * (len(PIECES) - 3)])
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_add_eos_token(True)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, config.num_layers)
    for name, tensor in model.state_dict().items():
        if name != "encoder.embed_tokens.weight":
            writer.add_tensor(f"{names.get_name(name.removesuffix('.weight'))}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"feed_forward_proj": "relu"},
        {"feed_forward_proj": "gated-gelu", "d_kv": 12, "relative_attention_num_buckets": 16},
    ],
)
def test_a_gguf_file_gives_the_source_s_vectors(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = alone(seq2seq("t5", {**changes, "num_layers": 3}), "t5", tmp_path)
    source = write_gguf(tmp_path / "m.gguf", theirs)
    require_equal(source, vectors(theirs), tmp_path)
    assert load_checkpoint(source).tokenizer("ab").input_ids[-1] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention.relative_buckets_count": 0}, "relative_buckets_count"),
        ({"attention.layer_norm_epsilon": 0.5}, "layer_norm_epsilon"),
        ({"decoder_start_token_id": 3}, "decoder_start_token_id"),
        ({"pooling_type": 4}, "pooling_type"),
    ],
)
def test_a_gguf_file_that_says_more_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    theirs = alone(seq2seq("t5", {}), "t5", tmp_path)
    with pytest.raises(InputError, match=said):
        load_checkpoint(write_gguf(tmp_path / "m.gguf", theirs, **changes))
