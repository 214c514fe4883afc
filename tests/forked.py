"""Work in a forked child, which inherits every library that its parent has imported."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


def share_with_children() -> None:
    """Keep the garbage collector off what there is: what it looks at in a forked child is copied.

    From then on it comes more seldom: tiny models leave little, and looking takes 3 % of the tests' time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def be_the_command(
    arguments: Sequence[str], log: Path, prepare: Callable[[], object] = lambda: None
) -> NoReturn:
    """Be the command, in a child that was just forked: a process group of its own, with its output in a file.

    Args:
        arguments: of the command line.
        log: the file, added to.
        prepare: what the child does first, such as going elsewhere.
    """

    def command() -> None:
        from roots_compress.cli.app import main

        prepare()
        sys.argv = ["roots-compress", *arguments]
        main()

    be(command, log)


def be(work: Callable[[], object], log: Path) -> NoReturn:
    """Do some work in a child that was just forked, as a process group of its own, and end the child.

    Args:
        work: what is done; it may raise SystemExit.
        log: the file that its output is added to.
    """

    def alone() -> None:
        stand_alone(log)
        work()

    end_with(alone)


def end_with(work: Callable[[], object], tell: Callable[[int], object] = lambda code: None) -> NoReturn:
    """Do some work in a child that was just forked, and end the child with its exit code.

    Args:
        work: what is done; it may raise SystemExit.
        tell: called with the exit code before the end.
    """
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        tell(code)
        os._exit(code)


def stand_alone(log: Path) -> None:
    """Make a child that was just forked a process group of its own: nothing to read, its output in a file."""
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    # The parent's streams may be pytest's, which write elsewhere.
    sys.stdout, sys.stderr = (
        open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )
