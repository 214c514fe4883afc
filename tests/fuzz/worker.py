"""One target under libFuzzer, by atheris: started by `python -m tests.fuzz`, and ended by the first finding.

    python -m tests.fuzz.worker TARGET GOOD PLACE -seed=1 -max_total_time=60 CORPUS

The arguments after the third are libFuzzer's own (https://llvm.org/docs/LibFuzzer.html#options).
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris


def main() -> None:
    """Fuzz until libFuzzer has had enough, which ends the process."""
    name, good, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["roots_compress", "yaml", "json"]):
        from tests.fuzz.targets import TARGETS, surround, try_input
    target = TARGETS[name]
    place = surround(target, Path(good), Path(folder))

    def one_input(data: bytes) -> None:
        try_input(target, data, place)

    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
