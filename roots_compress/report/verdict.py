"""The decision that a run's figures support, in one sentence with its reason.

The last stage is compared with the run's first row. Gates decide on the figures that they bound. Other
figures are judged by `TOLERATED_COST` and by the noise of timings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from roots_compress.report.charts.svg import cut
from roots_compress.report.rows import quality_of, within_noise
from roots_compress.report.spread import SPEED_NOISE, gain_of
from roots_compress.results import GateResult, RunMetrics, StageResult
from roots_compress.stages.registry import stage_of_kind
from roots_compress.tasks.base import Task
from roots_compress.tasks.figures.figures import Workload
from roots_compress.tasks.registry import task_named

TOLERATED_COST = 1.05
"""The most that the main metric may get worse if no gate bounds quality: 5% more perplexity."""
LONGEST_NAME = 60
"""Characters of a stage's name that a report shows."""
Decision = Literal["ship", "do not ship", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The decision on a run's last stage, with its reason."""

    decision: Decision
    reason: str
    """The rest of the sentence, which begins with the stage's name."""
    advice: str = ""
    """What else to do: look at an earlier stage, or set the gate that would decide."""

    @property
    def decided(self) -> str:
        """The first words of the sentence."""
        return self.decision.capitalize() + (":" if self.decision == "undecided" else "")

    @property
    def sentence(self) -> str:
        """The decision and its reason: `Ship 03-quantize: 4.6x smaller, ...`."""
        return f"{self.decided} {self.reason}"


def numbered(stage: StageResult) -> str:
    """Return a row's place and name, as in `03-quantize`."""
    return f"{stage.index:02d}-{cut(stage.name, LONGEST_NAME)}"


def verdict(run: RunMetrics) -> Verdict:
    """Return whether the last stage is worth shipping in place of the first row, and why."""
    if run.unfinished is not None:
        reason = "the figures are of an earlier attempt, and the last one has not finished"
        return Verdict("undecided", f"{reason}: {run.unfinished.rstrip('.')}.")
    task, first, last = task_named(run.task), run.stages[0], run.stages[-1]
    missed = [gate for gate in run.gates if not gate.passed]
    name, changes = numbered(last), _Changes(task, first, last)
    if missed:
        told = "" if first is last else f"; {changes.listed()}"
        return Verdict("do not ship", f"{name}: {_missed(missed)}{told}.")
    if first is last:
        kept = f"; {_kept(run.gates)}" if run.gates else ""
        return Verdict("undecided", f"the run has only {name}, and nothing to compare it with{kept}.")
    decision, reason, wanted = _weighed(run, changes)
    if decision == "ship":
        return Verdict(decision, f"{name}: {reason}; {_kept(run.gates)}.")
    joined = " is" if decision == "undecided" else ":"
    advice = _instead(run), f"Set the gate {wanted} in the recipe to decide." if wanted else ""
    return Verdict(decision, f"{name}{joined} {reason}.", " ".join(filter(None, advice)))


def _weighed(run: RunMetrics, changes: _Changes) -> tuple[Decision, str, str]:
    """Return the decision on a stage that misses no gate, the reason, and the gate that would decide."""
    task, listed = changes.task, changes.listed()
    if not changes.gains:
        return (
            "do not ship",
            f"neither smaller, nor faster, nor better than {numbered(changes.first)}; {listed}",
            "",
        )
    if changes.is_slower:
        reason = _reason(run, task.workload)
        slower = f"{changes.speed()} here" + (f" because {reason}" if reason else "")
        others = changes.listed(speed=False)
        if not run.gates:
            return "do not ship", f"{slower}; {others}", ""
        if not _bounded(run.gates, speed=True):
            return (
                "undecided",
                f"{others}, but {slower}; {_kept(run.gates)}, but none bounds speed",
                task.workload.speedup_bound,
            )
        listed = f"{others}, but {slower}"
    if changes.cost > TOLERATED_COST and not _bounded(run.gates, speed=False):
        return "undecided", f"{listed}; no gate bounds such a loss", task.metric.compared_bound
    return "ship", listed, ""


@dataclass(frozen=True)
class _Changes:
    """The differences of a row from an earlier one."""

    task: Task[Any]
    first: StageResult
    last: StageResult

    @property
    def smaller(self) -> float:
        return self.first.metrics.bytes / self.last.metrics.bytes

    @property
    def cost(self) -> float:
        """The factor by which the main metric has become worse."""
        metric = self.task.metric
        return metric.cost(metric.compared(*quality_of(self.task, self.first, self.last)))

    @property
    def within_noise(self) -> bool:
        """Whether the change of quality is: the interval includes no change."""
        return within_noise(self.task, self.first, self.last)

    @property
    def is_slower(self) -> bool:
        return gain_of(self.first, self.last, self.task.workload) < 1 - SPEED_NOISE

    @property
    def gains(self) -> bool:
        """Whether anything became better by more than noise."""
        faster = any(
            gain_of(self.first, self.last, workload) > 1 + SPEED_NOISE for workload in self.task.workloads
        )
        return faster or self.smaller > 1.005 or (self.cost < 1 and not self.within_noise)

    def listed(self, *, speed: bool = True) -> str:
        """Return the changes in a row: size, speed where asked for, quality."""
        size = "of the same size"
        if not 0.995 <= self.smaller <= 1.005:
            larger = self.smaller < 1
            size = (
                f"{factor(1 / self.smaller if larger else self.smaller)} {'larger' if larger else 'smaller'}"
            )
        quality = self.task.metric.change(*quality_of(self.task, self.first, self.last))
        if self.within_noise:
            quality += " (within noise)"
        return ", ".join(filter(None, (size, self.speed() if speed else "", quality)))

    def speed(self) -> str:
        """Return the change of the workload that decides, and of the others that became slower.

        If the one that decides is as fast as before, those that became faster are told: they are the gain.
        """
        several = len(self.task.workloads) > 1
        as_fast = abs(gain_of(self.first, self.last, self.task.workload) - 1) <= SPEED_NOISE
        told = []
        for workload in reversed(self.task.workloads):
            gain = gain_of(self.first, self.last, workload)
            prefix = f"{workload.words} " if several else ""
            if gain < 1 - SPEED_NOISE:
                told.append(f"{prefix}{factor(1 / gain)} slower")
            elif gain > 1 + SPEED_NOISE and (as_fast or workload == self.task.workload):
                told.append(f"{prefix}{factor(gain)} faster")
            elif workload == self.task.workload and not math.isnan(gain):
                told.append(f"{prefix}as fast")
        return ", ".join(told)


def factor(value: float) -> str:
    """Return a factor for a sentence: `4.6x`, `1.05x`, `12x`."""
    return f"{value:.{2 if value < 1.1 else 1 if value < 9.95 else 0}f}x"


def _reason(run: RunMetrics, workload: Workload) -> str | None:
    """Return why a stage that made the run slower did so, if the stage knows."""
    for before, after in zip(run.stages, run.stages[1:], strict=False):
        stage = stage_of_kind(after.kind)
        if stage is not None and gain_of(before, after, workload) < 1 - SPEED_NOISE:
            reason = stage.slower_because(after.notes, run.machine)
            if reason:
                return reason
    return None


def _bounded(gates: tuple[GateResult, ...], *, speed: bool) -> bool:
    """Return whether any gate bounds speed, or otherwise whether any bounds quality."""
    names = [gate.gate.rpartition(".")[2] for gate in gates]
    timed = [name for name in names if name.endswith(("_speedup", "_ms"))]
    if speed:
        return bool(timed)
    return any(name not in (*timed, "max_bytes", "min_size_ratio", "max_peak_rss_bytes") for name in names)


def _missed(missed: list[GateResult]) -> str:
    first, *others = missed
    more = f", and {len(others)} more gate{'s are' if len(others) > 1 else ' is'} missed" if others else ""
    return first.line + more


def _kept(gates: tuple[GateResult, ...]) -> str:
    if not gates:
        return "no gates were set"
    return "all gates are kept" if len(gates) > 1 else "its gate is kept"


def _instead(run: RunMetrics) -> str:
    """Return a sentence that names the last earlier stage that gains something and costs little."""
    task, first = task_named(run.task), run.stages[0]
    for stage in reversed(run.stages[1:-1]):
        changes = _Changes(task, first, stage)
        gains = changes.smaller > 1.005 or gain_of(first, stage, task.workload) > 1 + SPEED_NOISE
        if gains and not changes.is_slower and changes.cost <= TOLERATED_COST:
            return f"Consider {numbered(stage)}: {changes.listed()}."
    return ""
