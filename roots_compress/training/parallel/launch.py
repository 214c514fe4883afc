"""Starts a team of processes for a training, and ends it afterwards.

Process 0 leads: it runs the pipeline and holds the text, the weights and the run's folder. The others wait
until it calls a function with them, and afterwards end or wait again. If torchrun did not start the
processes, the training process starts the others by PyTorch's launcher, for that training.

They find each other through a store of PyTorch. Objects sent through it and through their group are pickled
by PyTorch: they come from the same program on machines of the same user, and never from a file.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from roots_compress.errors import InputError, Key, RootsError, StageError
from roots_compress.results import Json
from roots_compress.system.launched import Launched, launched
from roots_compress.system.machine import code_sha256, library_versions
from roots_compress.training.parallel.followers import Followers
from roots_compress.training.parallel.team import ALONE, Team, as_message, require_same

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

START_SECONDS = 300.0
"""Time limit for a process to start."""
NOTHING: tuple[Any, ...] = ()
"""Sent instead of a function: the work is finished."""
LAST_WORDS_SECONDS = 5.0
"""How long process 0 waits for the reason of another process's loss."""
SILENCE = timedelta(minutes=30)
"""How long processes wait for one that is alive but silent, such as one that writes a large state."""
POLL_SECONDS = 0.1

OWN = 0
"""Number of the only session of processes started for one training."""
_sessions = itertools.count(OWN + 1)
"""All processes that torchrun started count their teams in the same way, so that each team has unique
names."""
_open: list[Team] = []
"""The team that this process leads, if any."""


