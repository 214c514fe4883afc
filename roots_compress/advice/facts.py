"""What is known of a checkpoint and of this machine before anything is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.source import SourceInfo
from roots_compress.configs.data import RecordKind
from roots_compress.data.chat.rendering import template_of
from roots_compress.errors import InputError
from roots_compress.io.disk import free_disk
from roots_compress.stages.base import ModelInfo
from roots_compress.system.machine import has_dot_products, own_instruction_set, processor_class
from roots_compress.system.memory import available_memory
from roots_compress.system.threads import default_threads
from roots_compress.tasks.base import Task


@dataclass(frozen=True)
class Machine:
    """What this machine offers."""

    threads: int
    """As many as there are physical cores to use."""
    processor: str
    """Its class, by the kernels that 8-bit products get."""
    dot_products: bool
    """Whether it multiplies 8-bit integers by instructions made for that."""
    memory: int | None
    """Bytes available; None where the system does not tell."""
    disk: int
    """Bytes free where the run will be."""

    @classmethod
    def here(cls, folder: Path) -> Machine:
        """Look at this machine, and at the disk of a folder."""
        instructions = own_instruction_set()
        return cls(
            default_threads(),
            processor_class(instructions),
            has_dot_products(instructions),
            available_memory(),
            free_disk(folder),
        )


@dataclass(frozen=True)
class Facts:
    """What is known of a checkpoint, and of the machine that compresses it."""

    source: SourceInfo
    info: ModelInfo
    chats: bool
    """Whether its tokenizer has a chat template."""
    tokens: int
    """Entries of its tokenizer."""
    machine: Machine

    @property
    def task(self) -> Task[Any]:
        """What the model is for."""
        return self.info.task

    @property
    def context(self) -> int:
        """Tokens that the model can hold."""
        context = self.info.limits.max_context
        assert context is not None
        return context


def look_at(checkpoint: Path, folder: Path, *, records: RecordKind | None = None) -> Facts:
    """Look at a checkpoint's headers and tokenizer, and at this machine.

    Args:
        checkpoint: a directory or a GGUF file.
        folder: where the run will be.
        records: what the data holds, where it is not what the model's own task reads.

    Raises:
        InputError: it is no checkpoint, its weights are quantized already, or it reads no such records.
    """
    source = inspect_source(checkpoint)
    if source.quantized:
        raise InputError(
            "the model is quantized already, and quantized weights cannot be changed",
            where=source.path,
            remedy="Name the checkpoint from before quantization.",
        )
    info = ModelInfo.of(source)
    if records is not None:
        info = replace(info, task=info.task.for_records(records))
    assert info.tokenizer is not None
    tokenizer = info.tokenizer()
    chats = info.task.writes_unasked and template_of(tokenizer) is not None
    return Facts(source, info, chats, len(tokenizer), Machine.here(folder))
