"""Compare training by several processes with one: the time of a step, and the memory of each process.

    python benchmarks/process_scaling.py --steps 20

One process of one thread takes steps of a small model; then two processes of one thread each take the same
steps. The ideal is half the time. What else there is to a step is timed in process 0: clipping and the
optimizer, which each process does for all weights with `ddp`, and the wait for the others' losses. Processors
that share a memory slow one another down, whatever the software: so two processes that know nothing of one
another take steps of half the windows each, at the same time. Only processor times compare on a machine that
does other work too. The script compares the bytes that each process reports with the formulae of
docs/guides/processes.md. It prints Markdown, then a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from roots_compress.configs.train import ArchitectureConfig
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.data.windows import PackedWindows, following
from roots_compress.events import Events
from roots_compress.models.config import RootsConfig
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.stages.train.architecture import architecture_spec
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.loop import fit
from roots_compress.training.objective import CrossEntropy, Objective
from roots_compress.training.parallel.team import Team
from roots_compress.training.running import TrainingRun
from roots_compress.training.summary import FitSummary

VOCABULARY, TOKENS = 2048, 256


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--only", choices=["memory", "time"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    if arguments.only != "time":
        found["memory"] = memory()
        print("\n| processes | strategy | bytes held by each | by the formula |\n|---|---|---|---|")
        for row in found["memory"]:
            print(f"| {row['processes']} | {row['strategy']} | {row['held']:,} | {row['formula']:,} |")
    if arguments.only != "memory":
        found["time"] = times(arguments.steps, arguments.batch_size)
        print("\n| | seconds a step |\n|---|---|")
        for name, seconds in found["time"].items():
            print(f"| {name} | {seconds:.3f} |")
        for kind in ("", ": processor time of process 0"):
            ideal = found["time"][f"one process{kind}"] / 2
            over = found["time"][f"two processes, ddp{kind}"] / ideal - 1
            print(f"\nover the ideal of {ideal:.3f} s{kind}: {over:.1%}")
        alike = found["time"]["two processes apart, half the windows each"]
        over = found["time"]["two processes, ddp"] / alike - 1
        print(f"\nover two processes apart, which this machine gives {alike:.3f} s: {over:.1%}")
    print(json.dumps(found))


def held_bytes(trained: int, frozen: int, processes: int, strategy: str) -> int:
    """Return the bytes of weights, moments and frozen weights that each process holds, in float32.

    Args:
        trained: parameters that are trained: 4 bytes each, and 8 of moments.
        frozen: a teacher's parameters.
        processes: that train.
        strategy: with `ddp` each holds all of it.
    """
    return (12 * trained + 4 * frozen) // (processes if strategy == "fsdp" else 1)


def memory() -> list[dict[str, Any]]:
    """Return what processes hold that distil a student, as they report it and by the formula."""
    rows = []
    runs = ((2, "ddp", False), (2, "ddp", True), (2, "fsdp", False), (2, "fsdp", True), (4, "fsdp", False))
    for processes, strategy, divided in runs:
        student, teacher = model(2), model(4)
        objective = Distillation(teacher, student, DistillLossConfig(), seed=0)
        settings = {"processes": processes, "strategy": strategy, "tensor_parallel_teacher": divided}
        summary = train(student, objective, steps=1, batch_size=4, **settings)
        assert summary.processes is not None
        held: Any = summary.processes["held_bytes"]
        most = max(sum(each.values()) for each in held)
        sizes = [sum(p.numel() for p in each.parameters()) for each in (student, teacher)]
        formula = held_bytes(sizes[0], sizes[1], processes, strategy)
        if divided:
            linears = [each for each in teacher.model.layers.modules() if isinstance(each, torch.nn.Linear)]
            matrices = sum(each.weight.numel() for each in linears)
            formula = held_bytes(sizes[0], 0, processes, strategy)
            formula += 4 * (sizes[1] - matrices + matrices // processes)
        name = f"{strategy}, divided teacher" if divided else strategy
        rows.append({"processes": processes, "strategy": name, "held": most, "formula": formula})
    return rows


def times(steps: int, batch_size: int) -> dict[str, float]:
    """Return the median seconds of a step, and of its parts in process 0."""
    found = {}
    for name, processes in (("one process", 1), ("two processes, ddp", 2)):
        parts: dict[str, list[float]] = {"gather": [], "step": [], "cpu": []}
        with (
            timed(Team, "gather", parts["gather"]),
            timed(TrainingRun, "advance", parts["step"]),
            timed(TrainingRun, "advance", parts["cpu"], time.process_time),
        ):
            train(model(6), CrossEntropy(), steps=steps, batch_size=batch_size, processes=processes)
        found[name] = statistics.median(parts["step"][2:])
        found[f"{name}: processor time of process 0"] = statistics.median(parts["cpu"][2:])
        if processes > 1:
            found["of it: waiting for the other's losses"] = statistics.median(parts["gather"][3:-2])
    found["one process, half the windows"] = statistics.median(apart(1, steps, batch_size // 2))
    found["two processes apart, half the windows each"] = statistics.median(apart(2, steps, batch_size // 2))
    parameters = [torch.nn.Parameter(p.detach().clone()) for p in model(6).parameters()]
    optimizer = torch.optim.AdamW(parameters, fused=True)
    taken = []
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        started = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        taken.append(time.perf_counter() - started)
    found["of it: clipping and AdamW, by each process for all weights"] = statistics.median(taken)
    return found


def apart(processes: int, steps: int, batch_size: int) -> list[float]:
    """Return the seconds of steps by processes that train at the same time, each by itself."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        each = pool.starmap(steps_alone, [(steps, batch_size)] * processes, chunksize=1)
    return [seconds for one in each for seconds in one]


