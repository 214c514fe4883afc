from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import safetensors
from packaging.utils import canonicalize_name

import roots_compress
from roots_compress.system.machine import (
    code_sha256,
    cpu_fields,
    describe_machine,
    has_dot_products,
    instruction_set,
    library_versions,
    processor_class,
    saturates,
    usable_cores,
)

X86 = """\
processor\t: 0
model name\t: A Processor
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: Another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.mark.parametrize(
    ("architecture", "cpuinfo", "expected"),
    [
        ("x86_64", X86, "x86_64+avx2+avx512f+avx512_vnni+amx_int8"),
        ("aarch64", ARM, "aarch64+asimd+asimddp+i8mm"),
        ("arm64", "", "arm64"),
    ],
)
def test_the_instruction_set_is_read_from_cpuinfo(architecture: str, cpuinfo: str, expected: str) -> None:
    assert instruction_set(architecture, cpu_fields(cpuinfo)) == expected


@pytest.mark.parametrize(
    ("instructions", "expected", "dot_products"),
    [
        ("x86_64", "avx2", False),
        ("x86_64+avx2", "avx2", False),
        ("x86_64+avx2+avx512f", "avx2", False),
        ("AMD64+avx2+avx_vnni", "avx-vnni", True),
        ("x86_64+avx2+avx_vnni+avx512f+avx512_vnni", "avx512-vnni", True),
        ("x86_64+avx2+avx512f+avx512_vnni+amx_bf16+amx_int8", "amx", True),
        ("x86_64+avx2+avx512f+avx512_vnni+amx_bf16", "avx512-vnni", True),
        ("aarch64+asimd+asimddp", "arm", True),
        ("arm64", "arm", False),
        ("riscv64", "other", False),
    ],
)
def test_a_processor_has_the_class_of_its_8_bit_products(
    instructions: str, expected: str, dot_products: bool
) -> None:
    assert processor_class(instructions) == expected
    assert has_dot_products(instructions) is dot_products


@pytest.mark.parametrize(
    ("architecture", "flags", "dot_products", "saturating"),
    [
        ("x86_64", "fpu sse2 avx2 fma", False, True),
        ("x86_64", "fpu sse2", False, True),
        ("x86_64", "avx2 avx512f avx512bw", False, True),
        ("x86_64", "avx2 avx512f avx512_vnni", True, False),
        ("x86_64", "avx2 avx_vnni", True, False),
        ("x86_64", "avx2 avx_vnni avx_vnni_int8", True, False),
        ("x86_64", "avx2 avx512f avx512_vnni amx_int8", True, False),
        ("AMD64", "", False, True),  # Windows tells no flags
        ("i686", "sse2", False, True),
        ("aarch64", "fp asimd", False, False),
        ("aarch64", "fp asimd asimddp", True, False),
        ("arm64", "", False, False),
        ("riscv64", "", False, False),
    ],
)
def test_sums_saturate_on_x86_without_8_bit_dot_products(
    architecture: str, flags: str, dot_products: bool, saturating: bool
) -> None:
    instructions = instruction_set(architecture, cpu_fields(f"flags : {flags}\n"))
    assert has_dot_products(instructions) is dot_products
    assert saturates(instructions) is saturating


def test_the_first_processor_counts() -> None:
    assert cpu_fields(X86)["model name"] == "A Processor"


def test_versions_are_those_installed() -> None:
    versions = library_versions()
    assert versions["safetensors"] == safetensors.__version__
    assert {"torch", "transformers", "onnx", "roots-compress"} <= set(versions)
    assert versions["python"] == platform.python_version()


COMPUTING = (
    *("calibration", "data", "evaluation", "export", "models"),
    *("runtime", "stages", "tasks", "training"),
)
HARMLESS = {"filelock", "huggingface_hub", "protobuf", "pydantic", "rich", "datasets", "py3langid"}
"""They lock, name errors, parse, check settings, show progress, read the data of lm-eval's tasks and tell
languages for `data prepare`: no stage's result depends on them."""


def test_every_library_that_computes_is_among_the_versions() -> None:
    root = Path(roots_compress.__file__).parent
    nodes = [
        node
        for package in COMPUTING
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    installed = packages_distributions()
    used = {each for name in names for each in installed.get(name.partition(".")[0], [])}
    assert {canonicalize_name(each) for each in used - HARMLESS} <= library_versions().keys()


def test_the_code_has_one_hash() -> None:
    assert code_sha256() == code_sha256()
    assert len(code_sha256()) == 64


def test_the_description_names_no_host_and_no_environment() -> None:
    os.environ["ROOTS_TEST_SECRET"] = "hunter2-hunter2"
    try:
        text = str(describe_machine(threads=2, device="cpu"))
    finally:
        del os.environ["ROOTS_TEST_SECRET"]
    assert "hunter2" not in text
    assert platform.node() == "" or platform.node() not in text
    assert "'threads': 2" in text


def test_cores_follow_the_affinity() -> None:
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code = one + "from roots_compress.system.machine import usable_cores; print(usable_cores())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "1\n"
    assert usable_cores() >= 1
