"""Measure this project's graphs beside other tools' engines, on one checkpoint, in one run.

    python -m benchmarks.peers CHECKPOINT --text HELD_OUT.txt [--out results.json]

It prints tables of at most 80 columns, then the same as Markdown; a row says which session options were set.
Every peer gets an environment of its own and its own form of the checkpoint; both are kept and used again.
`--prepare` stops before the timings, so that these can be taken when the machine is quiet.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.peers.checkpoints import Tokens, make_tokens
from benchmarks.peers.engines import BASELINE, OUR_ENGINES, OURS, PEERS, Engine, our_engine
from benchmarks.peers.environments import PeerError, installed_versions
from benchmarks.peers.measuring import Launch, time_engines, tokens_needed
from benchmarks.peers.preparing import Places, Ready, judged, launch_of, prepare
from benchmarks.peers.report import markdown, show_refused, show_rows, show_targets
from benchmarks.peers.targets import judge_targets
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.errors import InputError, RootsError
from roots_compress.system.machine import describe_machine
from roots_compress.system.threads import default_threads

DEFAULT_FOLDER = Path.home() / ".cache" / "roots-compress" / "peers"
PREFILL_LIMIT = 512
"""Longer prompts are read once, for decoding after them: prefill is compared at this length at most."""
JUDGED_CONTEXT = 512


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a ROOTS or Hugging Face directory, or a GGUF file")
    parser.add_argument("--text", type=Path, required=True, help="held-out text for the perplexity")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument(
        "--ours",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a graph folder; `fp32`, `int8` or `int4` take the place of what is built here",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="engines whose names hold one of these"
    )
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--decode-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--windows", type=int, default=24, help="held-out windows")
    parser.add_argument("--block-size", type=int, default=512, help="tokens of a window")
    parser.add_argument("--environments", type=Path, default=DEFAULT_FOLDER / "environments")
    parser.add_argument("--work", type=Path, default=DEFAULT_FOLDER / "work", help="built files, logs")
    parser.add_argument("--prepare", action="store_true", help="do all but the timings")
    return parser.parse_args(arguments)  # fmt: skip


def choose_engines(only: Sequence[str], ours: Sequence[str]) -> list[Engine]:
    """Return the rows to measure.

    Raises:
        InputError: a name or folder is not one.
    """
    mine = {engine.name: engine for engine in OUR_ENGINES}
    for given in ours:
        label, _, folder = given.partition("=")
        if not label or not Path(folder).is_dir() or not folder:
            raise InputError(
                f"--ours {given!r} is not NAME=FOLDER", remedy="Name a folder that export wrote."
            )
        name = f"ours {label}"
        mine[name] = our_engine(name, Path(folder).resolve(), mine[name].bits if name in mine else 32)
    engines = [*PEERS, *mine.values()]
    chosen = [
        engine for engine in engines if not only or any(word.lower() in engine.name.lower() for word in only)
    ]
    if not chosen:
        raise InputError(
            f"no engine's name holds {', '.join(only)}",
            remedy=f"The engines are: {', '.join(engine.name for engine in engines)}.",
        )
    return chosen


def fitting_contexts(options: argparse.Namespace, console: Console) -> list[int]:
    """Return the contexts that the model has room for.

    Raises:
        InputError: a number is out of range, or no context fits.
    """
    for name in ("decode_tokens", "repeats", "threads", "windows"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1")
    room = inspect_source(options.checkpoint).limits.max_context or 0
    fitting = [
        context
        for context in sorted(set(options.contexts))
        if context > 0 and tokens_needed([context], options.decode_tokens, options.repeats) <= room
    ]
    if not fitting:
        raise InputError(
            f"none of the contexts, with what is decoded after it, fits the model's {room} tokens",
            where=options.checkpoint,
        )
    if dropped := sorted(set(options.contexts) - set(fitting)):
        console.print(f"left out, for the model holds {room} tokens: contexts {dropped}")
    return fitting


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Prepare, measure and return everything that the JSON file holds.

    Raises:
        InputError: an option, the checkpoint or the text is not usable.
    """
    engines = choose_engines(options.only, options.ours)
    contexts = fitting_contexts(options, console)
    room = max(tokens_needed(contexts, options.decode_tokens, options.repeats), options.block_size)
    tokens = make_tokens(
        options.checkpoint, options.text, windows=options.windows, block_size=options.block_size, timed=room
    )
    places = Places(options.environments.resolve(), options.work.resolve())
    ready = prepare(engines, options.checkpoint, places, lambda step: console.print(step, style="dim"))

    figures, launches = _judge_all(engines, ready, tokens, places, options, contexts, console)
    if not options.prepare:
        rates, failed = time_engines(
            launches,
            tokens.timed,
            contexts=contexts,
            prefill_contexts=[context for context in contexts if context <= PREFILL_LIMIT],
            decode=options.decode_tokens,
            repeats=options.repeats,
            progress=lambda step: console.print(step, style="dim"),
        )
        ready.refused.update(failed)
        for name, of in rates.items():
            for what, each in of.items():
                figures[name][what] = {rate.context: rate.median for rate in each}
                figures[name][f"{what}_rates"] = [asdict(rate) for rate in each]
    return _document(options, contexts, figures, ready, tokens)


