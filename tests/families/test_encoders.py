"""What every variant of an encoder's family gives equals what transformers' own classes give, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from roots_compress.checkpoints.checkpoint import load_checkpoint, with_label_head
from roots_compress.checkpoints.write_back import write_back
from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from tests.chains import DISTILL, PRUNE, QUANTIZE, carry_out, recipe, write_text
from tests.encoders import ROWS, encoder_tokenizer
from tests.families.sources import encoder, save_source
from tests.tasks.commands import roots
from tests.tiny import tiny_tokens

ENCODERS = (
    "albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet",
    "nomic_bert", "roberta", "xlm-roberta",
)  # fmt: skip
VARIANTS = [(family, dict(changes)) for family in ENCODERS for changes in FAMILIES[family].variants]


@pytest.mark.parametrize(
    ("family", "changes"), VARIANTS, ids=["-".join(map(str, each.values())) for _, each in VARIANTS]
)
def test_outputs_equal_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = encoder(family, changes)
    ours = load_checkpoint(save_source(theirs, tmp_path / "theirs"))
    ids_BT = tiny_tokens(2, 20).clamp(min=3)  # Which tokens are padding, RoBERTa tells by their ids.
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[0, 13:] = 0
    ids_BT[0, 13:] = theirs.config.pad_token_id
    given = {"input_ids": ids_BT, "attention_mask": mask_BT}
    if getattr(theirs.config, "type_vocab_size", 1) > 1:
        given["token_type_ids"] = torch.zeros_like(ids_BT)
        given["token_type_ids"][:, 7:] = 1
    write_back(ours, family, tmp_path / "back")
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        found, expected, written = (model(**given)[0] for model in (ours.model, theirs, again))
    expected, written = (_vectors(each, mask_BT, found) for each in (expected, written))
    if found.ndim == 3:
        found, expected, written = (each[mask_BT.bool()] for each in (found, expected, written))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(written, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("modernbert", "classifier_pooling"),
        ("albert", "num_labels"),
        ("deberta-v2", "pooler_hidden_act"),
        ("nomic_bert", "rope_parameters"),
    ],
)
def test_a_graph_of_labels_equals_the_checkpoint(family: str, key: str, tmp_path: Path) -> None:
    changes = next(each for each in FAMILIES[family].variants if key in each)
    source = save_source(encoder(family, dict(changes)), tmp_path / "source")
    assert "agrees with the checkpoint" in roots("export", source, "--out", tmp_path / "graph")


def test_of_a_discriminator_the_encoder_is_read(tmp_path: Path) -> None:
    theirs: Any = encoder("electra", {"architectures": ["ElectraForPreTraining"], "embedding_size": 8})
    ours = load_checkpoint(save_source(theirs, tmp_path))
    ids_BT = tiny_tokens(2, 20)
    with torch.no_grad():
        expected = _vectors(theirs.electra(ids_BT)[0], torch.ones_like(ids_BT), torch.empty(0, 0))
        torch.testing.assert_close(ours.model(ids_BT)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "kind"),
    [("distilbert", "classification"), ("modernbert", "score"), ("mpnet", "token_classification")],
)
def test_a_new_head_is_one_that_the_family_has(family: str, kind: str, tmp_path: Path) -> None:
    source = save_source(encoder(family, dict(FAMILIES[family].variants[0])), tmp_path / "source")
    names = ["a"] if kind == "score" else ["a", "b", "c"]
    ours = with_label_head(load_checkpoint(source), names, kind=kind, seed=0)
    write_back(ours, family, tmp_path / "back")
    named = json.loads((tmp_path / "back" / "config.json").read_text())["architectures"][0]
    theirs = getattr(transformers, named).from_pretrained(tmp_path / "back").eval()
    ids_BT = tiny_tokens(2, 20).clamp(min=3)
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids_BT)[0], theirs(ids_BT)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("modernbert", {"layer_types": ["full_attention", "sliding_attention"] * 2, "local_attention": 6}),
        pytest.param("deberta-v2", {}, marks=pytest.mark.slow),
        pytest.param("nomic_bert", {}, marks=pytest.mark.slow),
        pytest.param("electra", {"embedding_size": 16}, marks=pytest.mark.slow),
    ],
)
def test_a_chain(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    write_text(tmp_path / "text")
    masked = {**FAMILIES[family].variants[0], **changes, "num_hidden_layers": 4, "vocab_size": ROWS}
    save_source(encoder(family, masked), tmp_path / "source")
    encoder_tokenizer().save_pretrained(tmp_path / "source")
    prune = {**PRUNE, "head_ratio": 0.5, "layer_ratio": 0.5}
    document = recipe(tmp_path / "text", DISTILL, prune, QUANTIZE, model=str(tmp_path / "source"))
    metrics = carry_out(document, tmp_path / "run")
    sizes = [row.metrics.bytes for row in metrics.stages]
    assert [row.kind for row in metrics.stages] == ["baseline", "distill", "prune", "quantize"]
    assert sizes == sorted(sizes, reverse=True)


def _vectors(given: Tensor, mask_BT: Tensor, like: Tensor) -> Tensor:
    """Return outputs as they are, or the mean of hidden states where ours are vectors."""
    if given.ndim == like.ndim:
        return given
    mean_BW = (given * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
    return torch.nn.functional.normalize(mean_BW)


def test_a_bert_that_is_a_decoder_is_refused(tmp_path: Path) -> None:
    theirs = encoder("bert", {"architectures": ["BertForMaskedLM"], "is_decoder": True})
    with pytest.raises(InputError, match="is_decoder is true"):
        load_checkpoint(save_source(theirs, tmp_path))


DISTANCES = "deberta.encoder.rel_embeddings.weight"
NORM = "deberta.encoder.LayerNorm.weight"
OWN = "deberta.encoder.layer.0.attention.self.pos_key_proj.weight"


@pytest.mark.parametrize(
    ("said", "edit", "named"),
    [
        ({"norm_rel_ebd": "none"}, {}, "encoder.LayerNorm"),
        ({"norm_rel_ebd": None}, {}, "norm_rel_ebd is null"),
        ({}, {NORM: None}, "encoder.LayerNorm.weight"),
        ({}, {DISTANCES: None}, "encoder.rel_embeddings.weight"),
        ({"share_att_key": False}, {}, "pos_key_proj"),
        ({}, {OWN: torch.zeros(32, 32)}, OWN),
    ],
)
def test_distances_that_the_configuration_does_not_describe_are_refused(
    said: dict[str, Any], edit: dict[str, Tensor | None], named: str, tmp_path: Path
) -> None:
    """What transformers passes over, or draws at random, without an error."""
    from safetensors.torch import load_file, save_file

    source = save_source(encoder("deberta-v2", dict(FAMILIES["deberta-v2"].variants[0])), tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | said))
    tensors = load_file(source / "model.safetensors") | edit
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=named):
        load_checkpoint(source)


def test_absent_keys_of_distances_mean_what_the_class_makes_of_them(tmp_path: Path) -> None:
    changes = {"norm_rel_ebd": "none", "share_att_key": False}
    theirs = encoder("deberta-v2", {**FAMILIES["deberta-v2"].variants[0], **changes})
    source = save_source(theirs, tmp_path)
    config = json.loads((source / "config.json").read_text())
    written = {key: value for key, value in config.items() if key not in changes}
    (source / "config.json").write_text(json.dumps(written))
    ids_BT = tiny_tokens(2, 20)
    with torch.no_grad():
        found, expected = load_checkpoint(source).model(ids_BT)[0], theirs(ids_BT)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("value", [True, False, None])
def test_an_encoder_that_a_key_makes_causal_is_refused(
    family: str, value: bool | None, tmp_path: Path
) -> None:
    """By this key attention reads only what is before, whatever the class."""
    theirs = encoder(family, dict(FAMILIES[family].variants[0]))
    source = save_source(theirs, tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"is_causal": value}))
    if value:
        with pytest.raises(InputError, match="is_causal is True"):
            load_checkpoint(source)
        return
    ids_BT = tiny_tokens(2, 20).clamp(min=3)
    again = type(theirs).from_pretrained(source).eval()
    with torch.no_grad():
        found = load_checkpoint(source).model(ids_BT)[0]
        torch.testing.assert_close(found, again(ids_BT)[0], atol=1e-4, rtol=0)
