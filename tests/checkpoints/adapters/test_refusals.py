"""Adapters that are refused, and where an adapter's files and its base's are found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.checkpoints.fingerprint import source_sha256
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.errors import InputError
from tests.checkpoints.adapters.files import Written
from tests.families.sources import save_source, seq2seq, source_model
from tests.tasks.commands import roots
from tests.tiny import tiny_tokenizer, tiny_tokens

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """An adapter of one layer, beside its base."""
    model = source_model("llama", tie_word_embeddings=False)
    base = save_source(model, tmp_path / "base")
    found = Written(model, tmp_path / "adapter", base)
    found.low_rank(QUERY)
    found.save()
    return found


def refused(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": None}, "peft_type is null"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"use_qalora": True}, "use_qalora"),
        ({"loftq_config": {"loftq_bits": 4}}, "loftq_config"),
        ({"an_unknown_key": 1}, "an_unknown_key"),
        ({"task_type": "QUESTION_ANS"}, "QUESTION_ANS"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": "12"}, "lora_alpha is '12'"),
        ({"alpha_pattern": {"(a+)+": 2}}, "too complex"),
        ({"alpha_pattern": {"a?" * 30: 2}}, "too complex"),
        ({"rank_pattern": {"(": 2}}, "too complex"),
        ({"rank_pattern": [1]}, "rank_pattern"),
        ({"trainable_token_indices": [-1]}, "trainable_token_indices"),
        ({"trainable_token_indices": [3, 4, 3]}, "lists a token twice"),
        ({"target_parameters": 1.5}, "target_parameters is 1.5"),
        ({"use_rslora": 1}, "use_rslora is 1"),
    ],
)
def test_settings_that_ask_for_more_are_refused_by_their_key(
    settings: dict[str, Any], said: str, written: Written
) -> None:
    written.set(**settings)
    error = refused(written.folder)
    assert said in error.message
    assert error.where == str(written.folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("model.vision.lora_A.weight", (4, 32), "has no place in the base"),
        (f"{QUERY}.lora_E", (4, 1), "kind of update that is not read"),
        (f"{QUERY}.lora_B.bias", (32,), "a bias that the base does not have"),
        (f"{QUERY}.lora_A.weight", (5, 32), "[5, 32]; by the base and its settings it would be [4, 32]"),
        (f"{QUERY}.lora_B.weight", (31, 4), "[32, 4]"),
        (f"{QUERY}.lora_magnitude_vector", (32,), "a lora_magnitude_vector beside it, and use_dora is False"),
        (f"{QUERY}.lora_embedding_A", (4, 32), "another kind of update"),
        (f"{QUERY}.base_layer.lora_A.weight", (4, 32), "second update"),
        ("model.layers.1.mlp.up_proj.lora_B.weight", (48, 4), "without lora_A.weight"),
        ("model.layers.0.mlp.experts.lora_A.weight", (4, 32), "has no place in the base"),
        ("model.layers.9.mlp.up_proj.weight", (4, 32), "has no place in the base"),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", (2, 32), "[0, 32]"),
        ("prompt_embeddings", (4, 32), "has no place in the base"),
    ],
)  # fmt: skip
def test_a_tensor_without_a_use_is_refused_by_its_name(
    name: str, shape: tuple[int, ...], said: str, written: Written
) -> None:
    written.put(name, torch.zeros(shape))
    written.save()
    error = refused(written.folder)
    assert said in error.message
    assert "tensor 'base_model.model." in error.message
    assert error.where == str(written.folder / "adapter_model.safetensors")


def test_lengths_that_are_asked_for_must_be_there(written: Written) -> None:
    written.set(use_dora=True)
    assert "has no lora_magnitude_vector" in refused(written.folder).message
    written.put(f"{QUERY}.lora_magnitude_vector", torch.zeros(5))
    written.save()
    assert "has the shape [5]" in refused(written.folder).message


def test_a_token_beyond_the_table_is_refused(written: Written) -> None:
    written.put("model.embed_tokens.token_adapter.trainable_tokens_delta", torch.zeros(1, 32))
    written.save()
    written.set(trainable_token_indices=[99999])
    assert "99999" in refused(written.folder).message


def test_the_table_that_an_encoder_and_its_decoder_share_is_left_alone(tmp_path: Path) -> None:
    model = seq2seq("t5", {})
    written = Written(model, tmp_path / "adapter", save_source(model, tmp_path / "base"))
    written.table("encoder.embed_tokens")
    assert "encoder.embed_tokens" in refused(written.save()).message


@pytest.mark.parametrize("way", ["absolute", "relative", "same folder"])
def test_a_base_is_found_by_its_path_or_beside_the_adapter(
    way: str, written: Written, tmp_path: Path
) -> None:
    if way == "absolute":
        written.set(base_model_name_or_path=str(tmp_path / "base"))
    if way == "same folder":
        written.set(base_model_name_or_path="org/name")
        for path in (tmp_path / "base").iterdir():
            shutil.copyfile(path, written.folder / path.name)
    ours = load_checkpoint(written.folder)
    ids_BT = tiny_tokens(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids_BT).logits, written.model(ids_BT).logits, atol=2e-5, rtol=0)


@pytest.mark.parametrize("named", ["meta-llama/Llama-3.2-1B", None, "", 5, "a\0b"])
def test_a_base_that_is_not_here_is_not_downloaded(named: Any, written: Written) -> None:
    written.set(base_model_name_or_path=named)
    error = refused(written.folder)
    assert "base_model_name_or_path" in error.message
    assert "nothing is downloaded" in error.message


def test_a_base_that_is_none_is_refused(written: Written, tmp_path: Path) -> None:
    save_checkpoint(load_checkpoint(tmp_path / "base"), tmp_path / "roots")
    written.set(base_model_name_or_path="../roots")
    assert "ROOTS checkpoint" in refused(written.folder).message
    shutil.copytree(written.folder, tmp_path / "second")
    written.set(base_model_name_or_path="../second")
    assert "has an adapter too" in refused(written.folder).message


def test_a_quantized_base_is_refused_by_its_key(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {"bits": 4}}))
    assert "quantization_config" in refused(written.folder).message


@pytest.mark.parametrize(
    ("removed", "put"),
    [
        ("adapter_model.safetensors", None),
        ("adapter_config.json", None),
        ("adapter_model.safetensors", "adapter_model.bin"),
        ("adapter_model.safetensors", "adapters.safetensors"),
    ],
)
def test_half_an_adapter_or_one_of_another_form_is_refused(
    removed: str, put: str | None, written: Written
) -> None:
    (written.folder / removed).unlink()
    if put is not None:
        (written.folder / put).write_bytes(b"")
    error = refused(written.folder)
    assert put is None or put in str(error.where)
    assert "merge_and_unload" in str(error.remedy)


def test_a_damaged_file_is_refused_by_name(written: Written) -> None:
    path = written.folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert str(path) in str(refused(written.folder).where)


def test_the_adapter_s_tokenizer_goes_before_the_base_s(written: Written, tmp_path: Path) -> None:
    assert inspect_source(written.folder).folder_with("tokenizer.json") == tmp_path / "base"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(written.folder)
    assert load_checkpoint(written.folder).tokenizer.chat_template == "{{ messages }}"
    (tmp_path / "base" / "tokenizer.json").unlink()
    assert load_checkpoint(written.folder).tokenizer.chat_template == "{{ messages }}"


def test_a_folder_of_adapters_names_the_last(written: Written, tmp_path: Path) -> None:
    for name in ("checkpoint-500", "checkpoint-1000"):
        shutil.copytree(written.folder, tmp_path / "out" / name)
    assert refused(tmp_path / "out").remedy == f"Name {tmp_path / 'out' / 'checkpoint-1000'}."


def test_the_hash_is_of_both_folders(written: Written, tmp_path: Path) -> None:
    first = source_sha256(written.folder)
    assert source_sha256(written.folder) == first
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text() + " ")
    second = source_sha256(written.folder)
    written.set(lora_alpha=13)
    assert len({first, second, source_sha256(written.folder)}) == 3


def test_a_command_takes_an_adapter_for_a_checkpoint(written: Written, tmp_path: Path) -> None:
    said = roots("import", str(written.folder), "--out", str(tmp_path / "merged"))
    assert f"the adapter was added to {tmp_path / 'base'}" in said
    ids_BT = tiny_tokens(2, 12)
    with torch.no_grad():
        merged = load_checkpoint(tmp_path / "merged").model(ids_BT).logits
        torch.testing.assert_close(merged, written.model(ids_BT).logits, atol=2e-5, rtol=0)
