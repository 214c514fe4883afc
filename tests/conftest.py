"""Shared fixtures: tiny real models and runs, built from a seed, never mocked."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.commands import Commands
from tests.fork_server import Server
from tests.forked import share_with_children

if TYPE_CHECKING:
    from roots_compress.configs.recipe.schema import Recipe
    from roots_compress.results import RunMetrics

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
WORKERS = pytest.StashKey[str]()
"""The address of the server that forks the test processes."""
# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers that fork processes once for all test processes, where there are several."""
    if getattr(config.option, "numprocesses", None) and not config.option.collectonly and hasattr(os, "fork"):
        from tests import forked_worker, measuring
        from tests.faults import commands

        measuring.address()
        server, workers = commands.start_server(), Server(forked_worker.__name__)
        os.environ[commands.ADDRESS] = server.address
        config.stash[WORKERS] = workers.address
        for each in (measuring.server(), server, workers):
            config.add_cleanup(each.close)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Have the test processes forked as well: each would import torch and transformers for ten seconds."""
    address = config.stash.get(WORKERS, None)
    if address is not None and Path.cwd() == config.rootpath:
        for spec in specs:
            spec.python = shlex.join([sys.executable, "-m", "tests.forked_worker", address])


def pytest_collection_finish() -> None:
    """Keep the garbage collector off libraries and tests, in this process and in those that it forks."""
    share_with_children()


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """No test pulls the plug: those of lost power replay what was done in a model of a disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _verbs_are_built_once() -> None:
    from tests import verbs

    verbs.build_once()


@pytest.fixture(scope="session", autouse=True)
def _measuring_processes_start_at_once() -> Iterator[None]:
    """See `measuring.py`."""
    if not hasattr(os, "fork"):
        yield
        return
    from roots_compress.evaluation import child
    from tests import measuring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "start", measuring.forked)
        yield


@pytest.fixture(scope="session", autouse=True)
def _models_are_tiny() -> None:
    """See `measuring.be_brief`."""
    if "torch" in sys.modules:
        from tests import measuring

        measuring.be_brief()


@pytest.fixture(scope="module", autouse=True)
def _the_collector_looks_at_what_is_new() -> None:
    """Each export collects cycles: what earlier modules left would be looked at each time."""
    share_with_children()


@pytest.fixture(autouse=True)
def _threads_of_one_test_are_not_the_next_one_s() -> None:
    """`--threads` is for the whole process; two threads that wait for one another make tiny models slow."""
    torch, threads = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS")
    if torch is not None and threads is not None:
        torch.set_num_threads(int(threads))


@pytest.fixture
def fresh_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring processes start as users have them start."""
    from roots_compress.evaluation import child
    from tests import measuring

    monkeypatch.setattr(child, "start", measuring.FRESH)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of one's own."""
    from tests.chains import write_text

    folder = tmp_path_factory.mktemp("text")
    write_text(folder)
    return folder


@pytest.fixture(scope="session")
def chain(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, RunMetrics]:
    """All four stages, run once for the tests that only look at the result."""
    from tests.chains import DISTILL, PRUNE, QUANTIZE, TRAIN, carry_out, recipe

    folder = tmp_path_factory.mktemp("runs") / "chain"
    wanted = recipe(text_file, TRAIN, DISTILL, PRUNE, QUANTIZE, gates={"max_perplexity_ratio": 50.0})
    return wanted, folder, carry_out(wanted, folder)


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    from tests import measuring

    measuring.address()
    folder = tmp_path_factory.mktemp("commands")
    with Commands(folder, folder / "log") as commands:
        yield commands


@pytest.fixture
def commands(_server: Commands, tmp_path: Path) -> Commands:
    """What runs whole commands in processes of their own, without each importing torch anew."""
    _server.log = tmp_path / "commands.log"
    return _server