@contextmanager
def team_of(size: int, *, device: str, label: str) -> Iterator[Team]:
    """Within the block this many processes work together, and this one leads.

    A nested block uses the same ones.

    Args:
        size: the team's; 1 is this process alone.

    Raises:
        InputError: there are fewer GPUs than processes on this machine, or processes run other code.
        StageError: a process could not start, or was lost in the block.
    """
    if size == 1:
        yield ALONE
        return
    if _open:
        assert _open[0].size == size
        yield _open[0]
        return
    import torch

    here = launched()
    local_size = size if here is None else here.local_size
    _require_devices(device, local_size)
    threads = torch.get_num_threads()
    # A separate store for processes started here; one for all sessions of processes that torchrun started.
    number = OWN if here is None else next(_sessions)
    with _followers(here, size) as (store, followers):
        try:
            torch.set_num_threads(max(1, threads // local_size))
            store.set(f"open/{number}", json.dumps({"device": device, "threads": torch.get_num_threads()}))
            _await_all(store, number, size, followers)
            with _group(store, number, 0, size, device, local_size, local_rank=0) as team:
                _open.append(team)
                try:
                    yield team
                finally:
                    _open.clear()
                team.from_leader(NOTHING)
        except RuntimeError as error:
            if not _is_lost_connection(error):
                raise
            raise _failure(store, number, size, followers, label) from error
        finally:
            torch.set_num_threads(threads)


def call(team: Team, function: Callable[..., None], *arguments: Any) -> None:
    """Let the others of a team call a function with the team and these arguments; this process goes on."""
    team.from_leader((function, arguments))


def follow() -> None:
    """Serve process 0 until it ends: the work of the other processes under torchrun."""
    here = launched()
    assert here is not None
    store = _launchers_store(here)
    while True:
        number = next(_sessions)
        if not _comes(store, f"open/{number}"):
            return
        serve(store, number, here.rank, here.size, here.local_rank, here.local_size)


def end_followers() -> None:
    """Tell the others that process 0 ends, if there are any."""
    here = launched()
    if here is not None:
        with suppress(Exception):  # They have ended already, or the launcher will end them.
            _launchers_store(here).set("end", "end")


def serve(store: Store, number: int, rank: int, size: int, local_rank: int, local_size: int) -> None:
    """Do the requests of process 0 in one session, in another process.

    Errors are put into the store, for process 0 to report.
    """
    import torch

    opened = json.loads(store.get(f"open/{number}"))
    torch.set_num_threads(opened["threads"])
    store.set(f"here/{number}/{rank}", json.dumps(_code()))
    if not _comes(store, f"agreed/{number}"):
        return
    try:
        with _group(store, number, rank, size, opened["device"], local_size, local_rank=local_rank) as team:
            while message := team.from_leader(NOTHING):
                function, arguments = message
                function(team, *arguments)
    except Exception as error:
        # Errors that process 0 also sees, or that only follow from its end, need no report.
        if not _is_lost_connection(error):
            with suppress(Exception):
                store.set(f"failure/{number}/{rank}", as_message(error))


@contextmanager
def _followers(here: Launched | None, size: int) -> Iterator[tuple[Store, Followers | None]]:
    """Yield the store, and the processes that were started here."""
    if here is not None:
        yield _launchers_store(here), None
        return
    from torch._C._distributed_c10d import TCPStore

    with _on_loopback():
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        with Followers(size, store.port) as followers:
            yield store, followers


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let processes of one machine communicate through its loopback device, which every machine has."""
    name = "GLOO_SOCKET_IFNAME"
    given = os.environ.get(name)
    if given is None and sys.platform == "linux":
        os.environ[name] = "lo"
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(name, None)


@contextmanager
def _group(
    store: Store, number: int, rank: int, size: int, device: str, local_size: int, *, local_rank: int
) -> Iterator[Team]:
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore

    if device == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        store=PrefixStore(f"group/{number}", store),
        rank=rank,
        world_size=size,
        timeout=SILENCE,
    )
    try:
        yield Team(rank, size, local_size)
    finally:
        dist.destroy_process_group()


def _await_all(store: Store, number: int, size: int, followers: Followers | None) -> None:
    """Wait until all others are there, and check that they run this code."""
    deadline = time.monotonic() + START_SECONDS
    for rank in range(1, size):
        while not store.check([f"here/{number}/{rank}"]):
            if followers is not None and (ended := followers.ended()):
                raise StageError(ended, remedy="Check memory and limits of processes, or use fewer.")
            if time.monotonic() > deadline:
                raise StageError(
                    f"process {rank} of {size} did not come within {START_SECONDS:.0f} seconds",
                    remedy="Check that all machines reach each other, or use fewer processes.",
                )
            time.sleep(POLL_SECONDS)
    others = (json.loads(store.get(f"here/{number}/{rank}")) for rank in range(1, size))
    require_same("code", [_code(), *others])
    store.set(f"agreed/{number}", "agreed")


def _comes(store: Store, key: str) -> bool:
    """Wait for a message of process 0; return whether it came before the last one."""
    while not store.check([key]):
        if store.check(["end"]):
            return False
        time.sleep(POLL_SECONDS)
    return True


def _code() -> dict[str, Json]:
    """Return the facts that must be equal before any object is sent."""
    return {"code": code_sha256(), "versions": dict(library_versions())}


def _failure(store: Store, number: int, size: int, followers: Followers | None, label: str) -> RootsError:
    """Return the error for a lost connection to a process: its own error, if it left one."""
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    ended = None
    while time.monotonic() < deadline:
        for rank in range(1, size):
            if store.check([f"failure/{number}/{rank}"]):
                return _told(json.loads(store.get(f"failure/{number}/{rank}")), rank, size)
        if followers is not None and (ended := followers.ended()):
            break
        time.sleep(POLL_SECONDS)
    return StageError(
        ended or f"the connection to one of the {size} processes was lost",
        where=label,
        remedy="Run the command again: it goes on from the last saved state.",
        transient=True,
    )


def _told(words: dict[str, Any], rank: int, size: int) -> RootsError:
    if "remedy" not in words:
        return StageError(
            f"process {rank} of {size} failed: {words['kind']}: {words['message']}",
            remedy="Run the command again: it goes on from the last saved state. Report a second failure.",
        )
    kind = InputError if words["refused"] else StageError
    return kind(f"process {rank} of {size}: {words['message']}", where=words["where"], remedy=words["remedy"])


def _is_lost_connection(error: BaseException) -> bool:
    """Whether an exception means that another process is unreachable."""
    from torch.distributed import DistError

    words = str(error)
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in words)


def _require_devices(device: str, local_size: int) -> None:
    if device != "cuda":
        return
    import torch

    if (there := torch.cuda.device_count()) < local_size:
        raise InputError(
            f"asks for {local_size} processes on this machine, which has {there} GPUs",
            where=Key("processes"),
            remedy=f"Use at most {there} on each machine, or device: cpu.",
        )


@cache
def _launchers_store(here: Launched) -> Store:
    from torch.distributed.rendezvous import rendezvous

    timeout = timedelta(seconds=START_SECONDS)
    store: Store = next(iter(rendezvous("env://", here.rank, here.size, timeout=timeout)))[0]
    return store