def steps_alone(steps: int, batch_size: int) -> list[float]:
    """Return the seconds of steps of one process, but for the first two."""
    torch.set_num_threads(1)
    seconds: list[float] = []
    with timed(TrainingRun, "advance", seconds):
        train(model(6), CrossEntropy(), steps=steps, batch_size=batch_size)
    return seconds[2:]


class timed:  # noqa: N801
    """Within the block, calls of a method are timed."""

    def __init__(
        self,
        holder: type,
        name: str,
        seconds: list[float],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._holder, self._name, self._seconds, self._clock = holder, name, seconds, clock
        self._method: Callable[..., Any] = getattr(holder, name)

    def __enter__(self) -> None:
        method, seconds, clock = self._method, self._seconds, self._clock

        def wrapped(*arguments: Any, **named: Any) -> Any:
            started = clock()
            result = method(*arguments, **named)
            seconds.append(clock() - started)
            return result

        setattr(self._holder, self._name, wrapped)

    def __exit__(self, *_: object) -> None:
        setattr(self._holder, self._name, self._method)


def model(layers: int) -> RootsForCausalLM:
    """Return a model of the quickstart's width with random weights."""
    architecture = ArchitectureConfig(
        hidden_size=192,
        num_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=512,
    )
    torch.manual_seed(0)
    return RootsForCausalLM(RootsConfig(spec=architecture_spec(architecture, VOCABULARY)))


def train(
    trained: RootsForCausalLM, objective: Objective, *, steps: int, batch_size: int, **settings: Any
) -> FitSummary:
    """Train on random tokens."""
    ids = np.random.default_rng(0).integers(3, VOCABULARY, (64, TOKENS))
    scored = np.ones(ids.shape, dtype=bool)
    scored[:, 0] = False
    windows = PackedWindows(ids, following(ids, scored), np.zeros_like(ids))
    config = TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        block_size=TOKENS,
        precision="fp32",
        checkpoint_every=10**6,
        **settings,
    )
    with tempfile.TemporaryDirectory() as work:
        context = TrainingContext("cpu", 0, Path(work), Events())
        return fit(trained, windows, objective, config, context)


if __name__ == "__main__":
    main()
