"""What is imported of an adapter equals its base with the weights that the papers' formulas give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from roots_compress.checkpoints.checkpoint import load_checkpoint
from tests.checkpoints.adapters.files import Written
from tests.encoders import save_bert
from tests.families.sources import save_source, seq2seq, source_model
from tests.tiny import tiny_tokens

LINEAR = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")


def logits(model: PreTrainedModel, ids_BT: Tensor, **others: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=ids_BT, **others).logits
    return found


def require_equal(written: Written, **others: Any) -> PreTrainedModel:
    """Require that what is imported gives the logits of the changed model; return it."""
    ours = load_checkpoint(written.save()).model
    ids_BT = tiny_tokens(2, 12)
    expected = logits(written.model, ids_BT, **others)
    torch.testing.assert_close(logits(ours, ids_BT, **others), expected, atol=2e-5, rtol=0)
    return ours


def adapter(folder: Path, family: str = "llama", *, of: Any = None, **settings: Any) -> Written:
    """Return an adapter without tensors, beside a base of a family."""
    model = source_model(family, **(of or {}))
    base = save_source(model, folder / "base")
    return Written(model, folder / "adapter", base, **settings)


@pytest.mark.parametrize(
    "settings", [{}, {"use_rslora": True}, {"use_dora": True}, {"init_lora_weights": "gaussian", "r": 8}]
)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_linear_layers(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    written = adapter(tmp_path, family, **settings)
    for layer in range(2):
        for name in LINEAR[: 5 - layer]:
            written.low_rank(f"model.layers.{layer}.{name}", rank=settings.get("r", 4))
    require_equal(written)


def test_patterns_of_names_give_ranks_and_alphas(tmp_path: Path) -> None:
    ranks = {"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 6}
    alphas = {"down_proj": 5, "^model.layers.0.self_attn.v_proj": 7}
    written = adapter(tmp_path, rank_pattern=ranks, alpha_pattern=alphas)
    written.low_rank("model.layers.0.self_attn.q_proj", rank=2)
    written.low_rank("model.layers.0.self_attn.v_proj", alpha=7)
    written.low_rank("model.layers.1.self_attn.v_proj", rank=6)
    written.low_rank("model.layers.1.mlp.down_proj", alpha=5)
    require_equal(written)


@pytest.mark.parametrize("dora", [True, False])
def test_matrices_that_are_stored_the_other_way_round(dora: bool, tmp_path: Path) -> None:
    written = adapter(tmp_path, "gpt2", use_dora=dora, fan_in_fan_out=True)
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        written.low_rank(f"transformer.h.1.{name}", turned=True)
    require_equal(written)


def test_biases_that_are_added_and_replaced(tmp_path: Path) -> None:
    written = adapter(tmp_path, "qwen2", lora_bias=True, bias="all")
    written.low_rank("model.layers.0.self_attn.q_proj", bias=True)
    written.whole("model.layers.1.self_attn.k_proj.bias")
    written.tensors = {
        name.replace("k_proj.bias", "k_proj.base_layer.bias"): each for name, each in written.tensors.items()
    }
    written.whole("model.norm.weight")
    require_equal(written)


@pytest.mark.parametrize("dora", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_s_update_is_not_the_head_s(tied: bool, dora: bool, tmp_path: Path) -> None:
    """Peft's `merge_and_unload` changes a tied head too, and its adapted model does not."""
    written = adapter(tmp_path, of={"tie_word_embeddings": tied}, use_dora=dora)
    head = written.model.lm_head
    assert isinstance(head, nn.Linear)
    head.weight = nn.Parameter(head.weight.detach().clone())
    written.table("model.embed_tokens")
    ours = require_equal(written)
    assert not ours.config.tie_word_embeddings


def test_a_tied_head_s_update_is_not_the_embedding_s(tmp_path: Path) -> None:
    written = adapter(tmp_path, of={"tie_word_embeddings": True})
    head = written.model.lm_head
    assert isinstance(head, nn.Linear)
    head.weight = nn.Parameter(head.weight.detach().clone())
    written.low_rank("lm_head")
    written.low_rank("model.layers.0.mlp.up_proj")
    assert not require_equal(written).config.tie_word_embeddings


