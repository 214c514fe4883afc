"""What distillation costs in time and memory.

    python benchmarks/distillation_speed.py CHECKPOINT

It sets the loop that most people would write (transformers' Llama, full-vocabulary KL, float32, the teacher
running along) beside this project's, which reads a cached teacher. Each runs in a process of its own; their
steps take turns, so that what disturbs the machine disturbs all of them alike. Times are medians over steps,
without the first and the last; memory is the process's peak, the making of the cache and the saving of the
state included. It prints a Markdown table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint
from roots_compress.checkpoints.write_back import write_back
from roots_compress.configs.data import DataConfig
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.documents import TextSplit
from roots_compress.data.packing import pack
from roots_compress.events import Events
from roots_compress.stages.distill.student import make_student
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.teach import teach

BLOCK_SIZE, BATCH_SIZE, TOP_K = 256, 4, 64
STEP_TOKENS = BLOCK_SIZE * BATCH_SIZE
PLAIN = "plain loop: full KL, fp32"
CACHED: dict[str, dict[str, Any]] = {
    "cached teacher, fp32": {"precision": "fp32"},
    "cached teacher": {},
    "cached teacher, batch in 4 parts": {"batch_size": 1, "accumulation": 4},
}

Pace = Callable[[], None]
"""Called before each step; returns when it is this process's turn."""


def main() -> None:
    """Let all loops take turns, and print what a step of each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="training text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--student", default="small")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(CACHED), choices=list(CACHED), metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        text = load_text(DataConfig(train=tuple(arguments.data)), seed=0)
        racers = [
            Racer(plain_loop if name == PLAIN else cached_loop, name, arguments, text, Path(folder))
            for name in (PLAIN, *arguments.only)
        ]
        for _ in range(arguments.repeats + 1):
            for racer in racers:
                racer.step()
        for racer in racers:
            rows[racer.name] = racer.result()
    reference = rows[PLAIN]
    print(
        "| loop | tokens/s | of the plain loop's | peak memory, GB | of the plain loop's |\n"
        "|---|---|---|---|---|"
    )
    for name, row in rows.items():
        speed, memory = (row[key] / reference[key] for key in ("tokens_per_second", "peak_gb"))
        print(
            f"| {name} | {row['tokens_per_second']:.0f} | {speed:.2f} | {row['peak_gb']:.2f} | {memory:.2f} |"
        )
    print(json.dumps({"batch": [BATCH_SIZE, BLOCK_SIZE], "top_k": TOP_K, "loops": rows}))


class Racer:
    """A loop in a process of its own that does a step when told."""

    def __init__(
        self,
        loop: Callable[..., None],
        name: str,
        arguments: argparse.Namespace,
        text: TextSplit,
        folder: Path,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.name, self._seconds = name, list[float]()
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_race, args=(loop, theirs, name, arguments, text, folder))
        self._process.start()
        self._connection.recv()  # Ready. One is made ready after another, undisturbed.

    def step(self) -> None:
        """Let one step be done, and note how long it took."""
        self._connection.send(None)
        self._seconds.append(self._connection.recv())

    def result(self) -> dict[str, float]:
        """Let the loop do its last step, with what comes after it, and end; return its figures."""
        self._connection.send(None)
        peak_kb = self._connection.recv()
        self._process.join()
        median = statistics.median(self._seconds[1:])
        return {
            "tokens_per_second": STEP_TOKENS / median,
            "seconds_a_step": median,
            "peak_gb": peak_kb * 1024 / 1e9,
        }


def _race(
    loop: Callable[..., None],
    connection: Connection,
    name: str,
    arguments: argparse.Namespace,
    text: TextSplit,
    folder: Path,
) -> None:
    torch.set_num_threads(arguments.threads)
    started: list[float] = []

    def pace() -> None:
        connection.send(time.perf_counter() - started[-1] if started else None)
        connection.recv()
        started.append(time.perf_counter())

    loop(arguments, name, text, folder, pace)
    (peak,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    connection.send(int(peak.split()[1]))


def plain_loop(arguments: argparse.Namespace, name: str, text: TextSplit, folder: Path, pace: Pace) -> None:
    """Distil as a first attempt would: whole logits of both models, KL of both, AdamW, float32."""
    checkpoint = load_checkpoint(arguments.checkpoint)
    student_model = make_student(arguments.student, checkpoint, seed=0).model
    tokens = torch.from_numpy(
        pack(
            text.train, checkpoint.tokenizer, BLOCK_SIZE, seed=0, limit=BATCH_SIZE * _steps(arguments)
        ).input_ids
    )
    models = []
    for which, model in (("teacher", checkpoint.model), ("student", student_model)):
        write_back(Checkpoint(model, checkpoint.tokenizer), "llama", folder / which)
        models.append(AutoModelForCausalLM.from_pretrained(folder / which, dtype=torch.float32))
    del checkpoint, student_model, model
    teacher, student = models[0].eval(), models[1].train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    for batch in tokens.split(BATCH_SIZE):
        pace()
        with torch.no_grad():
            teacher_logits = teacher(batch).logits
        logits = student(batch).logits
        loss = F.kl_div(
            logits.log_softmax(-1).flatten(0, 1),
            teacher_logits.softmax(-1).flatten(0, 1),
            reduction="batchmean",
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def cached_loop(arguments: argparse.Namespace, name: str, text: TextSplit, folder: Path, pace: Pace) -> None:
    """Distil as the `distill` stage does, pausing before each step."""
    checkpoint = load_checkpoint(arguments.checkpoint)
    student = make_student(arguments.student, checkpoint, seed=0).model
    settings = {"batch_size": BATCH_SIZE, "accumulation": 1, **CACHED[name]}
    training = TrainingConfig(steps=_steps(arguments), block_size=BLOCK_SIZE, learning_rate=1e-4, **settings)
    passes = iter(range(training.steps * training.accumulation))

    def before_forward(*_: object) -> None:
        if next(passes) % training.accumulation == 0:
            pace()

    student.model.register_forward_pre_hook(before_forward)
    work = folder / name
    work.mkdir()
    teach(
        student,
        checkpoint,
        text,
        pack,
        DistillLossConfig(top_k=TOP_K, cache=folder / "caches"),
        training,
        TrainingContext("cpu", 0, work, Events(), name),
        release_teacher=True,
    )


def _steps(arguments: argparse.Namespace) -> int:
    """Return how many steps a loop does: one to warm up, those that are timed, and one that is not."""
    steps: int = arguments.repeats + 2
    return steps


if __name__ == "__main__":
    main()
