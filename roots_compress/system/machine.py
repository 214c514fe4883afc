"""What a result depends on beside the recipe: processor, threads, and versions of code and libraries.

Nothing here imports the libraries it describes, and no environment value or host name is recorded.
"""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from roots_compress.results import Json

LIBRARIES = (
    "roots-compress",
    "numpy",
    "torch",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "jinja2",
    "torch-pruning",
    "optimum",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "gguf",
    "pyarrow",
)
"""Distributions whose version may change a result."""

ISA_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx_vnni_int8",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instruction-set extensions, as Linux names them, that decide which numeric kernels run (x86, then ARM)."""

EIGHT_BIT_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm")
"""The extensions that multiply 8-bit integers and add the products exactly in 32 bits."""

ProcessorClass = Literal["avx2", "avx-vnni", "avx512-vnni", "amx", "arm", "other"]
"""Processors by the kernels that 8-bit products get. `avx2` is any x86 without 8-bit dot products."""
X86 = ("x86_64", "amd64", "i386", "i686", "x86")
"""What Python calls the architecture of x86 processors on Linux, macOS and Windows, in lower case."""

_RESULT_FREE = ("advice", "api.py", "cli", "report", "search")
"""Packages that only show results or choose among them; a change there does not change one."""


def cpu_fields(cpuinfo: str) -> dict[str, str]:
    """Return the first processor's fields from the text of `/proc/cpuinfo`, keys in lower case."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def instruction_set(architecture: str, fields: dict[str, str]) -> str:
    """Return the processor's architecture and relevant extensions, such as `x86_64+avx2+avx512_vnni`."""
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    return "+".join([architecture, *(flag for flag in ISA_FLAGS if flag in flags)])


@cache
def _own_cpu() -> dict[str, str]:
    try:
        return cpu_fields(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}  # not Linux: the architecture alone is known


def own_instruction_set() -> str:
    """Return this machine's instruction set."""
    return instruction_set(platform.machine(), _own_cpu())


def has_dot_products(instructions: str) -> bool:
    """Return whether an instruction set, as `own_instruction_set` gives it, has 8-bit dot products."""
    return not set(EIGHT_BIT_DOT_PRODUCTS).isdisjoint(instructions.split("+"))


def processor_class(instructions: str) -> ProcessorClass:
    """Return the class of an instruction set, as `own_instruction_set` gives it."""
    architecture, *flags = instructions.lower().split("+")
    if architecture in ("aarch64", "arm64"):
        return "arm"
    if architecture not in X86:
        return "other"
    if "amx_int8" in flags:
        return "amx"
    if "avx512_vnni" in flags:
        return "avx512-vnni"
    return "avx2" if {"avx_vnni", "avx_vnni_int8"}.isdisjoint(flags) else "avx-vnni"


def saturates(instructions: str) -> bool:
    """Return whether sums of uint8 times int8 may saturate on such a processor.

    x86 before 8-bit dot products adds neighbouring products in 16 bits (`vpmaddubsw`). An x86 processor whose
    extensions are not known, as where there is no `/proc/cpuinfo`, is taken for one of those.
    """
    return processor_class(instructions) == "avx2"


def usable_cores() -> int:
    """Return how many logical processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def library_versions() -> dict[str, str]:
    """Return the installed version of each library that may change a result, without importing any."""
    from importlib.metadata import PackageNotFoundError, version  # Help need not wait for it.

    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # such as onnxruntime, where onnxruntime-gpu takes its place
    return versions


@cache
def code_sha256() -> str:
    """Return a hash of this package's own source, without the parts that only show or choose results.

    A version number does not change while the code is being worked on; its text does.
    """
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] not in _RESULT_FREE:
            digest.update(f"{relative.as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def describe_machine(*, threads: int, device: str) -> dict[str, Json]:
    """Return what `metrics.json` and the manifests say of the machine."""
    return {
        "platform": f"{platform.system()} {platform.release()}",
        "cpu": _own_cpu().get("model name") or platform.processor() or platform.machine(),
        "instruction_set": own_instruction_set(),
        "cores": usable_cores(),
        "threads": threads,
        "device": device,
        "versions": dict(library_versions()),
    }
