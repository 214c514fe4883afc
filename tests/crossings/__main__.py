"""The long form of the crossings, of which the test suite runs a part.

    python -m tests.crossings --seed 1

runs a command of each verb in each surrounding, and sends it signals at moments drawn from the seed. It
prints one JSON line for each verb as it ends, and leaves with exit code 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.crossings.materials import prepare
from tests.crossings.signals import check_signals
from tests.crossings.surroundings import SURROUNDINGS, faults_of
from tests.verbs import verbs


def main() -> None:
    """Run the crossings that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.crossings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moments", type=int, default=6, help="of each of the three signals")
    parser.add_argument("--only", choices=("surroundings", "signals"))
    parser.add_argument("--verb", action="append", choices=verbs(), help="these verbs only")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = prepare(folder)
        for verb in options.verb or commands:
            started, found = time.monotonic(), dict[str, Any]()
            if options.only != "signals":
                met = [
                    (each, surrounding)
                    for each, surrounding in SURROUNDINGS.items()
                    if commands[verb].writes or not surrounding.about_output
                ]
                found["surroundings"] = len(met)
                found["faults"] = [
                    f"{each}: {fault}"
                    for each, surrounding in met
                    for fault in faults_of(commands[verb], surrounding, folder / "surrounding")
                ]
            if options.only != "surroundings":
                (folder / verb).mkdir()
                rng = random.Random(f"{options.seed}/{verb}")
                signals = check_signals(commands[verb], folder / verb, moments=options.moments, rng=rng)
                found["signals"] = dict(sorted(signals.endings.items()))
                found["faults"] = [*found.get("faults", ()), *signals.faults]
            failed |= bool(found["faults"])
            line = {"verb": verb, **found, "seconds": round(time.monotonic() - started, 1)}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
    sys.exit(failed)


if __name__ == "__main__":
    main()
