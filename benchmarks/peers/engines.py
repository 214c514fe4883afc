"""The engines that are measured, and how each comes to its files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import PeerError, run_logged

HERE = Path(__file__).parent
OURS = "ours"
PRUNED = ("prune_lm_head=true",)

Build = Callable[[Path, Path, Path, Path], None]
"""Given interpreter, Hugging Face directory, target folder and log, writes a folder of files."""


@dataclass(frozen=True)
class Engine:
    """One row of the table."""

    name: str
    environment: str
    worker: str
    bits: int
    """Nominal bits of a weight."""
    artifact: str
    """The folder it is built into; engines of equal artifacts share it."""
    build: Build
    file: str = ""
    """What the worker opens in the folder; the folder itself where empty."""
    scored: tuple[str, Build] | None = None
    """Another artifact, with the logits of all positions, where the measured one leaves them out."""
    options: tuple[tuple[str, Any], ...] = ()
    """Further settings of the worker."""


def _source(_python: Path, source: Path, target: Path, _log: Path) -> None:
    """Measure the Hugging Face directory as it is, without what other tools' environments need beside it."""
    target.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        if (source / name).exists():
            (target / name).hardlink_to(source / name)


def _optimum(python: Path, source: Path, target: Path, log: Path) -> None:
    command = [str(python.parent / "optimum-cli"), "export", "onnx", "--model", str(source)]
    run_logged([*command, "--task", "text-generation-with-past", str(target)], log, variables={})


def _optimum_int8(python: Path, source: Path, target: Path, log: Path) -> None:
    plain = target.with_name(target.name + "-fp32")
    _optimum(python, source, plain, log)
    command = [str(python.parent / "optimum-cli"), "onnxruntime", "quantize", "--onnx_model", str(plain)]
    run_logged([*command, "--avx512_vnni", "--per_channel", "-o", str(target)], log, variables={})
    shutil.rmtree(plain)


def _genai(precision: str, *options: str) -> Build:
    def build(python: Path, source: Path, target: Path, log: Path) -> None:
        command = ["-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target)]
        command += ["-p", precision, "-e", "cpu", "-c", str(target / "cache")]
        if options:
            command += ["--extra_options", *options]
        run_logged([str(python), *command], log, variables={})

    return build


def _gguf(kind: str) -> Build:
    def build(python: Path, source: Path, target: Path, log: Path) -> None:
        target.mkdir()
        script = str(HERE / "builders/build_gguf.py")
        run_logged([str(python), script, str(source), str(target / "model.gguf"), kind], log, variables={})

    return build


def _genai_engines(precision: str, bits: int) -> tuple[Engine, Engine]:
    artifact, build = f"genai-{precision}", _genai(precision, *PRUNED)
    scored = (f"{artifact}-all-logits", _genai(precision))
    return (
        Engine(
            f"onnxruntime-genai {precision}", "onnxruntime-genai", "genai_worker", bits, artifact, build,
            scored=scored,
        ),
        Engine(
            f"genai's {precision} graph in ORT", "onnxruntime-genai", "ort_worker", bits, artifact, build,
            file="model.onnx", scored=scored, options=(("shared", True),),
        ),
    )  # fmt: skip


def _llama(kind: str, bits: int) -> Engine:
    return Engine(
        f"llama.cpp {kind}",
        "llama-cpp-python",
        "llama_worker",
        bits,
        f"llama-{kind}",
        _gguf(kind),
        "model.gguf",
    )


BASELINE = "torch fp32"
PEERS: tuple[Engine, ...] = (
    Engine(BASELINE, "torch", "torch_worker", 32, "transformers", _source),
    Engine(
        "optimum-onnx fp32", "optimum-onnx", "ort_worker", 32, "optimum-fp32", _optimum,
        file="model.onnx", options=(("shared", False),),
    ),
    Engine(
        "optimum-onnx int8 dynamic", "optimum-onnx", "ort_worker", 8, "optimum-int8", _optimum_int8,
        file="model_quantized.onnx", options=(("shared", False),),
    ),
    *_genai_engines("fp32", 32),
    *_genai_engines("int8", 8),
    *_genai_engines("int4", 4),
    _llama("F32", 32),
    _llama("Q8_0", 8),
    _llama("Q4_K_M", 4),
)  # fmt: skip


def _ours(*arguments: str) -> Build:
    """Run this project's own command; a stage writes its run into the target."""

    def build(python: Path, source: Path, target: Path, log: Path) -> None:
        program = [str(python), "-c", "from roots_compress.cli.app import main; main()"]
        named = [word.format(source=source, target=target) for word in arguments]
        run_logged([*program, *named], log, variables={"PYTHONPATH": str(HERE.parents[1])})

    return build


# A run measures its graphs, which is not needed here: one short window of each.
_BRIEF = ("--windows", "1", "--block-size", "64", "--run", "{target}")
OUR_ENGINES: tuple[Engine, ...] = tuple(
    Engine(f"ours {label}", OURS, "ours_worker", bits, "-".join(["ours", *label.split()]), _ours(*command))
    for label, bits, command in (
        ("fp32", 32, ("export", "{source}", "--out", "{target}")),
        ("int8", 8, ("quantize", "{source}", "--int8", *_BRIEF)),
        ("int8 with int8 cache", 8, ("quantize", "{source}", "--int8", "--int8-cache", *_BRIEF)),
        ("int8 integer products", 8, ("quantize", "{source}", "--int8", "--integer-products", *_BRIEF)),
        ("int8 weights only", 8, ("quantize", "{source}", "--int8", "--weights-only", *_BRIEF)),
        ("int4", 4, ("quantize", "{source}", "--int4", *_BRIEF)),
        ("int4 with int8 cache", 4, ("quantize", "{source}", "--int4", "--int8-cache", *_BRIEF)),
    )
)


def our_engine(name: str, folder: Path, bits: int) -> Engine:
    """Return a row for a folder that exists already."""

    def build(_python: Path, _source: Path, _target: Path, _log: Path) -> None:
        raise PeerError(f"{folder} is gone")

    return Engine(name, OURS, "ours_worker", bits, str(folder), build)


def interpreter(engine: Engine, prepared: dict[str, Path]) -> Path:
    """Return the interpreter an engine runs in; ours is the one this runs in."""
    return Path(sys.executable) if engine.environment == OURS else prepared[engine.environment]
