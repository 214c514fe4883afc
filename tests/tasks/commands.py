"""The command line, run in the test's own process, and graphs that it exports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from torch import Tensor
from typer.testing import CliRunner

from roots_compress.cli.app import app


def roots(*arguments: str | Path, code: int = 0) -> str:
    """Run a command that ends well, or not where `code` is not 0; return what it says, in one line."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    said = " ".join((result.output + str(result.exception or "")).split())
    assert (result.exit_code == 0) == (code == 0), said
    return said


def graph_outputs(
    source: Path, folder: Path, output: str, feeds: Mapping[str, Tensor]
) -> Iterator[NDArray[np.float32]]:
    """Yield an output of a source's graph, in the fused form and in the portable one."""
    for name, options in (("fused", ()), ("portable", ("--portable",))):
        roots("export", source, "--out", folder / name, *options)
        session = ort.InferenceSession(folder / name / "model.onnx")
        yield np.asarray(session.run([output], {key: ids.numpy() for key, ids in feeds.items()})[0])
