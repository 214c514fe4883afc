"""An ONNX Runtime session over a graph: its settings, opening it, running it, and what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike

from roots_compress.errors import InputError, RootsError, StageError
from roots_compress.io.names import in_utf8
from roots_compress.runtime.onnx.graph_config import EXPORT_AGAIN
from roots_compress.system.machine import own_instruction_set, saturates
from roots_compress.system.memory import MORE_MEMORY, lacks_memory
from roots_compress.system.threads import default_threads

Provider = Literal["auto", "cpu", "cuda"]

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# Need not be fed: how many of the newest positions get logits; by default, 0, all do.
LOGITS_TO_KEEP = "logits_to_keep"
# Mean keys of the blocks of a block-sparse layer: an input that need not be fed, and an output.
PAST_MEANS, PRESENT_MEANS = "past_block_means.", "present_block_means."
# Stands in the metadata of graphs that take a past longer than what it holds, and write into it in place.
SHARED_CACHE = "roots_shared_cache"
# In the metadata of graphs that read a prompt faster in longer pieces than others do: tokens of a piece.
PREFILL_PIECE = "roots_prefill_piece"
# ONNX Runtime reads this as a session opens, and has no setting of the session for it.
NO_FLASH_ATTENTION = "ORT_GQA_DISABLE_FLASH_ATTENTION"
# In the metadata of graphs whose sums of 8-bit products are exact on every processor (`models/quantized.py`).
BOUNDED_SUMS = "roots_bounded_sums"
# Other graphs may saturate unseen on x86 without 8-bit dot products (AVX2, AVX-512 without VNNI), which adds
# products of uint8 and int8 by twos in 16 bits. There this takes a slower, exact product of uint8 by uint8.
# Other processors are exact without it, and would leave their fast kernels (VNNI, AMX) for that product.
EXACT_INTEGER_SUMS = ("session.x64quantprecision", "1")
# Lets threads rest as soon as a run is over, where they would go on spinning for the next one.
REST_AFTER_RUN = ("session.force_spinning_stop", "1")
HALF_ON_CPU = (
    "this float16 graph runs on a CPU, more slowly than float32 would: ONNX Runtime converts around nearly"
    " every operator. Use a CUDA device, or export in float32 or int8."
)
TOKEN_TYPES: dict[str, DTypeLike] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
# ONNX Runtime's own scale: 2 shows warnings, its default; 4 only what ends the process.
SHOW_WARNINGS, SHOW_FATAL = 2, 4


def session_settings(instructions: str, *, bounded: bool = False, spinning: bool = False) -> dict[str, str]:
    """Return the entries of a session's configuration that suit a processor.

    Args:
        instructions: its instruction set, as `system.machine.instruction_set` writes it.
        bounded: the graph's 8-bit sums are exact on every processor.
        spinning: let threads spin between runs, as ONNX Runtime does by default. A step begins sooner so, but
            whatever else runs in this process or beside it is slowed.
    """
    saturating = saturates(instructions) and not bounded
    return dict([REST_AFTER_RUN] * (not spinning) + [EXACT_INTEGER_SUMS] * saturating)


def open_session(graph: Path, *, threads: int | None, provider: Provider, spinning: bool = False) -> Any:
    """Open a graph with ONNX Runtime; see `OnnxEngine.load` for the arguments.

    Raises:
        InputError: ONNX Runtime refuses the graph, or this machine lacks the provider.
        StageError: memory ran out.
    """
    wants_cuda = provider == "cuda" or (provider == "auto" and CUDA in ort.get_available_providers())
    if wants_cuda and quantizes_blocks(graph):
        if provider == "cuda":
            raise InputError(
                "the graph quantizes rows as blocks, which ONNX Runtime computes on CPUs only",
                where=graph,
                remedy="Export it with --portable, or run on the CPU.",
            )
        wants_cuda = False
    if provider == "cuda" and CUDA not in ort.get_available_providers():
        raise InputError(
            "CUDA was asked for and the installed ONNX Runtime has no CUDA provider",
            where=graph,
            remedy="Install onnxruntime-gpu, or run on the CPU.",
        )
    instructions, providers = own_instruction_set(), [CUDA, CPU] if wants_cuda else [CPU]
    session = _opened(
        graph, session_settings(instructions, bounded=True, spinning=spinning), threads, providers
    )
    if saturates(instructions) and BOUNDED_SUMS not in session.get_modelmeta().custom_metadata_map:
        # A graph tells this only once it is open. Both sessions at once would take twice the memory.
        del session
        session = _opened(graph, session_settings(instructions, spinning=spinning), threads, providers)
    if provider == "cuda" and CUDA not in session.get_providers():
        raise InputError(
            "CUDA was asked for and ONNX Runtime found no usable CUDA device or libraries",
            where=graph,
            remedy="Check the driver and the CUDA and cuDNN libraries, or run on the CPU.",
        )
    return session


def _opened(graph: Path, settings: dict[str, str], threads: int | None, providers: list[str]) -> Any:
    options = ort.SessionOptions()
    # Left to itself, ONNX Runtime counts the machine's cores, and binds threads to some that are not allowed.
    options.intra_op_num_threads = threads or default_threads()
    for name, value in settings.items():
        options.add_session_config_entry(name, value)
    options.log_severity_level = SHOW_FATAL
    try:
        with _quiet_provider_probe(), _plain_attention(), in_utf8(graph.parent) as folder:
            return ort.InferenceSession(folder / graph.name, options, providers=providers)
    except RootsError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own.
        raise _refusal(
            f"{ort.__version__} cannot open the graph: {str(error)[:1000]}", error, graph
        ) from error


def quantizes_blocks(graph: Path) -> bool:
    """Return whether a graph has a blocked `QuantizeLinear`, as products of integers have it.

    ONNX Runtime's CUDA provider (1.31) accepts such a node and fails when it runs: it has the blocked form
    for 4 bits only.
    """
    # Imported here: a process that only serves on a CPU does not need them, and its memory is measured.
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        nodes = onnx.load(graph, load_external_data=False).graph.node
    except (OSError, ValueError, DecodeError):
        return False  # Opening the graph says what is wrong with it.
    return any(
        node.op_type == "QuantizeLinear" and any(each.name == "block_size" for each in node.attribute)
        for node in nodes
    )


def settings_of(session: Any) -> dict[str, str]:
    """Return the entries of `session_settings` that a session was opened with."""
    options, found = session.get_session_options(), {}
    for name, _value in (REST_AFTER_RUN, EXACT_INTEGER_SUMS):
        try:
            found[name] = options.get_session_config_entry(name)
        except Exception:  # ONNX Runtime knows no other way to say that an entry is not set.
            continue
    return found


@contextmanager
def _quiet_provider_probe() -> Iterator[None]:
    """Silence ONNX Runtime while it tries a provider: what is missing is told by the session that results."""
    ort.set_default_logger_severity(SHOW_FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(SHOW_WARNINGS)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Have fused attention on a CPU multiply whole matrices of scores, unless the environment says otherwise.

    Its flash form, the default, saves the memory of one piece of a prompt's scores and reads prompts a tenth
    to a third more slowly; a single token takes as long. docs/figures/performance.md has the figures.
    """
    if NO_FLASH_ATTENTION in os.environ:
        yield
        return
    os.environ[NO_FLASH_ATTENTION] = "1"
    try:
        yield
    finally:
        del os.environ[NO_FLASH_ATTENTION]


