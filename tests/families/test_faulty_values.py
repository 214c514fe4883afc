"""Senseless values in each key of a family's config.json are read, or refused by name."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from transformers import AutoConfig

from roots_compress.errors import InputError
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches

FAULTY: tuple[Any, ...] = (None, "x", True, 0, -1, 1.5, [], {}, [["a"]], 10**30)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_faulty_values_are_refused_by_name(name: str) -> None:
    family = FAMILIES[name]
    for variant in ({}, *family.variants):
        config = {**AutoConfig.for_model(name).to_dict(), "architectures": [family.architecture], **variant}
        for key in config:
            for value in FAULTY:
                with suppress(InputError):
                    family.read_config(Switches({**config, key: value}, "config.json"))