@pytest.mark.parametrize("whole", [True, False])
def test_a_tied_head_follows_where_the_settings_say_so(whole: bool, tmp_path: Path) -> None:
    written = adapter(tmp_path, of={"tie_word_embeddings": True}, ensure_weight_tying=True)
    before = written.model.get_submodule("model.embed_tokens").get_parameter("weight").detach().clone()
    if whole:
        written.whole("model.embed_tokens.weight")
    else:
        written.table("model.embed_tokens")
        down, up = (
            written.tensors[f"base_model.model.model.embed_tokens.lora_embedding_{each}"] for each in "AB"
        )
        written.put("lm_head.lora_A.weight", up.T)
        written.put("lm_head.lora_B.weight", down.T)
        for module in ("model.embed_tokens", "lm_head"):
            written.put(f"{module}.base_layer.weight", before.clone())
    written.model.tie_weights()
    assert require_equal(written).config.tie_word_embeddings


@pytest.mark.parametrize("alike", [True, False])
def test_an_embedding_and_a_tied_head_that_are_both_replaced(alike: bool, tmp_path: Path) -> None:
    written = adapter(tmp_path, of={"tie_word_embeddings": True})
    written.whole("model.embed_tokens.weight")
    if alike:
        written.model.tie_weights()
        written.put("lm_head.weight", written.tensors["base_model.model.model.embed_tokens.weight"].clone())
    else:
        written.whole("lm_head.weight")
    assert require_equal(written).config.tie_word_embeddings == alike


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_some_tokens(tied: bool, tmp_path: Path) -> None:
    tokens: Any = [3, 7, 290] if tied else {"embed_tokens": [3, 7], "lm_head": [1, 2, 5]}
    written = adapter(tmp_path, of={"tie_word_embeddings": tied}, trainable_token_indices=tokens)
    for name, module in {"embed_tokens": "model.embed_tokens", "lm_head": "lm_head"}.items():
        if not tied or name == "embed_tokens":
            indices = tokens if tied else tokens[name]
            rows = written.put(
                f"{module}.token_adapter.trainable_tokens_delta", written.draw(len(indices), 32)
            )
            written.model.get_submodule(module).get_parameter("weight").data[indices] = rows
    assert require_equal(written).config.tie_word_embeddings == tied


def test_an_embedding_of_more_rows_is_the_model_s(tmp_path: Path) -> None:
    written = adapter(tmp_path, of={"tie_word_embeddings": True})
    before = written.model.config.vocab_size
    written.model.resize_token_embeddings(before + 8)
    written.whole("model.embed_tokens.weight")
    written.model.tie_weights()
    written.low_rank("model.layers.0.mlp.up_proj")
    assert require_equal(written).config.vocab_size == before + 8


def test_the_experts_of_a_layer(tmp_path: Path) -> None:
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"]
    ranks = {r"experts\.down_proj": 3}
    written = adapter(tmp_path, "qwen3_moe", target_parameters=parameters, rank_pattern=ranks)
    written.experts("model.layers.1.mlp.experts", "gate_up_proj", wrapped=True)
    written.experts("model.layers.1.mlp.experts", "down_proj", wrapped=False, rank=3)
    written.low_rank("model.layers.0.mlp.gate")
    require_equal(written)


@pytest.mark.parametrize(
    ("family", "module", "router"),
    [
        ("mixtral", "mlp", "gate"),
        ("granitemoe", "block_sparse_moe", None),
        ("qwen3_5_moe_text", "mlp", "gate"),
    ],
)
def test_experts_that_files_name_otherwise(
    family: str, module: str, router: str | None, tmp_path: Path
) -> None:
    written = adapter(tmp_path, family, target_parameters=["experts.down_proj"])
    written.experts(f"model.layers.0.{module}.experts", "down_proj", wrapped=False)
    if router is not None:
        written.low_rank(f"model.layers.1.{module}.{router}")
    require_equal(written)


