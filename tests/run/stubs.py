"""Tiny committed stages, made through the store as the pipeline makes them."""

from __future__ import annotations

from pathlib import Path

from roots_compress.results import Json, Metrics, Speed, StageKind, StageResult
from roots_compress.run.keys import PARENT, StageKey, hash_json
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import CommittedStage

MACHINE: dict[str, Json] = {"cpu": "test", "threads": 1}


def make_result(index: int, kind: StageKind, name: str, *, perplexity: float = 12.5) -> StageResult:
    speed = (Speed(context=8, median=100.0, low=90.0, high=110.0),)
    metrics = Metrics(
        parameters=1000,
        bytes=4000,
        quality={"perplexity": perplexity, "bits_per_byte": 1.5, "torch_perplexity": 12.4},
        timings={"prefill_tokens_per_second": speed, "decode_tokens_per_second": speed},
        peak_rss_bytes=1 << 20,
    )
    onnx = f"{index:02d}-{kind}/onnx/model.onnx"
    return StageResult(index, kind, name, 1.25, metrics, onnx, {"note": "stub"})


def make_key(parent: CommittedStage | None, **ingredients: Json) -> StageKey:
    content: dict[str, Json] = {PARENT: parent.key.sha256 if parent else None, **ingredients}
    return StageKey(content, hash_json(content))


def add_stage(run: RunFolder, kind: StageKind, content: str, *, at: int | None = None) -> CommittedStage:
    """Commit a stage whose files and key both hold `content`, at the end of the chain or at `at`."""
    chain = run.stages()[:at]
    index = len(chain)
    workspace = run.begin(index, kind, kind, make_key(chain[-1] if chain else None, content=content))
    (workspace.work / "state").write_text(content)
    (workspace.checkpoint / "model.safetensors").write_text(content)
    (workspace.onnx / "model.onnx").write_text(content * 3)
    return workspace.commit(make_result(index, kind, kind), machine=MACHINE, inputs={"text": "ab" * 32})


def contents(path: Path) -> list[tuple[str, str]]:
    """What a reader sees of a run: each stage's folder name and its checkpoint's text."""
    from roots_compress.run.stages import read_stages, verify

    chain, _ = read_stages(path)
    for stage in chain:
        assert verify(stage) == []
    return [(stage.path.name, (stage.checkpoint / "model.safetensors").read_text()) for stage in chain]
