"""The long form of the corpus, of which the test suite runs a part.

    python -m tests.bad_inputs --seed 1

makes 2,000 malformed inputs, has the command line meet each, and prints one JSON line for each kind of
input as it ends and one for each answer that was not as it should be; it leaves with exit code 1 where
there was one.
What was run so far stands in docs/how/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bad_inputs.corpus import GENERATORS, planned
from tests.bad_inputs.hostile import HOSTILE
from tests.bad_inputs.materials import make_materials
from tests.bad_inputs.sandbox import Verdict, check, meet, warm_up


def main() -> int:
    """Run the corpus; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bad_inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000, help="malformed inputs in all")
    parser.add_argument("--only", default="", help="generators whose name begins so")
    parser.add_argument("--verbose", action="store_true", help="say what was said each time")
    parser.add_argument("--hostile", action="store_true", help="the hostile files instead")
    options = parser.parse_args()
    if options.hostile:
        return _hostile()
    generators = [generator for generator in GENERATORS if generator.name.startswith(options.only)]
    warm_up()
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as folder:
        good = make_materials(Path(folder, "good"))
        for kind, cases in _by_kind(planned(generators, options.count)):
            started = time.monotonic()
            seen = []
            for generator, number in cases:
                verdict = check(generator, number, good, Path(folder), seed=options.seed)
                seen.append(verdict)
                if verdict.faults or options.verbose:
                    _say(
                        case=verdict.case,
                        faults=verdict.faults,
                        arguments=[argument[:200] for argument in verdict.request.arguments],
                        code=verdict.outcome.code,
                        output=verdict.outcome.output[-3000:],
                    )
            verdicts += seen
            _say(kind=kind, **_figures(seen), seconds=round(time.monotonic() - started, 1))
    _say(kind="all", seed=options.seed, generators=len(generators), **_figures(verdicts))
    return 1 if any(verdict.faults for verdict in verdicts) else 0


def _hostile() -> int:
    """Have the command line meet every hostile file; return the exit code."""
    warm_up()
    marks = faulty = 0
    with tempfile.TemporaryDirectory() as folder:
        good = make_materials(Path(folder, "good"))
        for name in HOSTILE:
            marked, faults = meet(name, good, Path(folder))
            marks, faulty = marks + marked, faulty + bool(faults)
            if faults:
                _say(case=name, faults=faults)
    _say(kind="hostile", files=len(HOSTILE), marks=marks, faulty=faulty)
    return 1 if faulty else 0


def _by_kind(cases: list[tuple[Any, int]]) -> Iterator[tuple[str, list[tuple[Any, int]]]]:
    kinds = Counter(generator.name.split(":")[0] for generator, _ in cases)
    for kind in kinds:
        yield kind, [case for case in cases if case[0].name.split(":")[0] == kind]


def _figures(verdicts: list[Verdict]) -> dict[str, Any]:
    faulty = [verdict for verdict in verdicts if verdict.faults]
    return {
        "inputs": len(verdicts),
        "as it should be": len(verdicts) - len(faulty),
        "tracebacks": sum("traceback" in verdict.faults for verdict in verdicts),
        "hangs": sum(any(fault.startswith("took") for fault in verdict.faults) for verdict in verdicts),
        "files written": sum(len(verdict.outcome.changed) for verdict in verdicts),
        "longest cpu seconds": round(
            max((verdict.outcome.cpu_seconds for verdict in verdicts), default=0), 2
        ),
        "most extra MB": max((verdict.outcome.extra_bytes for verdict in verdicts), default=0) >> 20,
    }


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
