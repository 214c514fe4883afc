"""What this machine offers: versions, providers, threads, memory, disk; and what a lack disables."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

from roots_compress.io.disk import amount, free_disk
from roots_compress.system.machine import (
    has_dot_products,
    own_instruction_set,
    saturates,
    usable_cores,
)
from roots_compress.system.memory import available_memory
from roots_compress.system.threads import default_threads

SECURITY_FLOORS = {"transformers": "5.5", "torch": "2.10", "onnx": "1.21", "filelock": "3.20.3"}
"""Oldest versions without a known way to run code from a file; see docs/log/decisions.md."""

STAGES = "run, plan and the stage verbs"
PURPOSE = {
    "torch": f"{STAGES}, import, export, eval, verify",
    "transformers": f"{STAGES}, import, export, eval, verify, generate",
    "torch-pruning": STAGES,
    "optimum": f"{STAGES}, export, verify",
    "onnx": f"{STAGES}, import, export, eval, verify, generate",
    "onnx-ir": f"{STAGES}, export, verify",
    "pyarrow": "Parquet and zstd-compressed text",
    "gguf": f"{STAGES}, import, export, eval, verify, generate",
    "sentencepiece": "checkpoints whose only tokenizer is a tokenizer.model",
    "filelock": STAGES,
}
"""What there is not without each library."""


def examine() -> Iterator[str]:
    """Yield the findings, one line each; what needs attention begins with `!`."""
    yield from _libraries()
    yield from _providers()
    yield from _machine()


def _libraries() -> Iterator[str]:
    for name, purpose in PURPOSE.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            yield f"! {name}: not installed; without it there is no: {purpose}"
            continue
        floor = SECURITY_FLOORS.get(name)
        if floor and Version(installed) < Version(floor):
            yield f"! {name} {installed}: older than {floor}, the first without known security faults"
        else:
            yield f"  {name} {installed}"


def _providers() -> Iterator[str]:
    try:
        import onnxruntime
    except ImportError as error:
        lost = f"{STAGES}, import, export, eval, bench, generate, verify"
        yield f"! onnxruntime: cannot be imported ({error}); without it there is no: {lost}"
        return
    providers = ", ".join(onnxruntime.get_available_providers())
    yield f"  onnxruntime {onnxruntime.__version__}: {providers}"


def _machine() -> Iterator[str]:
    yield _instructions(own_instruction_set())
    yield f"  threads: {default_threads()} by default, of {usable_cores()} logical processors"
    memory = available_memory()
    if memory is not None:
        yield f"  free memory: {_gigabytes(memory)}"
    yield f"  free disk here: {_gigabytes(free_disk(Path.cwd()))}"


def _instructions(instructions: str) -> str:
    """Return the finding on an instruction set, and what it asks of other runtimes."""
    if has_dot_products(instructions):
        return f"  instruction set: {instructions}"
    finding = f"! instruction set: {instructions}: no 8-bit dot products; int8 graphs gain less speed"
    if saturates(instructions):
        finding += (
            ', and their sums saturate in other runtimes unless "session.x64quantprecision" is "1" in the'
            " session's options: for onnxruntime-genai in genai_config.json, under"
            " model.decoder.session_options. This project's engine sets it"
        )
    return finding


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else amount(count)
