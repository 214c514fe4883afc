"""Where a verb's events and its result go: to a display, to lines, or as JSON to standard output."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from roots_compress import __version__
from roots_compress.cli.display.console import show_error, stderr
from roots_compress.errors import GateMissedError, RootsError, SourceWarning

if TYPE_CHECKING:
    from roots_compress.events import Event, Events, Sink
    from roots_compress.results import RunMetrics

_CURRENT: ContextVar[Output] = ContextVar("output")


class Output:
    """The output of one call of the command line."""

    def __init__(self) -> None:
        self._verb = ""
        self._json: Sink | None = None
        self._result_lines: _ResultLines | None = None
        self._closing: list[Callable[[bool], None]] = []

    @cached_property
    def events(self) -> Events:
        """The sink of events: until a verb begins, lines for people."""
        # Here and below: help is not to wait for this.
        from roots_compress.cli.display.lines import Lines
        from roots_compress.events import Events

        return Events(Lines(stderr()))

    def begin(self, verb: str, *, quiet: bool, as_json: bool) -> None:
        """Send events to the sink of a verb's options."""
        from roots_compress.events import Events, VerbStarted

        self._verb = verb
        at_terminal = sys.stdout.isatty()
        sinks: list[Sink] = []
        if as_json:
            sinks.append(self._begin_json())
        if not quiet:
            sinks.append(self._display(live=not (as_json and at_terminal)))
        self.events = Events(*sinks)
        self.events.emit(VerbStarted(verb, __version__))

    def _begin_json(self) -> Sink:
        """From now on, turn text on standard output into events."""
        from roots_compress.cli.display.json_lines import JsonLines

        self._json = sink = JsonLines(sys.stdout)
        self._result_lines = _ResultLines(sink)
        stream = sys.stdout

        def give_back(_failed: bool) -> None:
            sys.stdout = stream

        self._closing.append(give_back)
        sys.stdout = self._result_lines
        return sink

    def _display(self, *, live: bool) -> Sink:
        from roots_compress.cli.display.lines import Lines
        from roots_compress.cli.display.live import Live, Terminal

        console = Terminal(stderr=True, highlight=False)
        if not (live and console.is_interactive):
            return Lines(console)
        display = Live(console)
        self._closing.append(display.close)
        return display

    def follow(self, sink: Sink, close: Callable[[bool], None]) -> None:
        """Add a sink for the events from now on.

        Args:
            close: called at the end, with whether the verb failed.
        """
        from roots_compress.events import Events

        self.events = Events(*self.events.sinks, sink)
        self._closing.append(close)

    def give(self, result: Any) -> None:
        """Emit the verb's result, under `--json`; later text for people is left out."""
        if self._json is not None and self._result_lines is not None:
            from roots_compress.events import Result

            self._json(Result(self._verb, result))
            self._result_lines.dropped = True

    def fail(self, error: RootsError) -> None:
        """Write an error."""
        self.end_display(failed=error.exit_code != GateMissedError.exit_code)
        show_error(error)
        self.report_error(error)

    def report_error(self, error: RootsError) -> None:
        """Emit an error to JSON alone."""
        from roots_compress.events import Error

        self.report(Error(error.message, error.where, error.remedy, error.exit_code))

    def report(self, event: Event) -> None:
        """Emit an event only to JSON: people see it in another way."""
        if self._json is not None:
            self._json(event)

    def finish(self, exit_code: int) -> None:
        """Emit the last event to JSON."""
        if self._json is not None:
            from roots_compress.events import VerbFinished

            self._json(VerbFinished(exit_code))

    def end_display(self, *, failed: bool) -> None:
        """Remove the display, and restore standard output."""
        while self._closing:  # A tracker may report a failure, which the display must still show.
            self._closing.pop()(failed)
        if "events" not in vars(self):
            return  # Nothing has begun.
        from roots_compress.events import Events

        self.events = Events(*([self._json] if self._json is not None else []))


class _ResultLines(io.TextIOBase):
    """Standard output under `--json`: each line is an event, until the result has been given."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._held, self.dropped = sink, "", False

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        from roots_compress.events import OutputLine

        *lines, self._held = (self._held + text).split("\n")
        if not self.dropped:
            for line in lines:
                self._sink(OutputLine(line))
        return len(text)


@contextmanager
def opened(typed: Sequence[str]) -> Iterator[Output]:
    """Within the block there is an output; at its end the exit code is emitted.

    Args:
        typed: the arguments of the verb; those that cannot be read are an event too, where JSON is asked for.
    """
    output = Output()
    token = _CURRENT.set(output)
    code = 1
    try:
        with _told_warnings(output):
            yield output
        code = 0
    except typer.Exit as ending:
        code = ending.exit_code
        raise
    except Exception as error:
        # A mistake in the options: Typer reports it to people.
        if (message := getattr(error, "format_message", None)) is not None:
            code = getattr(error, "exit_code", 2)
            if "--json" in typed:
                from roots_compress.events import Error

                output.begin("", quiet=True, as_json=True)
                output.report(Error(message(), None, None, code))
        raise
    finally:
        output.end_display(failed=code not in (0, 3))
        output.finish(code)
        _CURRENT.reset(token)


@contextmanager
def _told_warnings(output: Output) -> Iterator[None]:
    """Within the block, report each warning of a source once; others are shown as before."""
    told = set[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("always", SourceWarning)
        show = warnings.showwarning

        def tell_once(message: Warning | str, category: type[Warning], *details: Any) -> None:
            if not isinstance(message, SourceWarning):
                show(message, category, *details)
            elif str(message) not in told:
                from roots_compress.events import Message

                told.add(str(message))
                output.events.emit(Message(str(message), "warning"))

        warnings.showwarning = tell_once  # type: ignore[assignment]  # its last parameters, in one
        yield


def current() -> Output:
    """Return the running verb's output; a function called without a verb has its own."""
    return _CURRENT.get(None) or Output()


def events() -> Events:
    """Return the sink of the verb's events."""
    return current().events


def tell(text: str) -> None:
    """Show text to people that is not a result."""
    events().say(text)


def track(name: str | None) -> None:
    """Let a tracker record the run, if one is named.

    Raises:
        InputError: its library is not installed.
    """
    if name is not None:
        from roots_compress.tracking import TRACKERS

        tracker = TRACKERS[name](tell)
        current().follow(tracker, tracker.close)


def give(result: Any) -> None:
    """Give the verb's result as values of JSON, before its text is written; without `--json`, do nothing."""
    current().give(result)


def give_run(metrics: RunMetrics, folder: Path, **others: Any) -> None:
    """Give the result of a verb that carried out a run."""
    report = str(folder / "report.html")
    give({"run": str(folder), "report": report, "metrics": metrics.to_json(), **others})
