"""What every variant of a family of encoders and decoders gives equals transformers', both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.write_back import write_back
from roots_compress.families.registry import FAMILIES
from roots_compress.models.resizing import keep_units
from roots_compress.models.spec import Place
from tests.families.sources import SEQ2SEQ_FIELDS, save_source, seq2seq
from tests.tiny import tiny_tokens

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


def test_a_cut_layer_is_no_t5_any_more(tmp_path: Path) -> None:
    ours = load_checkpoint(save_source(seq2seq("t5", {}), tmp_path / "theirs"))
    keep_units(ours.model, Place(0, "self_attn"), "kv_groups", [0, 2, 3])
    with pytest.raises(Exception, match="does not fit the family t5"):
        write_back(ours, "t5", tmp_path / "back")