def run_bound(session: Any, binding: Any, graph: Path) -> None:
    """Run a session on what is bound to it.

    Raises:
        InputError: an operator failed: the graph contradicts itself or config.json.
        StageError: memory ran out.
    """
    with _running(graph):
        session.run_with_iobinding(binding)


def run_session(session: Any, output: str, feeds: dict[str, Any], graph: Path) -> Any:
    """Run a session on arrays, tokens among them as the integers that it reads; return one output.

    Raises:
        InputError, StageError: as `run_bound` raises them.
    """
    types = {value.name: TOKEN_TYPES.get(value.type) for value in session.get_inputs()}
    feeds = {name: value.astype(types[name] or value.dtype, copy=False) for name, value in feeds.items()}
    with _running(graph):
        return session.run([output], feeds)[0]


@contextmanager
def _running(graph: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own.
        said = " ".join(str(error).split())[:500]
        raise _refusal(f"cannot run the graph: {said}", error, graph) from error


def _refusal(what: str, error: Exception, graph: Path) -> RootsError:
    if lacks_memory(error):
        return StageError(
            f"memory ran out: ONNX Runtime {what}", where=graph, remedy=MORE_MEMORY, transient=True
        )
    return InputError(f"ONNX Runtime {what}", where=graph, remedy=EXPORT_AGAIN)
