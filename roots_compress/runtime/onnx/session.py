"""An ONNX Runtime session over a graph: its settings, opening it, running it, and what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from roots_compress.errors import InputError, RootsError, StageError
from roots_compress.io.json_files import read_json_object
from roots_compress.io.names import in_utf8
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
# Of a config.json in another family's words, the key that the ROOTS config stands under.
OURS = "roots"
EXPORT_AGAIN = "Export the checkpoint again with `roots-compress export`."
# ONNX Runtime reads this as a session opens, and has no setting of the session for it.
NO_FLASH_ATTENTION = "ORT_GQA_DISABLE_FLASH_ATTENTION"
# x86 without 8-bit dot products (AVX2, AVX-512 without VNNI) adds products of uint8 and int8 by twos in 16
# bits, where they saturate unseen. There this takes a slower, exact product of uint8 by uint8. Others are
# exact without it, and would leave their fast kernels (VNNI, AMX) for that product.
EXACT_INTEGER_SUMS = ("session.x64quantprecision", "1")
# Lets threads rest as soon as a run is over, where they would go on spinning for the next one.
REST_AFTER_RUN = ("session.force_spinning_stop", "1")
LARGEST = 2**31 - 1
HALF_ON_CPU = (
    "this float16 graph runs on a CPU, more slowly than float32 would: ONNX Runtime converts around nearly"
    " every operator. Use a CUDA device, or export in float32 or int8."
)
# ONNX Runtime's own scale: 2 shows warnings, its default; 4 only what ends the process.
SHOW_WARNINGS, SHOW_FATAL = 2, 4


def config_beside(graph: Path) -> dict[str, Any]:
    """Return the config.json of a graph's folder.

    Raises:
        InputError: the file is missing, or is not JSON.
    """
    path = graph.with_name("config.json")
    if not (path.exists() or path.is_symlink()):
        raise InputError("the graph's folder holds no config.json", where=path, remedy=EXPORT_AGAIN)
    return read_json_object(path)


def read_config(path: Path) -> tuple[int, int]:
    """Return the vocabulary's size and the longest context, which a graph itself does not say.

    Raises:
        InputError: the file is missing, or does not give the two as positive whole numbers.
    """
    config = config_beside(path)
    config = config.get(OURS, config)
    keys = ("vocab_size", "max_position_embeddings")
    if isinstance(config, dict) and "embeddings" in config:
        # Not as a specification: that takes pydantic, whose memory would count as serving's.
        keys = ("embeddings.vocabulary", "max_positions")
    found = [_number_at(config, key.split(".")) for key in keys]
    if None in found:
        raise InputError(
            f"{keys[found.index(None)]} is not a whole number from 1 to {LARGEST}",
            where=path,
            remedy=EXPORT_AGAIN,
        )
    vocab_size, max_context = found
    return vocab_size, max_context


def read_start(path: Path) -> int:
    """Return the token that each target of an encoder-decoder begins with.

    Raises:
        InputError: the file is missing, or names none.
    """
    config = config_beside(path)
    ours = config.get(OURS, config)
    head = ours.get("head") if isinstance(ours, dict) else None
    start = head.get("start") if isinstance(head, dict) else config.get("decoder_start_token_id")
    if type(start) is not int or not 0 <= start <= LARGEST:
        raise InputError(
            "no token is named that a target begins with (decoder_start_token_id)",
            where=path,
            remedy=EXPORT_AGAIN,
        )
    return start


def _number_at(config: Any, keys: list[str]) -> Any:
    """Return the number of a size at a key; None where there is none."""
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config if type(config) is int and 0 < config <= LARGEST else None


def renewed_after(path: Path) -> int | None:
    """Return after how many tokens a text must be read anew, as a graph's config.json tells.

    See `LanguageModel.renewed_after`.
    """
    config = config_beside(path)
    return min(_longrope_lengths(config.get(OURS, config), None), default=None)


def _longrope_lengths(value: Any, length: Any) -> Iterator[int]:
    """Yield the lengths that a config gives, ours or transformers', which may say it further out."""
    if isinstance(value, dict):
        length = value.get("original_max_position_embeddings", length)
        if "longrope" in [value.get(key) for key in ("kind", "rope_type", "type")] and type(length) is int:
            yield length
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _longrope_lengths(each, length)


def session_settings(instructions: str, *, spinning: bool = False) -> dict[str, str]:
    """Return the entries of a session's configuration that suit a processor.

    Args:
        instructions: its instruction set, as `system.machine.instruction_set` writes it.
        spinning: let threads spin between runs, as ONNX Runtime does by default. A step begins sooner so, but
            whatever else runs in this process or beside it is slowed.
    """
    return dict([REST_AFTER_RUN] * (not spinning) + [EXACT_INTEGER_SUMS] * saturates(instructions))


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
    options = ort.SessionOptions()
    # Left to itself, ONNX Runtime counts the machine's cores, and binds threads to some that are not allowed.
    options.intra_op_num_threads = threads or default_threads()
    for name, value in session_settings(own_instruction_set(), spinning=spinning).items():
        options.add_session_config_entry(name, value)
    options.log_severity_level = SHOW_FATAL
    try:
        with _quiet_provider_probe(), _plain_attention(), in_utf8(graph.parent) as folder:
            providers = [CUDA, CPU] if wants_cuda else [CPU]
            session = ort.InferenceSession(folder / graph.name, options, providers=providers)
    except RootsError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own.
        raise _refusal(
            f"{ort.__version__} cannot open the graph: {str(error)[:1000]}", error, graph
        ) from error
    if provider == "cuda" and CUDA not in session.get_providers():
        raise InputError(
            "CUDA was asked for and ONNX Runtime found no usable CUDA device or libraries",
            where=graph,
            remedy="Check the driver and the CUDA and cuDNN libraries, or run on the CPU.",
        )
    return session


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
    """Run a session on arrays; return one output.

    Raises:
        InputError, StageError: as `run_bound` raises them.
    """
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
