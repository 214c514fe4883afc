"""Saving and loading ROOTS checkpoints: nothing lost, nothing stored twice, nothing taken that is wrong."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.checkpoints.inspect import STORAGE_KEYS
from roots_compress.errors import InputError
from roots_compress.models.config import RootsConfig
from roots_compress.models.quantized import QuantizedWeight
from tests.encoders import encoder_tokenizer, tiny_encoder
from tests.faults.commands import Commands
from tests.tiny import tiny_checkpoint, tiny_fields, tiny_layer, tiny_tokenizer, tiny_tokens

QUANTIZATION = {
    "group_size": 16,
    "formats": {
        "model.embed_tokens": "w8",
        "model.layers.0.self_attn.q_proj": "w8a8",
        "model.layers.0.mlp.up_proj": "w4",
        "model.layers.1.mlp.down_proj": "w8",
    },
}
MODELS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "uneven layers": {
        "layers": [tiny_layer(num_attention_heads=2, intermediate_size=7), tiny_layer(head_dim=16)]
    },
    "sparse": {"attention": {"kind": "block", "num_blocks": 2, "block_size": 4}},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    "yarn": {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 100.0}},
    "learned positions": {"position": "learned", "norm": "layer_norm", "gated_mlp": False, "mlp_bias": True},
    "quantized": {"quantization": QUANTIZATION},
    "quantized, untied": {"quantization": QUANTIZATION, "tie_word_embeddings": False},
}


def checkpoint_of(kind: str) -> Checkpoint:
    checkpoint = tiny_checkpoint(**MODELS[kind])
    generator = torch.Generator().manual_seed(1)
    for module in checkpoint.model.modules():
        if isinstance(module, QuantizedWeight):
            for buffer in module.buffers(recurse=False):
                if buffer.is_floating_point():
                    buffer.uniform_(0.001, 0.01, generator=generator)
                else:
                    low = -127 if buffer.dtype == torch.int8 else 0
                    buffer.copy_(torch.randint(low, 128, buffer.shape, generator=generator))
    return checkpoint


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    output: Tensor = model(tiny_tokens()).logits
    return output


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tiny_checkpoint(), tmp_path / "ckpt")
    return tmp_path / "ckpt"


def edit_weights(directory: Path, **changes: Tensor | None) -> None:
    tensors: dict[str, Tensor | None] = {**load_file(directory / "model.safetensors"), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, directory / "model.safetensors")


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("kind", MODELS)
def test_round_trip_keeps_logits_bit_for_bit(kind: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(kind)
    save_checkpoint(checkpoint, tmp_path / "a")
    again = load_checkpoint(tmp_path / "a")
    assert torch.equal(logits_of(again.model), logits_of(checkpoint.model))
    assert again.model.config.spec == checkpoint.model.config.spec
    assert not again.model.training


@pytest.mark.parametrize("kind", MODELS)
def test_transformers_reads_what_was_saved(kind: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(kind)
    save_checkpoint(checkpoint, tmp_path / "a")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "a", output_loading_info=True)
    model, report = loaded
    assert torch.equal(logits_of(model), logits_of(checkpoint.model))
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize(
    ("kind", "auto"),
    [
        ("masked_lm", AutoModelForMaskedLM),
        ("classification", AutoModelForSequenceClassification),
        ("embedding", AutoModel),
    ],
)
def test_transformers_reads_encoders_by_the_class_for_their_head(
    kind: str, auto: Any, tmp_path: Path
) -> None:
    model: Any = tiny_encoder(kind)
    save_checkpoint(Checkpoint(model, encoder_tokenizer()), tmp_path)
    loaded, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    ids_BT = tiny_tokens(2, 12)
    wanted = model.model if auto is AutoModel else model
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids_BT)[0], wanted(ids_BT)[0])
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with pytest.raises(ValueError, match=f"RootsForCausalLM is for heads .*, and the model's is .* '{kind}'"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", MODELS)
def test_saving_twice_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    save_checkpoint(checkpoint_of(kind), tmp_path / "a")
    save_checkpoint(load_checkpoint(tmp_path / "a"), tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_new_process_gives_the_same_logits(commands: Commands, saved: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path;"
        "from roots_compress.checkpoints.checkpoint import load_checkpoint;"
        "model = load_checkpoint(Path(sys.argv[1])).model;"
        "print(model(torch.arange(8)[None]).logits.double().sum().item())"
    )
    # It prints the sum, and no warnings with it.
    printed = commands.python(code, saved)
    expected = load_checkpoint(saved).model(torch.arange(8)[None]).logits.double().sum().item()
    assert float(printed) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_tied_weights_are_stored_once(kind: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(kind)
    save_checkpoint(checkpoint, tmp_path / "a")
    unique = {tensor.data_ptr(): tensor for tensor in checkpoint.model.state_dict().values()}
    expected = sum(tensor.numel() * tensor.element_size() for tensor in unique.values())
    size = (tmp_path / "a" / "model.safetensors").stat().st_size
    assert expected <= size <= expected + 8192
    again = load_checkpoint(tmp_path / "a").model
    if checkpoint.model.config.tie_word_embeddings and again.lm_head is not None:
        assert again.lm_head.weight is again.model.embed_tokens.weight


def test_half_precision_stays_as_it_is_stored(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    save_checkpoint(Checkpoint(checkpoint.model.half(), checkpoint.tokenizer), tmp_path / "a")
    assert load_checkpoint(tmp_path / "a").model.dtype == torch.float16
    assert load_checkpoint(tmp_path / "a", dtype=torch.float32).model.dtype == torch.float32


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.model.bfloat16()
    save_checkpoint(checkpoint, tmp_path / "a")
    assert {p.dtype for p in load_checkpoint(tmp_path / "a").model.parameters()} == {torch.float32}


def test_tokenizer_round_trip_keeps_every_id(saved: Path) -> None:
    before, after = tiny_tokenizer(), load_checkpoint(saved).tokenizer
    texts = ["def add(a, b):\n    return a + b", "ünïcödé \t  spaces", "<bos>hello<eos>", "", "日本語 🙂"]
    assert [after(text)["input_ids"] for text in texts] == [before(text)["input_ids"] for text in texts]
    assert after.get_vocab() == before.get_vocab()
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    assert [getattr(after, name) for name in special] == [0, 1, 2]


def test_chat_template_is_kept_and_never_rendered(saved: Path, tmp_path: Path) -> None:
    endless = "{% for i in range(10 ** 12) %}x{% endfor %}"
    (saved / "chat_template.jinja").write_text(endless)
    checkpoint = load_checkpoint(saved)
    save_checkpoint(checkpoint, tmp_path / "b")
    assert (tmp_path / "b" / "chat_template.jinja").read_text() == endless


def test_nothing_but_the_checkpoint_is_written(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_checkpoint(saved)
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert capfd.readouterr() == ("", "")


def test_occupied_directory_is_refused(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="already holds"):
        save_checkpoint(tiny_checkpoint(seed=1), saved)
    assert (saved / "model.safetensors").read_bytes() == before


def refusal(directory: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_checkpoint(directory)
    return caught.value


def test_missing_tensor(saved: Path) -> None:
    edit_weights(saved, **{"model.layers.1.mlp.up_proj.weight": None})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(saved).message


def test_extra_tensor(saved: Path) -> None:
    edit_weights(saved, **{"model.layers.2.mlp.up_proj.weight": torch.zeros(2)})
    assert "model.layers.2.mlp.up_proj.weight" in refusal(saved).message


def test_shape_that_contradicts_the_config(saved: Path) -> None:
    edit_weights(saved, **{"model.norm.weight": torch.zeros(31)})
    assert "(31,)" in refusal(saved).message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(saved: Path, value: float) -> None:
    edit_weights(saved, **{"model.norm.weight": torch.full((32,), value)})
    assert "model.norm.weight" in refusal(saved).message


def test_integers_where_floats_belong(saved: Path) -> None:
    edit_weights(saved, **{"model.norm.weight": torch.ones(32, dtype=torch.int64)})
    assert "int64" in refusal(saved).message


def test_floats_where_quantized_integers_belong(tmp_path: Path) -> None:
    save_checkpoint(checkpoint_of("quantized"), tmp_path / "a")
    name = "model.layers.0.self_attn.q_proj.weight"
    edit_weights(tmp_path / "a", **{name: torch.zeros(32, 32)})
    assert "int8" in refusal(tmp_path / "a").message


def test_head_that_differs_under_a_tie_flag(saved: Path) -> None:
    edit_weights(saved, **{"lm_head.weight": torch.zeros(300, 32)})
    assert "ties" in refusal(saved).message


def test_equal_head_under_a_tie_flag_is_tied(saved: Path) -> None:
    table = load_file(saved / "model.safetensors")["model.embed_tokens.weight"]
    edit_weights(saved, **{"lm_head.weight": table.clone()})
    model = load_checkpoint(saved).model
    assert model.lm_head is not None
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_absent_head_without_a_tie_flag(saved: Path) -> None:
    edit_config(saved, tied=False)
    assert "lm_head.weight" in refusal(saved).message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hiden_size": 32}, "hiden_size"),
        ({"hidden_size": 32}, "hidden_size is a key of version 1, and embeddings of version 2"),
        ({"embeddings": {"vocabulary": 300, "width": "32"}}, "embeddings.width is '32'"),
        ({"stacks": {"decoder": {"layers": [[{"op": {"kind": "rnn"}}]]}}}, "layers.0.0.op"),
        ({"quantization": {"formats": 3}}, "quantization"),
        ({"quantization": {"group_size": 16, "formats": {"model.norm": "w8"}}}, "model.norm"),
        ({"quantization": {"group_size": 16, "formats": {"model.layers.0.mlp.up_proj": "w3"}}}, "w3"),
        (
            {"quantization": {"group_size": 16, "formats": {}, "group_sizes": {"model.norm": 32}}},
            "group_sizes names 'model.norm', which formats does not name",
        ),
        (
            {
                "quantization": {
                    "group_size": 16,
                    "formats": {"model.layers.0.mlp.up_proj": "w8"},
                    "group_sizes": {"model.layers.0.mlp.up_proj": 7},
                }
            },
            "it even",
        ),
        ({"quantization": {"group_size": 16, "formats": {}, "group_sizes": [3]}}, "group_sizes, an object"),
        ({"quantization": {"group_size": 16, "formats": {}, "fixed_inputs": {}}}, "fixed_inputs, a list"),
        (
            {
                "quantization": {
                    "group_size": 16,
                    "formats": {"model.layers.0.mlp.up_proj": "w8"},
                    "fixed_inputs": ["model.layers.0.mlp.up_proj"],
                }
            },
            "fixed_inputs names 'model.layers.0.mlp.up_proj', which formats does not name as w8a8",
        ),
    ],
)
def test_bad_config(saved: Path, changes: dict[str, Any], expected: str) -> None:
    edit_config(saved, **changes)
    error = refusal(saved)
    assert expected in error.message
    assert "config.json" in str(error.where)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hiden_size": 32}, "hiden_size"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"layers": [{"head_dim": 8}]}, "layers.0"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "dynamic"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "two"}}, "rope_parameters.factor"),
        ({"rope_parameters": {"rope_theta": -1.0}}, "rope_parameters.rope_theta"),
    ],
)
def test_bad_config_of_version_1(saved: Path, changes: dict[str, Any], expected: str) -> None:
    fields = {"model_type": "roots", **tiny_fields(), **changes}
    (saved / "config.json").write_text(json.dumps(fields))
    error = refusal(saved)
    assert expected in error.message
    assert "config.json" in str(error.where)


def test_tokenizer_larger_than_the_embedding(tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(vocab_size=299), tmp_path / "a")
    assert "299 rows" in refusal(tmp_path / "a").message


def test_tokens_that_were_added_without_rows_are_named_with_their_file(saved: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    tokenizer.add_tokens(["<new>", "<newer>"])
    tokenizer.save_pretrained(saved)
    error = refusal(saved)
    assert "300 rows, none of them for '<new>', '<newer>' (" in error.message
    assert "Tokens were added without rows for them" in str(error.remedy)


def test_a_tokenizer_without_a_vocabulary(saved: Path) -> None:
    document = json.loads((saved / "tokenizer.json").read_text())
    document["model"] |= {"vocab": {}, "merges": []}
    (saved / "tokenizer.json").write_text(json.dumps(document | {"added_tokens": [], "post_processor": None}))
    (saved / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert "has a tokenizer without a vocabulary" in refusal(saved).message


def test_a_chat_template_of_a_size_that_none_has(saved: Path) -> None:
    (saved / "chat_template.jinja").write_bytes(b" " * (2 << 20))
    assert "too many for a chat template" in refusal(saved).message


def test_truncated_tokenizer(saved: Path) -> None:
    whole = (saved / "tokenizer.json").read_text()
    (saved / "tokenizer.json").write_text(whole[: len(whole) // 2])
    assert "JSON" in refusal(saved).message


def test_tokenizer_that_is_json_but_none(saved: Path) -> None:
    (saved / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Spell"}}')
    assert "tokenizer" in refusal(saved).message


def test_the_keys_that_are_allowed_are_those_of_the_configuration() -> None:
    """`inspect.py` cannot import the class, which needs transformers."""
    own = inspect.signature(RootsConfig.__init__).parameters.keys() - {"self", "spec", "others"}
    assert own == STORAGE_KEYS
