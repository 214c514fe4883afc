"""The long form of the planted bugs, of which the test suite runs a few.

    python -m tests.planted
    python -m tests.planted --clean 50

The first plants every bug in turn into a copy of the package, and prints by what it was caught; each check
must pass on the clean copy as well. The second carries an ordinary chain out with so many seeds: not one
guard may speak. Both leave with exit code 1 where something was not as it should be. What was found stands in
docs/how/reliability.md.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.planted.bug import Bug, FailingTest, Guard
from tests.planted.bugs import BUGS
from tests.planted.harness import Answer, check, check_chain, fault, last_words, warm_up


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="NAME", help="bugs with this in their names"
    )
    parser.add_argument("--clean", type=int, metavar="RUNS", help="clean runs of the chain instead")
    options = parser.parse_args()
    console = Console()
    warm_up()
    return _clean(options.clean, console) if options.clean else _planted(options.only, console)


def _planted(only: list[str], console: Console) -> int:
    table = Table("bug", "symptom", "caught by", "seconds")
    missed = 0
    chosen = [bug for bug in BUGS if any(name in bug.name for name in only)]
    for bug in chosen:
        catcher = bug.caught_by
        answer = check_chain(bug) if isinstance(catcher, Guard) else check([catcher], bug)
        reason = fault(bug, answer)
        missed += reason is not None
        verdict = f"MISSED: {reason}" if reason else f"caught by {catcher.name}"
        console.print(f"{bug.name}: {verdict}", markup=False, highlight=False, soft_wrap=True)
        table.add_row(bug.name, bug.symptom, "MISSED" if reason else catcher.name, f"{answer.seconds:.1f}")
    console.print(table)
    alarms = _false_alarms(chosen, console)
    symptoms = len({bug.symptom for bug in chosen})
    console.print(
        f"{len(chosen) - missed} of {len(chosen)} bugs caught, of {symptoms} symptoms; {alarms} false alarms"
    )
    return 1 if missed or alarms or not chosen else 0


def _false_alarms(bugs: list[Bug], console: Console) -> int:
    """Make the same checks of the clean copy; return how many of the two kinds failed."""
    answers: list[Answer] = []
    if any(isinstance(bug.caught_by, Guard) for bug in bugs):
        answers.append(check_chain())
    if tests := [bug.caught_by for bug in bugs if isinstance(bug.caught_by, FailingTest)]:
        answers.append(check(list(dict.fromkeys(tests))))
    alarms = [answer for answer in answers if answer.code]
    for answer in alarms:
        console.print(f"without a bug, too: {last_words(answer)}", markup=False, highlight=False)
    return len(alarms)


def _clean(runs: int, console: Console) -> int:
    alarms = 0
    started = time.monotonic()
    for seed in range(runs):
        answer = check_chain(seed=seed)
        alarms += answer.code != 0
        verdict = f"FALSE ALARM: {last_words(answer)}" if answer.code else "no alarm"
        console.print(f"seed {seed}: {verdict}, {answer.seconds:.0f} s", markup=False, highlight=False)
    console.print(f"{runs} clean runs, {alarms} false alarms, {time.monotonic() - started:.0f} s")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
