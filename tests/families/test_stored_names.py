"""Tensors under the names of other programs: read as transformers reads them, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.errors import InputError
from tests.families.sources import encoder, save_source, seq2seq, source_model
from tests.families.test_families import assert_same_logits
from tests.tiny import tiny_tokens

Tensors = dict[str, Tensor]
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MASKED, SHARED = "BertForMaskedLM", "shared.weight"
BIAS, OF_DECODER = "cls.predictions.bias", "cls.predictions.decoder.bias"


def model(family: str) -> PreTrainedModel:
    match family:
        case "bert":
            return encoder("bert", {"architectures": [MASKED]})
        case "t5" | "bart":
            return seq2seq(family, {})
        case "gpt2":
            return source_model(family)
    return source_model(family, tie_word_embeddings=True)


def stored(folder: Path, family: str, change: Callable[[Tensors], Tensors]) -> PreTrainedModel:
    """Save a model, with its tensors changed, and return what transformers makes of it."""
    source = model(family)
    save_source(source, folder)
    tensors = load_file(folder / "model.safetensors")
    changed = {name: tensor.clone() for name, tensor in change(tensors).items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    read: PreTrainedModel = type(source).from_pretrained(folder, dtype=torch.float32).eval()
    return read


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def with_more(**more: float) -> Callable[[Tensors], Tensors]:
    added = {name: torch.full((4,), value) for name, value in more.items()}
    return lambda tensors: {**tensors, **added}


def in_stacks(tensors: Tensors) -> Tensors:
    prefix = "" if SHARED in tensors else "model."
    table = tensors.pop(prefix + SHARED)
    return {**tensors, **{f"{prefix}{side}.embed_tokens.weight": table for side in ("encoder", "decoder")}}


READ: dict[str, tuple[str, Callable[[Tensors], Tensors]]] = {
    "the head alone": ("llama", renamed(TABLE, HEAD)),
    "the table of the stacks": ("t5", in_stacks),
    "the table of BART's stacks": ("bart", in_stacks),
    "the bias of the matrix": ("bert", renamed(BIAS, OF_DECODER)),
    "both biases": ("bert", lambda tensors: {**tensors, OF_DECODER: tensors[BIAS]}),
    "the first BERT's norms": (
        "bert",
        lambda tensors: renamed("Norm.bias", "Norm.beta")(renamed("Norm.weight", "Norm.gamma")(tensors)),
    ),
    "frequencies": ("qwen2", with_more(**{"model.layers.1.self_attn.rotary_emb.inv_freq": 1.0})),
    "versions": ("bart", with_more(**{"model.encoder.version": 3.0})),
    "a class without a head": ("opt", renamed("model.decoder.", "decoder.")),
}


@pytest.mark.parametrize("case", READ)
def test_names_are_read_as_transformers_reads_them(case: str, tmp_path: Path) -> None:
    family, change = READ[case]
    theirs, tokens = stored(tmp_path, family, change), tiny_tokens()
    given = {"decoder_input_ids": tokens} if family in ("t5", "bart") else {}
    with torch.no_grad():
        ours = load_checkpoint(tmp_path).model(tokens, **given).logits
        torch.testing.assert_close(ours, theirs(tokens, **given).logits, atol=1e-4, rtol=0)


def other(name: str, like: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: tensors[like] + 1}


REFUSED: dict[str, tuple[str, Callable[[Tensors], Tensors], tuple[str, ...]]] = {
    "T5's decoder": (
        "t5",
        other("decoder.embed_tokens.weight", SHARED),
        ("'decoder.embed_tokens.weight' is not the copy of 'shared.weight'",),
    ),
    "BART's encoder": (
        "bart",
        other("model.encoder.embed_tokens.weight", "model.shared.weight"),
        ("'model.encoder.embed_tokens.weight' is not the copy of 'model.shared.weight'",),
    ),
    "the bias": ("bert", other(OF_DECODER, BIAS), (f"{OF_DECODER!r} is not the copy of {BIAS!r}",)),
    "twice": (
        "llama",
        other("norm.weight", "model.norm.weight"),
        ("the copy of 'model.norm.weight'",),
    ),
    "compiled": (
        "llama",
        renamed("model.", "_orig_mod.model."),
        ("_orig_mod.model.", "Without '_orig_mod.'"),
    ),
    "frequencies": (
        "gpt2",
        with_more(**{"rotary_emb.inv_freq": 1.0}),
        ("'rotary_emb.inv_freq' has no",),
    ),
    "too large": (
        "llama",
        lambda tensors: {**tensors, "model.norm.weight": torch.full((32,), 1e39, dtype=torch.float64)},
        ("too large for torch.float32",),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_left_out_is_refused_by_name(case: str, tmp_path: Path) -> None:
    family, change, said = REFUSED[case]
    stored(tmp_path, family, change)
    with pytest.raises(InputError) as refused:
        load_checkpoint(tmp_path)
    assert all(part in str(refused.value) for part in said)


@pytest.mark.parametrize(
    ("family", "name"),
    [("qwen3_next", "mtp.layers.0.mlp.gate.weight"), ("ernie4_5_moe", "model.mtp_block.0.x")],
)
def test_tensors_that_guess_further_tokens_are_left_out(family: str, name: str, tmp_path: Path) -> None:
    theirs = source_model(family)
    save_source(theirs, tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), name: torch.zeros(2)}, path)
    assert_same_logits(theirs, load_checkpoint(tmp_path))


def guessing(tensors: Tensors) -> Tensors:
    """Return tensors with those of a layer behind the last, which guesses further tokens."""
    behind = {name.replace("layers.1.", "layers.2."): tensor.clone() for name, tensor in tensors.items()}
    return {**behind, **tensors, "model.layers.2.eh_proj.weight": torch.zeros(32, 64)}


def test_a_layer_that_guesses_further_tokens_is_left_out(tmp_path: Path) -> None:
    theirs = source_model("glm4_moe")
    save_source(theirs, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = guessing(load_file(path))
    save_file(tensors, path)
    assert_same_logits(theirs, load_checkpoint(tmp_path))
    del tensors["model.layers.2.eh_proj.weight"]  # Then it is a layer of a larger model.
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"layers\.2\..*no place"):
        load_checkpoint(tmp_path)


def test_experts_of_qwen3_5_are_read_stacked_too(tmp_path: Path) -> None:
    """As they were published; transformers writes each by itself."""
    theirs = source_model("qwen3_5_moe_text")
    save_source(theirs, tmp_path)
    stacked = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    assert "model.layers.0.mlp.experts.gate_up_proj" in stacked
    save_file(stacked, tmp_path / "model.safetensors")
    assert_same_logits(theirs, load_checkpoint(tmp_path))
