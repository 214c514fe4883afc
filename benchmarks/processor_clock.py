"""Runs a module of Python with a clock of processor seconds, which a busy machine disturbs little.

    python -m benchmarks.processor_clock roots_compress run RECIPE --run RUN
    python -m benchmarks.processor_clock benchmarks.forecast RUN

`time.perf_counter` then tells the seconds that all threads of this process, and the processes that it has
waited for, were computing. Give recipes `evaluation.threads: 1`: several threads also compute as they wait.
"""

from __future__ import annotations

import resource
import runpy
import sys
import time


def processor_seconds() -> float:
    """Return the seconds that processors have spent on this process and on those that it waited for."""
    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in found)


def main() -> None:
    """Run the module that is named, with the arguments after it."""
    if not sys.argv[1:]:
        sys.exit("name a module, and its arguments after it")
    time.perf_counter = processor_seconds
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
