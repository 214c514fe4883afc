from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from roots_compress.checkpoints import readback
from roots_compress.checkpoints.readback import require_written

TENSORS = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "step": torch.tensor(3.0),
    "empty": torch.zeros(0, 4),
    "nan": torch.tensor([float("nan"), -0.0]),
}


def test_what_was_written_is_accepted(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "file.safetensors")
    require_written(tmp_path / "file.safetensors", {**TENSORS, "tied": TENSORS["weight"]})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_is_not_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mapped state of a training would double its memory each time it is saved."""
    path, compare, mapped = tmp_path / "file.safetensors", readback._same_bits, set[bool]()

    def compare_and_look(left: torch.Tensor, right: torch.Tensor) -> bool:
        mapped.add(str(path) in Path("/proc/self/maps").read_text())
        return compare(left, right)

    monkeypatch.setattr(readback, "_same_bits", compare_and_look)
    save_file(TENSORS, path)
    require_written(path, TENSORS)
    assert mapped == {False}


def test_a_tensor_that_was_not_written_is_missed(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "file.safetensors")
    with pytest.raises(OSError, match="not what stands there"):
        require_written(tmp_path / "file.safetensors", {**TENSORS, "other": torch.ones(2)})


def test_each_lost_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file(TENSORS, path)
    intact = path.read_bytes()
    for position in range(len(intact)):
        if intact[position] in b"\0 ":
            continue  # what a lost byte reads as, or may mean nothing in a header
        path.write_bytes(intact[:position] + b"\0" + intact[position + 1 :])
        with pytest.raises(OSError, match="not what stands there"):
            require_written(path, TENSORS)
    path.write_bytes(intact[1:])
    with pytest.raises(OSError, match="not what stands there"):
        require_written(path, TENSORS)
