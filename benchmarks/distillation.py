"""What distillation costs in time and memory, and what a teacher is worth in perplexity.

    python benchmarks/distillation.py speed CHECKPOINT
    python benchmarks/distillation.py quality CHECKPOINT [--only NAME...] [--also-eval FILE]

`speed` sets the loop that most people would write (transformers' Llama, full-vocabulary KL, float32, the
teacher running along) beside this project's, which reads a cached teacher. Each runs in a process of its own;
their steps take turns, so that what disturbs the machine disturbs all of them alike. Times are medians over
steps, without the first and the last; memory is the process's peak, the making of the cache and the saving of
the state included.

`quality` trains equal students on equal tokens, with the teacher and without, and scores them on held-out
text. Both print a Markdown table, then one JSON line.
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
from rich.console import Console
from transformers import AutoModelForCausalLM

from roots_compress.data.config import DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.documents import TextSplit
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.packing import pack
from roots_compress.distill.config import DistillConfig
from roots_compress.distill.stage import distill
from roots_compress.distill.student import make_student
from roots_compress.evaluate.perplexity import perplexity
from roots_compress.model.checkpoint import Checkpoint, load_checkpoint
from roots_compress.model.importers.write_back import write_back
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.training.config import DistillLossConfig, TrainingConfig
from roots_compress.training.teach import teach

BLOCK_SIZE, BATCH_SIZE, TOP_K = 256, 4, 64
STEP_TOKENS = BLOCK_SIZE * BATCH_SIZE
PLAIN = "plain loop: full KL, fp32"
CACHED: dict[str, dict[str, Any]] = {
    "cached teacher, fp32": {"precision": "fp32"},
    "cached teacher": {},
    "cached teacher, batch in 4 parts": {"batch_size": 1, "accumulation": 4},
}

CONTROL = "cross-entropy alone"
VARIANTS: dict[str, dict[str, Any]] = {
    CONTROL: {"cross_entropy_weight": 1.0, "divergence_weight": 0.0},
    "forward KL": {},
    f"forward KL, top {TOP_K} from a cache": {"top_k": TOP_K},
    "forward KL, top 16 from a cache": {"top_k": 16},
    "forward KL, temperature 2": {"temperature": 2.0},
    "forward KL, half cross-entropy": {"cross_entropy_weight": 0.5, "divergence_weight": 0.5},
    "reverse KL": {"divergence": "reverse_kl"},
    "Jensen-Shannon": {"divergence": "jensen_shannon"},
    "forward KL, hidden states": {"hidden_weight": 0.3},
    "forward KL, attention relations": {"relation_weight": 1.0},
    "forward KL, a quarter on policy": {"on_policy_ratio": 0.25},
}

Pace = Callable[[], None]
"""Called before each step; returns when it is this process's turn."""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "quality"):
        command = commands.add_parser(name)
        command.add_argument("checkpoint", type=Path)
        command.add_argument("--data", type=Path, nargs="*", default=[], help="training text")
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--student", default="small")
    speed = commands.choices["speed"]
    speed.add_argument("--repeats", type=int, default=5)
    speed.add_argument("--only", nargs="*", default=list(CACHED), choices=list(CACHED), metavar="NAME")
    quality = commands.choices["quality"]
    quality.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    quality.add_argument("--also-eval", type=Path, help="held-out text of another kind")
    quality.add_argument("--steps", type=int, default=200, help=f"of {STEP_TOKENS} tokens")
    quality.add_argument("--learning-rate", type=float, default=2e-3)
    quality.add_argument("--windows", type=int, default=48, help=f"held-out windows of {BLOCK_SIZE} tokens")
    quality.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.command == "speed":
        measure_speed(arguments)
    else:
        measure_quality(arguments)


def measure_speed(arguments: argparse.Namespace) -> None:
    """Let all loops take turns, and print what a step of each took."""
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
        DistillLossConfig(top_k=TOP_K, cache=folder / "caches"),
        training,
        device="cpu",
        seed=0,
        work=work,
        console=Console(quiet=True),
        label=name,
        release_teacher=True,
    )


def _steps(arguments: argparse.Namespace) -> int:
    """Return how many steps a loop does: one to warm up, those that are timed, and one that is not."""
    steps: int = arguments.repeats + 2
    return steps


def measure_quality(arguments: argparse.Namespace) -> None:
    """Train a student in every way, score each, print the table."""
    text = load_text(DataConfig(train=tuple(arguments.data)), seed=arguments.seed)
    other = (
        load_text(
            DataConfig(train=tuple(arguments.data) or (arguments.also_eval,), eval=(arguments.also_eval,)),
            seed=0,
        )
        if arguments.also_eval
        else None
    )
    rows: dict[str, dict[str, Any]] = {}
    print(
        f"{text.description}\n\n"
        f"| objective | perplexity | against {CONTROL} | other text | against | seconds |"
    )
    print("|---|---|---|---|---|---|")
    for name in arguments.only:
        teacher = load_checkpoint(arguments.checkpoint)
        texts = [each.held_out for each in (text, other) if each is not None]
        windows = [
            evaluation_windows(each, teacher.tokenizer, block_size=BLOCK_SIZE, limit=arguments.windows)
            for each in texts
        ]
        training = TrainingConfig(
            steps=arguments.steps,
            batch_size=BATCH_SIZE,
            block_size=BLOCK_SIZE,
            learning_rate=arguments.learning_rate,
            checkpoint_every=arguments.steps,
        )
        config = DistillConfig(
            student=arguments.student, loss=DistillLossConfig(**VARIANTS[name]), training=training
        )
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as work:
            outcome = distill(
                config,
                teacher,
                text,
                device="cpu",
                seed=arguments.seed,
                work=Path(work),
                console=Console(stderr=True),
            )
        scores = [perplexity(TorchEngine(outcome.checkpoint.model), each).perplexity for each in windows]
        rows[name] = {"perplexities": scores, "seconds": time.perf_counter() - start, **outcome.notes}
        control = rows.get(CONTROL, rows[name])["perplexities"]
        cells = [f"{score:.2f} | {score / base:.3f}" for score, base in zip(scores, control, strict=True)]
        cells += ["| "] * (2 - len(cells))
        print(f"| {name} | {' | '.join(cells)} | {rows[name]['seconds']:.0f} |", flush=True)
    print(json.dumps({"steps": arguments.steps, "step_tokens": STEP_TOKENS, "variants": rows}))


if __name__ == "__main__":
    main()
