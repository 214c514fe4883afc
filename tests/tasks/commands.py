"""The command line, run in the test's own process: recipes of few steps, and graphs that it exports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from torch import Tensor
from typer.testing import CliRunner

from roots_compress.cli.app import app

CALIBRATION = {"windows": 8, "block_size": 32}
PRUNE = {"kind": "prune", "ratio": 0.25, "multiple_of": 4, "calibration": CALIBRATION}
QUANTIZE = {"kind": "quantize", "scheme": "int8", "products": "float", "calibration": CALIBRATION}


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


def training(steps: int, **others: Any) -> dict[str, Any]:
    """Return the settings of a training of few steps."""
    return {"steps": steps, "batch_size": 4, "block_size": 32, "learning_rate": 0.003, **others}


def recipe(
    model: Path, data: Path, /, *stages: Mapping[str, Any], windows: int = 4, **others: Any
) -> dict[str, Any]:
    """Return a recipe that is measured on a few windows, each figure once."""
    evaluation = {"windows": windows, "block_size": 32, "contexts": [16], "repeats": 1, "threads": 1}
    told = {"name": "tiny", "model": str(model), "data": {"train": [str(data)]}, "evaluation": evaluation}
    return {**told, "stages": stages, **others}


def carry_out(document: Mapping[str, Any], run: Path, *, code: int = 0) -> str:
    """Run a recipe, and return what is said."""
    path = run.with_name("recipe.yaml")
    path.write_text(json.dumps(document))
    return roots("run", path, "--run", run, code=code)


def metrics_of(run: Path) -> dict[str, Any]:
    """Return the figures of a run as its file holds them."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics
