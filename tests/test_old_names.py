"""Scripts that import the documented modules by their old names get the modules of today."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from roots_compress.old_names import NAMES


@pytest.mark.parametrize(("old", "new"), NAMES.items())
def test_an_old_name_is_the_module_of_today(old: str, new: str) -> None:
    assert importlib.import_module(old) is importlib.import_module(new)


def test_old_names_work_in_a_fresh_process() -> None:
    code = (
        "from roots_compress.data.config import DataConfig as old; import roots_compress.model;"
        "from roots_compress.configs.data import DataConfig; assert old is DataConfig"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
