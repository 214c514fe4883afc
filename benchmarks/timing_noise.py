"""Time a graph against itself: how far apart two equal artifacts may measure on this machine.

Run it as `python benchmarks/timing_noise.py FOLDER [--contexts 128 512] [--repeats 5]`. It opens the same
folder twice, times both as the stages of a run are timed, and prints the ratio of their medians at each
context; then one JSON line. A difference between two stages that is no larger than the ratios here says
nothing. Exit code 1: all repeats of one were quicker than all of the other, so one of the two was favoured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from roots_compress.evaluation.speed import measure_speed
from roots_compress.system.threads import default_threads


def main() -> int:
    """Run the comparison and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder with a graph")
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--decode-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=default_threads())
    options = parser.parse_args()
    speeds = measure_speed(
        {"first": options.folder, "second": options.folder},
        contexts=options.contexts,
        decode_tokens=options.decode_tokens,
        repeats=options.repeats,
        threads=options.threads,
    )
    rows, apart = [], False
    print("| figure | context | first tok/s | second tok/s | ratio | spread of the repeats |")
    print("|---|---|---|---|---|---|")
    for name in ("prefill", "decode"):
        pairs = zip(speeds["first"][name], speeds["second"][name], strict=True)
        for first, second in pairs:
            ratio = first.median / second.median
            spread = max(first.high / first.low, second.high / second.low)
            apart |= first.low > second.high or second.low > first.high
            rows.append({"figure": name, "context": first.context, "ratio": ratio, "spread": spread})
            print(
                f"| {name} | {first.context} | {first.median:.1f} | {second.median:.1f} | {ratio:.3f}"
                f" | {spread:.3f} |"
            )
    print(json.dumps({"threads": options.threads, "repeats": options.repeats, "rows": rows}))
    return int(apart)


if __name__ == "__main__":
    raise SystemExit(main())
