"""Exported folders in optimum's own classes, in an environment that knows nothing of this package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.other_runtimes import main
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.export.exporter import export_checkpoint
from tests.families.sources import save_source, seq2seq, source_model
from tests.tasks.commands import roots

pytestmark = [pytest.mark.real_model, pytest.mark.slow]


@pytest.fixture
def environments() -> str:
    path = os.environ.get("ROOTS_RUNTIMES")
    if not path:
        pytest.skip("ROOTS_RUNTIMES does not name a folder with the environment of optimum-onnx")
    return path


def says_the_same(folder: Path, environments: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was generated alike by optimum, which loads the folder, and by the own engine."""
    capsys.readouterr()
    code = main([str(folder), "--only", "optimum-onnx", "--environments", environments])
    said = capsys.readouterr().out
    assert code == 0, said
    return [line.split(", ")[1].split(":")[0] for line in said.splitlines()]


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_encoder_decoders_load_in_optimum(
    family: str, environments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Greedily, as a batch and with beams, by graphs in int8 of a T5 and in float32 of a BART."""
    source = save_source(seq2seq(family, {}), tmp_path / "source")
    folder = tmp_path / "graph"
    if family == "t5":
        (data := tmp_path / "pairs.jsonl").write_text(
            "".join(f'{{"source": "the fox reads {n}", "target": "a dog jumps {n}"}}\n' for n in range(60))
        )
        small = ("--set", "calibration.windows=4", "--set", "calibration.block_size=32")
        roots("quantize", source, "--data", data, "--int8", *small, "--run", tmp_path / "run")
        folder = tmp_path / "run" / "01-quantize" / "onnx"
    else:
        export_checkpoint(load_checkpoint(source), folder, ExportConfig())
    assert says_the_same(folder, environments, capsys) == ["single", "batch", "beams"]


def test_a_decoder_loads_in_optimum(
    environments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_source(source_model("llama"), tmp_path / "source")
    export_checkpoint(load_checkpoint(source), tmp_path / "graph", ExportConfig())
    assert says_the_same(tmp_path / "graph", environments, capsys) == ["single", "batch"]
