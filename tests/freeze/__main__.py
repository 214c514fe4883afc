"""Record what the stages make of many tiny models, or compare two records.

    python -m tests.freeze sources DIR            # write the models: once, with the older code
    python -m tests.freeze record DIR OUT.json    # with the older code, then with the newer
    python -m tests.freeze compare OLD.json NEW.json

A record is made with one thread; two records compare only if they are of one machine. `--model NAME=PATH`
adds a model that is on disk already, such as SmolLM2's GGUF file, whose width wants `--windows 80`; `--only
NAME` takes single models, and `--stage NAME` single stages (by their names in `record.STAGES`).
`compare` ends with 1 where numbers differ. Where only names differ, it lists them and ends with 0. A model
takes about 45 seconds of one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests import measuring
from tests.freeze.compare import differences
from tests.freeze.record import STAGES, calibrated, record
from tests.freeze.sources import write_sources


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.freeze", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    sources = actions.add_parser("sources")
    sources.add_argument("folder", type=Path)
    recorder = actions.add_parser("record")
    recorder.add_argument("folder", type=Path)
    recorder.add_argument("out", type=Path)
    recorder.add_argument("--model", action="append", default=[], metavar="NAME=PATH")
    recorder.add_argument("--only", action="append", default=[], metavar="NAME")
    recorder.add_argument("--stage", action="append", default=[], choices=STAGES, metavar="NAME")
    recorder.add_argument("--windows", type=int, help="of calibration text; more for a model of real width")
    comparer = actions.add_parser("compare")
    comparer.add_argument("old", type=Path)
    comparer.add_argument("new", type=Path)
    asked = parser.parse_args()
    if asked.action == "sources":
        write_sources(asked.folder)
        return 0
    if asked.action == "record":
        models = {path.name: path for path in sorted((asked.folder / "models").iterdir())}
        models |= {name: Path(path) for name, _, path in (given.partition("=") for given in asked.model)}
        wanted = {name: path for name, path in models.items() if not asked.only or name in asked.only}
        measuring.address()  # Its server starts measuring processes at once.
        with tempfile.TemporaryDirectory() as work:
            stages = {name: STAGES[name] for name in asked.stage or STAGES}
            made = record(wanted, asked.folder / "text", Path(work), calibrated(stages, asked.windows))
        asked.out.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    numbers, names = differences(
        json.loads(asked.old.read_text(encoding="utf-8")), json.loads(asked.new.read_text(encoding="utf-8"))
    )
    summary = f"{len(names)} entries differ in names alone, {len(numbers)} in numbers"
    sys.stdout.write("\n".join((*names, *numbers, summary)) + "\n")
    return 1 if numbers else 0


if __name__ == "__main__":
    sys.exit(main())
