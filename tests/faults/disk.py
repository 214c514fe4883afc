"""A layer between the program and the calls by which it changes files, where each call can be made to fail.

It replaces the functions of `os` that make, rename, delete and sync, and `io.open` for writing, through which
pathlib, shutil and filelock pass too. So every durable step of the store is seen, with its bytes, and without
help from the operating system.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

Kind = Literal["create", "write", "fsync", "rename", "mkdir", "unlink", "rmdir"]


@dataclass(frozen=True)
class Operation:
    """One call that changes files, or makes a change last."""

    kind: Kind
    path: Path
    target: Path | None = None
    """Where a rename goes."""
    data: bytes = b""
    """What a write holds."""


class Hook:
    """Stands in place of every operation, and counts those that were done; this one does them all."""

    def __init__(self) -> None:
        self.done: list[Operation] = []

    def __call__(self, operation: Operation, perform: Callable[[], Any]) -> Any:
        """Do an operation, or fail as it might; return what the call shall return."""
        result = perform()
        # One that failed, such as deleting what is not there, changed nothing and is no step.
        self.done.append(operation)
        return result


@contextmanager
def interposed(hook: Hook) -> Iterator[None]:
    """Send every durable operation of this process through a hook."""
    real_open, real_os_open, real_fsync = io.open, os.open, os.fsync

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wxa+"):
            return real_open(file, mode, *args, **kwargs)
        path = Path(os.path.abspath(file))  # noqa: PTH100 - must not resolve links
        raw = hook(Operation("create", path), lambda: _Raw(path, mode.replace("b", ""), hook))
        stream = io.BufferedWriter(raw)
        return stream if "b" in mode else io.TextIOWrapper(stream, **kwargs)

    def os_opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if not flags & os.O_CREAT:
            return real_os_open(path, flags, *args, **kwargs)
        made: int = hook(
            Operation("create", _located(path, None)), lambda: real_os_open(path, flags, *args, **kwargs)
        )
        return made

    replaced: dict[str, Callable[..., Any]] = {
        "open": os_opened,
        "fsync": lambda descriptor: hook(
            Operation("fsync", _path_of(descriptor)), lambda: real_fsync(descriptor)
        ),
        "rename": _renamer(hook, os.rename),
        "replace": _renamer(hook, os.replace),
        "mkdir": _changer(hook, "mkdir", os.mkdir),
        "unlink": _changer(hook, "unlink", os.unlink),
        "rmdir": _changer(hook, "rmdir", os.rmdir),
    }
    # shutil.rmtree asks whether these functions take folders' descriptors, as the real ones do.
    able = {*os.supports_dir_fd, *(replaced[name] for name in ("open", "unlink", "rmdir"))}
    with ExitStack() as patches:
        for name, function in {**replaced, "supports_dir_fd": able}.items():
            patches.enter_context(patch.object(os, name, function))
        patches.enter_context(patch.object(io, "open", opened))
        yield


class _Raw(io.FileIO):
    """A file whose writes go through the hook, as many of them as the buffer above it makes."""

    def __init__(self, path: Path, mode: str, hook: Hook) -> None:
        super().__init__(path, mode)
        self._path, self._hook = path, hook

    def write(self, data: Any) -> int:
        content = bytes(data)
        written: int = self._hook(
            Operation("write", self._path, data=content), lambda: super(_Raw, self).write(content)
        )
        return written


def _changer(hook: Hook, kind: Kind, real: Callable[..., None]) -> Callable[..., Any]:
    def change(path: Any, *args: Any, dir_fd: int | None = None) -> Any:
        operation = Operation(kind, _located(path, dir_fd))
        return hook(operation, lambda: real(path, *args, dir_fd=dir_fd))

    return change


def _renamer(hook: Hook, real: Callable[..., None]) -> Callable[..., Any]:
    def rename(source: Any, target: Any) -> Any:
        operation = Operation("rename", _located(source, None), _located(target, None))
        return hook(operation, lambda: real(source, target))

    return rename


def _located(path: Any, folder: int | None) -> Path:
    base = _path_of(folder) if folder is not None else Path.cwd()
    return base / str(path)


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()