def _judge_all(
    engines: Sequence[Engine],
    ready: Ready,
    tokens: Tokens,
    places: Places,
    options: argparse.Namespace,
    contexts: Sequence[int],
    console: Console,
) -> tuple[dict[str, dict[str, Any]], list[Launch]]:
    """Return the figures that are no timings, and how to start each engine that gave them."""
    room = len(tokens.timed)
    context = min(JUDGED_CONTEXT, contexts[-1])
    figures: dict[str, dict[str, Any]] = {}
    launches: list[Launch] = []
    for engine in engines:
        if engine.name in ready.refused:
            continue
        console.print(f"{engine.name}: perplexity, tokens, memory", style="dim")
        try:
            launch = launch_of(engine, ready, places, threads=options.threads, room=room)
            found = judged(
                engine, launch, ready, tokens, places, context=context, decode=options.decode_tokens
            )
        except PeerError as error:
            ready.refused[engine.name] = str(error)
            continue
        figures[engine.name] = {
            "bits": engine.bits,
            "ours": engine.environment == OURS,
            **found,
            "perplexity": math.exp(found["nll_nats"] / tokens.scored),
            "prefill": {},
            "decode": {},
        }
        launches.append(launch)
    return figures, launches


def _document(
    options: argparse.Namespace,
    contexts: Sequence[int],
    figures: dict[str, dict[str, Any]],
    ready: Ready,
    tokens: Tokens,
) -> dict[str, Any]:
    return {
        "schema": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["python", "-m", "benchmarks.peers", *sys.argv[1:]],
        "machine": describe_machine(threads=options.threads, device="cpu"),
        "versions": {name: installed_versions(python) for name, python in ready.pythons.items()},
        "protocol": {
            "threads": options.threads,
            "repeats": options.repeats,
            "contexts": list(contexts),
            "decode_tokens": options.decode_tokens,
            "windows": len(tokens.windows),
            "block_size": options.block_size,
            "bos": tokens.bos,
            "text_sha256": tokens.text_sha256,
            "scored_tokens": tokens.scored,
        },
        "engines": figures,
        "refused": ready.refused,
        "targets": [{**asdict(target), "met": target.met} for target in judge_targets(figures, BASELINE)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 for bad input, 1 where nothing could be measured."""
    console = Console(stderr=True)
    options = parse(arguments)
    try:
        document = run(options, console)
    except RootsError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    show = Console()
    show_rows(show, document["engines"], BASELINE)
    targets = judge_targets(document["engines"], BASELINE)
    show_targets(show, targets)
    show_refused(show, document["refused"])
    print(markdown(document["engines"], BASELINE, targets))
    return 0 if document["engines"] else 1


if __name__ == "__main__":
    sys.exit(main())
