"""The machine's versions, providers, threads, memory and disk, and the effects of missing parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

from roots_compress.io.disk import amount, free_disk
from roots_compress.system.machine import (
    has_dot_products,
    own_instruction_set,
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
    "pyarrow": "Parquet, Arrow, and text in zstd or bzip2",
    "gguf": f"{STAGES}, import, export, eval, verify, generate",
    "sentencepiece": "checkpoints whose only tokenizer is a SentencePiece model",
    "filelock": STAGES,
}
"""The functions that need each library."""


@dataclass(frozen=True)
class Finding:
    """The result."""

    text: str
    needs_attention: bool = False

    def __str__(self) -> str:
        return f"{'!' if self.needs_attention else ' '} {self.text}"


def examine() -> Iterator[Finding]:
    """Yield the findings."""
    yield from _libraries()
    yield from _providers()
    yield from _machine()


def _libraries() -> Iterator[Finding]:
    for name, purpose in PURPOSE.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            yield Finding(f"{name}: not installed; without it there is no: {purpose}", needs_attention=True)
            continue
        floor = SECURITY_FLOORS.get(name)
        if floor and Version(installed) < Version(floor):
            yield Finding(
                f"{name} {installed}: older than {floor}, the first without known security faults",
                needs_attention=True,
            )
        else:
            yield Finding(f"{name} {installed}")


def _providers() -> Iterator[Finding]:
    try:
        import onnxruntime
    except ImportError as error:
        lost = f"{STAGES}, import, export, eval, bench, generate, verify"
        yield Finding(
            f"onnxruntime: cannot be imported ({error}); without it there is no: {lost}", needs_attention=True
        )
        return
    providers = ", ".join(onnxruntime.get_available_providers())
    yield Finding(f"onnxruntime {onnxruntime.__version__}: {providers}")


def _machine() -> Iterator[Finding]:
    yield _instructions(own_instruction_set())
    yield Finding(f"threads: {default_threads()} by default, of {usable_cores()} logical processors")
    memory = available_memory()
    if memory is not None:
        yield Finding(f"free memory: {_gigabytes(memory)}")
    yield Finding(f"free disk here: {_gigabytes(free_disk(Path.cwd()))}")


def _instructions(instructions: str) -> Finding:
    """Return the finding on an instruction set, with advice for other runtimes."""
    if has_dot_products(instructions):
        return Finding(f"instruction set: {instructions}")
    finding = f"instruction set: {instructions}: no 8-bit dot products; int8 graphs gain less speed"
    return Finding(finding, needs_attention=True)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else amount(count)
