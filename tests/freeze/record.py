"""What is recorded of a model: its import, its graphs, and each stage's result."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import yaml
from safetensors.numpy import load_file

from tests.chains import CALIBRATION, EVALUATION, TRAINING
from tests.faults.commands import Commands
from tests.freeze.adapter import checkpoint_logits, graph_logits

PRUNE: dict[str, Any] = {"kind": "prune", "multiple_of": 8, "own_windows": 2, "calibration": CALIBRATION}
QUANTIZE: dict[str, Any] = {"kind": "quantize", "own_windows": 2, "calibration": CALIBRATION}
STAGES: dict[str, dict[str, Any]] = {
    "MLP channels": {**PRUNE, "ratio": 0.25},
    "key/value groups": {**PRUNE, "head_ratio": 0.5},
    "query heads": {**PRUNE, "query_ratio": 0.5},
    "layers": {**PRUNE, "layer_ratio": 0.5},
    "residual stream": {**PRUNE, "residual_ratio": 0.25},
    "optimal brain surgeon": {**PRUNE, "ratio": 0.25, "score": "obs"},
    "Taylor": {**PRUNE, "ratio": 0.25, "score": "taylor"},
    "magnitude, no refit": {**PRUNE, "ratio": 0.25, "score": "magnitude", "refit": False},
    "by layer": {**PRUNE, "ratio": 0.25, "uniform": False},
    "target": {**PRUNE, "target": {"parameters": 0.8}},
    "int8, inputs too": {**QUANTIZE, "scheme": "int8", "activations": "always"},
    "int8, weights only": {**QUANTIZE, "scheme": "int8", "activations": "never"},
    "int4": {**QUANTIZE, "scheme": "int4", "group_size": 16},
    "int4, int8 cache": {**QUANTIZE, "scheme": "int4", "group_size": 16, "cache": "int8"},
    "fp16": {"kind": "quantize", "scheme": "fp16", "calibration": CALIBRATION},
    "distill": {"kind": "distill", "student": "small", "training": TRAINING},
}
FIGURES = ("perplexity", "bits_per_byte", "torch_perplexity", "parameters", "bytes")

Record = dict[str, Any]


def calibrated(stages: dict[str, dict[str, Any]], windows: int | None) -> dict[str, dict[str, Any]]:
    """Return stages that calibrate on so many windows, on as many as they name where None."""
    if windows is None:
        return stages
    return {
        name: {**stage, "calibration": {**stage["calibration"], "windows": windows}}
        if "calibration" in stage
        else stage
        for name, stage in stages.items()
    }


def record(models: dict[str, Path], text: Path, work: Path, stages: dict[str, dict[str, Any]]) -> Record:
    """Return what each model becomes, by name and by what was done to it.

    Args:
        models: files and folders.
        text: a folder of text, to calibrate on and to score.
        work: an empty folder.
        stages: each on its own, after the model as it is.
    """
    made: Record = {}
    with Commands(work, work / "log") as commands:
        for name, model in models.items():
            made[name] = {"imported": _imported(commands, model, work / "imported")}
            _run(commands, model, text, [], work / "baseline")
            for label, stage in stages.items():
                made[name][label] = _stage(commands, model, text, stage, work)
            sys.stderr.write(f"{name}: {Counter(entry['exit'] for entry in made[name].values())}\n")
    return made


def _imported(commands: Commands, model: Path, folder: Path) -> Record:
    """Return the imported checkpoint and its graph in portable form."""
    for stale in (folder, folder.with_name("portable")):
        shutil.rmtree(stale, ignore_errors=True)
    ended = commands.run("import", model, "--out", folder)
    if ended.code:
        return {"exit": ended.code}
    portable = folder.with_name("portable")
    exported = commands.run("export", folder, "--portable", "--out", portable)
    if exported.code:
        return {"exit": exported.code, **_checkpoint(folder)}
    return {"exit": 0, **_checkpoint(folder), **_graph(portable)}


def _stage(commands: Commands, model: Path, text: Path, stage: dict[str, Any], work: Path) -> Record:
    """Return what a run of one stage leaves after the baseline: its checkpoint, its graph and its figures."""
    run = work / "run"
    if code := _run(commands, model, text, [stage], run, begun=work / "baseline"):
        return {"exit": code}
    folder = next(run.glob("01-*"))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["stages"][-1]
    figures = {key: metrics[key] for key in FIGURES if key in metrics}
    return {"exit": 0, "figures": figures, **_checkpoint(folder / "checkpoint"), **_graph(folder / "onnx")}


def _run(
    commands: Commands,
    model: Path,
    text: Path,
    stages: list[dict[str, Any]],
    run: Path,
    *,
    begun: Path | None = None,
) -> int:
    """Carry stages out in a run, which goes on from a copy of `begun`; return the command's exit code."""
    shutil.rmtree(run, ignore_errors=True)
    if begun is not None and begun.exists():
        shutil.copytree(begun, run)
    recipe = {
        "name": "freeze",
        "model": str(model.resolve()),
        "data": {"train": [str(text.resolve())], "eval_fraction": 0.25},
        "evaluation": EVALUATION,
        "stages": stages,
    }
    path = run.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return commands.run("run", path, "--run", run).code


def _checkpoint(folder: Path) -> Record:
    tensors = {
        name: _digest(str((tensor.dtype, tensor.shape)).encode(), tensor.tobytes())
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    return {"tensors": tensors, "logits": _digest(checkpoint_logits(folder).tobytes())}


def _graph(folder: Path) -> Record:
    graph = onnx.load(folder / "model.onnx")
    weights = [onnx.numpy_helper.to_array(weight) for weight in graph.graph.initializer]
    return {
        "graph": {
            "files": [_digest(path.read_bytes()) for path in sorted(folder.glob("model.onnx*"))],
            "weights": sorted(_digest(str((w.dtype, w.shape)).encode(), w.tobytes()) for w in weights),
            "operators": dict(Counter(node.op_type for node in graph.graph.node)),
            "logits": _digest(graph_logits(folder).tobytes()),
        }
    }


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
