"""Encoders as GGUF files, named and laid out as llama.cpp's converter does it, give the source's vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import BertModel, BertTokenizerFast  # type: ignore[attr-defined]

from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.checkpoints.gguf.tokenizer import gguf_tokenizer
from roots_compress.errors import InputError
from tests.encoders import bert_config
from tests.tasks.commands import roots

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = [
    *SPECIAL,
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    "the",
    "cat",
    "##ing",
    ",",
    "!",
    "\u4e2d",
]
IDS = {"padding": 0, "unknown": 1, "cls": 2, "seperator": 3, "mask": 4}
NORMAL, CONTROL = 1, 3
TEXTS = ["The CAT, thé cating!", "[CLS] the[MASK]cat [unused0]", "\u4e2dthe unknown \u00df", "", "x" * 101]


def write(
    path: Path, model: BertModel, vocabulary: list[str] = VOCABULARY, *, early: bool = False, **changes: Any
) -> Path:
    """Write a model; changed keys are the architecture's, or whole where a dot is in them.

    Early converters put no space before what is in brackets.
    """
    config = model.config
    keys: dict[str, Any] = {
        "bert.block_count": config.num_hidden_layers,
        "bert.context_length": config.max_position_embeddings,
        "bert.embedding_length": config.hidden_size,
        "bert.feed_forward_length": config.intermediate_size,
        "bert.attention.head_count": config.num_attention_heads,
        "bert.attention.layer_norm_epsilon": config.layer_norm_eps,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.token_type_count": config.type_vocab_size,
        **{f"tokenizer.ggml.{name}_token_id": index for name, index in IDS.items()},
    }
    keys |= {name if "." in name else f"bert.{name}": value for name, value in changes.items()}
    writer = gguf.GGUFWriter(path, "bert")
    adders: dict[type, Any] = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    for name, value in keys.items():
        if value is not None:
            adders[type(value)](name, value)
    types = [CONTROL if token in SPECIAL[:5] else NORMAL for token in vocabulary]
    writer.add_tokenizer_model("bert")
    writer.add_token_list(
        [
            token
            if kind == CONTROL or (early and token[0] == "[")
            else token[2:]
            if token.startswith("##")
            else "\u2581" + token
            for token, kind in zip(vocabulary, types, strict=True)
        ]
    )
    writer.add_token_types(types)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if not name.startswith("pooler."):
            stem, _, part = name.rpartition(".")
            writer.add_tensor(f"{names.get_name(stem)}.{part}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def source(**changes: Any) -> BertModel:
    torch.manual_seed(0)
    model = BertModel(bert_config(vocab_size=len(VOCABULARY), **changes))
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.3)
    model.eval()
    return model


@pytest.mark.parametrize(
    ("pooling", "changes"),
    [(1, {}), (2, {"num_attention_heads": 1}), (3, {}), (None, {"layer_norm_eps": 0.01})],
)
def test_vectors_are_those_of_the_source(
    pooling: int | None, changes: dict[str, Any], tmp_path: Path
) -> None:
    theirs = source(**changes)
    ours = load_checkpoint(write(tmp_path / "m.gguf", theirs, pooling_type=pooling)).model.eval()
    input_ids, mask = torch.randint(6, 40, (2, 12)), torch.ones(2, 12, dtype=torch.int64)
    mask[1, 7:] = 0
    with torch.no_grad():
        states = theirs(input_ids=input_ids, attention_mask=mask).last_hidden_state
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        pooled = {1: mean, 2: states[:, 0], 3: states[[0, 1], [11, 6]]}
        expected = torch.nn.functional.normalize(pooled[pooling or 1])
        found = ours(input_ids=input_ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("early", [False, True])
def test_texts_are_read_as_berts_tokenizer_reads_them(early: bool, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    theirs = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    ours = gguf_tokenizer(write(tmp_path / "m.gguf", source(), early=early))
    assert ours.get_vocab() == theirs.get_vocab()
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
    assert dict(ours("the", "cat")) == dict(theirs("the", "cat"))
    assert ours.decode(ours("cating")["input_ids"]) == theirs.decode(theirs("cating")["input_ids"])
    assert ours.special_tokens_map == theirs.special_tokens_map


def test_the_file_goes_through_the_verbs(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", source())
    save_checkpoint(load_checkpoint(path), tmp_path / "saved")
    assert load_checkpoint(tmp_path / "saved").tokenizer("the cat")["input_ids"] == [2, 78, 79, 3]
    assert "agrees with the checkpoint" in roots("export", path, "--out", tmp_path / "graph")


def test_a_cased_vocabulary_needs_the_key_that_says_so(tmp_path: Path) -> None:
    cased = [*VOCABULARY[:-1], "Cat"]
    with pytest.raises(InputError, match=r"has 'Cat', but tokenizer\.ggml\.normalizer\.lowercase"):
        gguf_tokenizer(write(tmp_path / "m.gguf", source(), cased))
    said = {"tokenizer.ggml.normalizer.lowercase": False}
    tokenizer = gguf_tokenizer(write(tmp_path / "n.gguf", source(), cased, **said))
    assert tokenizer.tokenize("Cat cat") == ["Cat", "cat"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pooling_type": 4}, "bert.pooling_type is 4"),
        ({"pooling_type": 5}, "bert.pooling_type is 5"),
        ({"bert.attention.causal": True}, "bert.attention.causal must be false"),
        ({"bert.attention.causal": None}, "bert.attention.causal must be false"),
        ({"bert.attention.head_count_kv": 2}, "bert.attention.head_count_kv is 2"),
        (
            {"bert.attention.key_length": 4, "bert.attention.value_length": 4},
            "bert.attention.key_length is 4",
        ),
        ({"context_length": 63}, "bert.context_length is 63"),
        ({"bert.rope.freq_base": 10000.0}, "bert.rope.freq_base"),
        ({"tokenizer.ggml.unknown_token_id": 60}, "unknown_token_id names no special token"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        load_checkpoint(write(tmp_path / "m.gguf", source(), **changes))
