"""What is tried within bounds: nothing that is no smaller than another which loses less."""

from __future__ import annotations

import re
from pathlib import Path

from roots_compress.advice.bounds import Bounds
from roots_compress.advice.candidates import candidates_for
from roots_compress.advice.facts import look_at
from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.configs.quantize import QuantizeConfig
from tests.tiny import tiny_checkpoint, tiny_layer


def test_four_bits_take_what_room_there_is_only_where_eight_do_not_fit(tmp_path: Path) -> None:
    wide = tiny_layer(head_dim=16, intermediate_size=256)
    save_checkpoint(tiny_checkpoint(hidden_size=64, layers=[wide, wide]), tmp_path / "wide")
    facts = look_at(tmp_path / "wide", tmp_path)
    roomy = candidates_for(facts, Bounds(max_bytes=10**9), minutes=60)
    eight, four = roomy.bytes_of(("int8",), facts), roomy.bytes_of(("int4",), facts)
    assert four < 0.95 * eight
    tight = candidates_for(facts, Bounds(max_bytes=eight - 1), minutes=60)
    assert re.fullmatch(r"about 0\.\d+ MB", tight.left_out["int8",])
    assert four < tight.bytes_of(("int4",), facts) < eight
    assert ("prune-25", "int8") in tight.listed
    assert tight.left_out["prune-25", "int4"] == "no smaller than prune-25 > int8"
    (chosen,) = (each for name, each in tight.choices.items() if name == "int4")
    assert isinstance(chosen, QuantizeConfig)
    assert chosen.max_bytes is not None
