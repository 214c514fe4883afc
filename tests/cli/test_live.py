"""What is shown of a run while it goes on."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from roots_compress.cli.display.live import Live, Terminal
from roots_compress.cli.display.view import View
from roots_compress.events import (
    ChainPlanned,
    Event,
    Message,
    PlannedStage,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    WorkAdvanced,
    WorkFinished,
    WorkStarted,
)

CHAIN = ChainPlanned(
    (
        PlannedStage(0, "baseline", "baseline"),
        PlannedStage(1, "distill", "student [\x1b[31mred]"),
        PlannedStage(2, "quantize", "quantize", expected_seconds=90.0),
    )
)
RUNNING: list[Event] = [
    RunStarted("a name", "runs/a"),
    CHAIN,
    StageFinished(0, "baseline", "baseline", "reused", 41.0, "538.06 MB, perplexity 21.40"),
    StageStarted(1, "distill", "student [\x1b[31mred]"),
    WorkStarted("distill"),
    WorkAdvanced("distill", None, 450, 1000, 0.45, 186.0, "loss 3.211, 2,301 tokens/s"),
]
ENDING: list[Event] = [
    WorkFinished("distill"),
    StageFinished(1, "distill", "student", "made", 300.0, "270.00 MB, perplexity 25.00", 1e-6),
    RunFinished("a name", "runs/a"),
]


def view(events: list[Event]) -> View:
    shown = View()
    for event in events:
        shown.take(event)
    return shown


@pytest.mark.parametrize("width", [100, 60, 40, 8, 1])
@pytest.mark.parametrize("plain", [False, True])
def test_lines_fit_any_width(width: int, plain: bool) -> None:
    lines = [line.plain for line in view(RUNNING).lines(width, plain=plain)]
    assert len(lines) == 6
    assert all(cell_len(line) <= width for line in lines)
    assert "\x1b" not in "".join(lines)
    assert not plain or "".join(lines).replace("\N{REPLACEMENT CHARACTER}", "").isascii()


def test_the_chain_shows_what_has_finished_what_runs_and_what_waits() -> None:
    name, finished, running, waiting, work, note = (line.plain for line in view(RUNNING).lines(100))
    assert name.startswith("a name")
    assert "over 4:36 left" not in name
    assert "about 4:36 left" in name, "186 s of the running stage, 90 s of the one that waits"
    assert finished.startswith("✓ 00 baseline")
    assert finished.endswith("538.06 MB, perplexity 21.40, 0:41")
    assert running.startswith("▸ 01 distill (student")
    assert running.endswith("about 3:06 left")
    assert waiting.startswith("· 02 quantize")
    assert waiting.endswith("about 1:30")
    assert "━━━━━━━━━───────────  450/1000" in work
    assert note == "    loss 3.211, 2,301 tokens/s"


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    name, finished, *_, work, _ = (line.plain for line in view(RUNNING).lines(40))
    assert "left" in name
    assert finished.startswith("✓ 00 baseline")
    assert work.split() == ["distill", "450/1000", "3:06", "left"]


@pytest.mark.parametrize("height", [3, 20])
def test_a_low_terminal_shows_the_work_below_the_heading(height: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=height, force_terminal=True, color_system=None)
    console.print(view(RUNNING), end="")
    lines = file.getvalue().splitlines()
    assert len(lines) == min(height - 1, 6)
    assert lines[0].startswith("a name" if height > 3 else ("a name",))
    assert "loss 3.211" in lines[-1]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_live_display_leaves_the_chain_and_the_cursor(encoding: str) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    display = Live(Terminal(file=file, width=80, height=20, force_terminal=True))
    for event in [*RUNNING, Message("a remark \x1b[2J"), *ENDING]:
        display(event)
    file.flush()
    shown = raw.getvalue().decode(encoding)
    assert "a remark" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[?25" not in shown, "the cursor is neither hidden nor shown"
    assert shown.rindex("270.00 MB") > shown.rindex("loss 3.211"), "the chain is drawn again without the work"
    assert "\\u" not in shown.replace("remark \\ufffd", "")


def resize(terminal: int, rows: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


PROGRAM = """
import sys, time
from pathlib import Path
from roots_compress.cli import app as cli
from roots_compress.cli.display.output import events
from roots_compress.cli.help import Verb
from roots_compress.events import ChainPlanned, PlannedStage, RunStarted, StageStarted
from roots_compress.progress import Display

@cli.app.command("run", cls=Verb)  # in place of the real one
def run() -> None:
    told = events()
    told.emit(RunStarted("a name", "runs/a"))
    told.emit(ChainPlanned((PlannedStage(0, "baseline", "baseline"),)))
    told.emit(StageStarted(0, "baseline", "baseline"))
    with Display(told, "waiting") as display:
        for done in range(600):
            display.update(done, 600, "loss 1.5")
            time.sleep(0.1)

cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False)])
def test_ctrl_c_leaves_a_terminal_as_it_was(term: str, live: bool, tmp_path: Path) -> None:
    import pty
    import termios

    ours, theirs = pty.openpty()
    resize(theirs, 24, 40)
    before = termios.tcgetattr(theirs)
    environment = {**os.environ, "TERM": term, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run"], stderr=theirs, stdout=subprocess.DEVNULL, env=environment
    )
    shown = b""
    while b"loss 1.5" not in shown:
        shown += os.read(ours, 4096)
    resize(theirs, 10, 20)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    os.set_blocking(ours, False)
    shown += os.read(ours, 65536)
    assert termios.tcgetattr(theirs) == before
    assert (b"\x1b[2K" in shown) == live, "a line is drawn again on a terminal that can"
    assert b"\x1b[?25l" not in shown
    assert b"interrupted: finished stages are kept" in b" ".join(shown.split())
    assert b"Traceback" not in shown


SAYING = """
from roots_compress.cli.display.console import say, show_error
from roots_compress.cli.display.output import tell
from roots_compress.errors import RootsError

say("a sentence of results [red] 模型模型模型 模型模型 ends")
tell("a remark that is long, a/path/that/is/longer/still")
show_error(RootsError("the width is none", where="a/file", remedy="Take another width."))
"""


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_sentences_are_folded_between_words_on_a_narrow_terminal() -> None:
    import pty

    ours, theirs = pty.openpty()
    resize(theirs, 24, 20)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"}
    subprocess.run([sys.executable, "-c", SAYING], stdout=theirs, stderr=theirs, env=environment, check=True)
    assert os.read(ours, 4096).decode().split("\r\n") == [
        "a sentence of",
        "results [red]",
        "模型模型模型",
        "模型模型 ends",
        "a remark that is",
        "long,",
        "a/path/that/is/longer/still",
        "error: a/file: the",
        "width is none",
        "  Take another",
        "width.",
        "",
    ]