def test_each_expert_by_itself(tmp_path: Path) -> None:
    """As adapters name them that were trained with transformers 4."""
    written = adapter(tmp_path, "qwen3_moe")
    experts = written.model.get_submodule("model.layers.0.mlp.experts")
    down = written.put("model.layers.0.mlp.experts.2.up_proj.lora_A.weight", written.draw(4, 32))
    up = written.put("model.layers.0.mlp.experts.2.up_proj.lora_B.weight", written.draw(24, 4))
    assert isinstance(experts.gate_up_proj, Tensor)
    experts.gate_up_proj.data[2, 24:] += written.scale(4) * up @ down
    require_equal(written)


def test_experts_that_are_stored_the_other_way_round(tmp_path: Path) -> None:
    """Of one width, as in gpt-oss-20b, the shapes do not tell it."""
    of = {"intermediate_size": 32}
    parameters = ["experts.gate_up_proj", "experts.down_proj"]
    written = adapter(tmp_path, "gpt_oss", of=of, target_parameters=parameters)
    for parameter in ("gate_up_proj", "down_proj"):
        wrapped = parameter == "gate_up_proj"
        written.experts("model.layers.0.mlp.experts", parameter, wrapped=wrapped, turned=True)
    require_equal(written)


def labelled(folder: Path, kind: type[PreTrainedModel], task: str | None, **settings: Any) -> Written:
    """Return an adapter of BERT that gives labels, with a head for them."""
    save_bert(folder / "base", BertForPreTraining)
    model = kind.from_pretrained(folder / "base", num_labels=3).eval()
    written = Written(model, folder / "adapter", folder / "base", task_type=task, **settings)
    prefix = "bert.encoder.layer.0."
    for name in ("attention.self.query", "attention.output.dense", "output.dense"):
        written.low_rank(prefix + name)
    for part in ("weight", "bias"):
        written.whole(f"classifier.{part}")
    return written


@pytest.mark.parametrize("named", [True, False])
def test_a_classifier_on_a_base_of_another_head(named: bool, tmp_path: Path) -> None:
    mapping = {"base_model_class": "BertForSequenceClassification", "parent_library": "transformers"}
    settings = {"auto_mapping": mapping} if named else {}
    written = labelled(tmp_path, BertForSequenceClassification, None if named else "SEQ_CLS", **settings)
    written.low_rank("bert.pooler.dense")
    assert type(require_equal(written)).__name__ == "RootsForSequenceClassification"


def test_a_classifier_of_words(tmp_path: Path) -> None:
    """With all biases peft writes those of a replaced module three times, one of them as it was."""
    written = labelled(tmp_path, BertForTokenClassification, "TOKEN_CLS", bias="all")
    written.whole("bert.encoder.layer.1.output.LayerNorm.bias")
    found = written.tensors["base_model.model.classifier.bias"]
    written.put("classifier.modules_to_save.bias", found.clone())
    written.put("classifier.original_module.bias", torch.zeros(3))
    require_equal(written)


def test_a_classifier_on_a_decoder(tmp_path: Path) -> None:
    save_source(source_model("llama", pad_token_id=2), tmp_path / "base")
    model = LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=4).eval()
    written = Written(model, tmp_path / "adapter", tmp_path / "base", task_type="SEQ_CLS")
    written.low_rank("model.layers.0.self_attn.q_proj")
    written.whole("score.weight")
    require_equal(written)


def test_an_encoder_with_a_decoder(tmp_path: Path) -> None:
    save_source(seq2seq("t5", {}), tmp_path / "base")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base").eval()
    written = Written(model, tmp_path / "adapter", tmp_path / "base", task_type="SEQ_2_SEQ_LM")
    written.low_rank("encoder.block.0.layer.0.SelfAttention.q")
    written.low_rank("decoder.block.1.layer.1.EncDecAttention.v")
    written.low_rank("decoder.block.1.layer.2.DenseReluDense.wo")
    require_equal(written, decoder_input_ids=tiny_tokens(2, 5, seed=1))
