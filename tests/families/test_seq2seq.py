"""What every variant of a family of encoders and decoders gives equals transformers', both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.models.resizing import keep_units
from roots_compress.models.spec import Place
from roots_compress.runtime.onnx.seq2seq import OnnxSeq2Seq
from tests.families.sources import SEQ2SEQ_FIELDS, save_source, seq2seq
from tests.tasks.commands import roots
from tests.tiny import tiny_tokenizer, tiny_tokens

VARIANTS = [(family, dict(changes)) for family in SEQ2SEQ_FIELDS for changes in FAMILIES[family].variants]


@pytest.mark.parametrize(
    ("family", "changes"),
    VARIANTS,
    ids=["-".join((family, *map(str, each.values()))) for family, each in VARIANTS],
)
def test_logits_equal_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = seq2seq(family, changes)
    ours = load_checkpoint(save_source(theirs, tmp_path / "theirs"))
    assert ours.model.config.spec.parameters == ours.model.num_parameters()
    given = {"input_ids": tiny_tokens(2, 20), "decoder_input_ids": tiny_tokens(2, 11, seed=1)}
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    given["attention_mask"][0, 13:] = 0
    write_back(ours, family, tmp_path / "back")
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        found, expected, written = (model(**given).logits for model in (ours.model, theirs, again))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(written, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", list(SEQ2SEQ_FIELDS))
def test_beams_equal_those_of_transformers(family: str, tmp_path: Path) -> None:
    theirs = seq2seq(family, {})
    ours = load_checkpoint(save_source(theirs, tmp_path))
    settings: dict[str, Any] = {"max_new_tokens": 12, "num_beams": 3, "do_sample": False}
    found, expected = (
        each.generate(input_ids=tiny_tokens(2, 9), **settings)  # type: ignore[operator]
        for each in (ours.model, theirs)
    )
    assert torch.equal(found, expected)


def test_answers_that_begin_otherwise_than_targets_are_refused(tmp_path: Path) -> None:
    path = save_source(seq2seq("bart", {}), tmp_path) / "generation_config.json"
    for start in (2, None):
        path.write_text(json.dumps({"decoder_start_token_id": start}))
        assert load_checkpoint(tmp_path).model.generation_config.decoder_start_token_id == 2
    path.write_text(json.dumps({"decoder_start_token_id": 5}))
    with pytest.raises(InputError, match=r"decoder_start_token_id is 5, and 2 in config\.json") as caught:
        load_checkpoint(tmp_path)
    assert caught.value.where == str(path)


OF_PUBLISHED_BARTS = {
    "add_bias_logits": False, "classif_dropout": 0.0, "extra_pos_embeddings": 2, "save_step": 58,
    "force_bos_token_to_be_generated": True, "forced_bos_token_id": 0, "normalize_before": False,
    "replacing_rate": 0, "student_decoder_layers": None, "student_encoder_layers": None,
    "task_specific_params": {"summarization": {"min_length": 56}}, "output_past": True, "prefix": " ",
}  # fmt: skip


def test_keys_of_published_barts_are_understood(tmp_path: Path) -> None:
    save_source(seq2seq("bart", {}), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | OF_PUBLISHED_BARTS))
    assert load_checkpoint(tmp_path).model.config.is_encoder_decoder


def test_a_bart_without_a_head_is_one_whose_logits_have_no_bias(tmp_path: Path) -> None:
    whole = seq2seq("bart", {})
    bias: Any = whole.final_logits_bias
    bias.zero_()
    ours = load_checkpoint(save_source(whole.model, tmp_path))
    given = {"input_ids": tiny_tokens(2, 20), "decoder_input_ids": tiny_tokens(2, 11, seed=1)}
    with torch.no_grad():
        torch.testing.assert_close(ours.model(**given).logits, whole(**given).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "changes", "fault"),
    [
        (
            "bart",
            {"architectures": ["BartForSequenceClassification"]},
            "Classification, which does not write text",
        ),
        ("t5", {"architectures": ["T5ForSequenceClassification"]}, "which does not write text"),
        ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder must be true"),
    ],
)
def test_a_model_without_both_parts_is_refused_by_key(
    family: str, changes: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    save_source(seq2seq(family, {}), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=fault):
        load_checkpoint(tmp_path)


def test_a_marian_is_read_by_its_tokenizer_json(tmp_path: Path) -> None:
    """Of a class that reads two files of SentencePiece instead."""
    save_source(seq2seq("marian", {}), tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(
        json.dumps({**json.loads(settings.read_text()), "tokenizer_class": "MarianTokenizer"})
    )
    assert load_checkpoint(tmp_path).tokenizer("abc").input_ids == tiny_tokenizer()("abc").input_ids


def test_a_cut_layer_is_no_t5_any_more(tmp_path: Path) -> None:
    ours = load_checkpoint(save_source(seq2seq("t5", {}), tmp_path / "theirs"))
    keep_units(ours.model, Place(0, "self_attn"), "kv_groups", [0, 2, 3])
    with pytest.raises(Exception, match="does not fit the family t5"):
        write_back(ours, "t5", tmp_path / "back")


def test_a_t5_reads_more_tokens_than_it_was_trained_on(tmp_path: Path) -> None:
    theirs = seq2seq("t5", {"n_positions": 16})
    roots("export", save_source(theirs, tmp_path / "theirs"), "--out", tmp_path / "graph")
    ids_BS, target_BT = tiny_tokens(1, 600), tiny_tokens(1, 20, seed=1)
    found = OnnxSeq2Seq.open(tmp_path / "graph" / "decoder_model_merged.onnx").read(ids_BS.numpy())
    with torch.no_grad():
        expected = theirs(input_ids=ids_BS, decoder_input_ids=target_BT).logits
    torch.testing.assert_close(torch.from_numpy(found.logits(target_BT.numpy())), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [True, False, None])
def test_a_key_that_makes_both_stacks_causal_or_neither_is_refused(
    value: bool | None, tmp_path: Path
) -> None:
    source = save_source(seq2seq("t5", {}), tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"is_causal": value}))
    with pytest.raises(InputError, match="is_causal"):
        load_checkpoint(source)
